import { assertMatch, assertRejects } from "@std/assert";
import {
  ErrProposalRefused,
  kv,
  KVStateMachine,
  MemoryOutbox,
  newNodeID,
  NodeHost,
  type Replica,
} from "../../mod.ts";
import { RemoteLogDB } from "../../src/sync/client/mod.ts";
import { sleep } from "../sync/server_process.ts";
import { type Browser, launch, type Page, removeFolder } from "./browser.ts";
import { DemoServer } from "./sync_demo.ts";
import { Visitor } from "./visitor.ts";

/** An example that is served, and two devices that have its page open. */
class Scene implements AsyncDisposable {
  readonly server: DemoServer;
  readonly one: Visitor;
  readonly two: Visitor;
  readonly #folder: string;
  readonly #browser: Browser;

  private constructor(
    server: DemoServer,
    [one, two]: readonly [Page, Page],
    folder: string,
    browser: Browser,
  ) {
    this.server = server;
    this.one = new Visitor(one);
    this.two = new Visitor(two);
    this.#folder = folder;
    this.#browser = browser;
  }

  static async open(program: string, args: readonly string[]): Promise<Scene> {
    const folder = await Deno.makeTempDir({ prefix: "example-" });
    const server = new DemoServer(`${folder}/data`, program, args);
    await server.start();
    const browser = await launch("Chromium");
    const { port } = new URL(server.url);
    // The browser treats two origins as two devices.
    const one = await browser.open(`http://localhost:${port}/`);
    const two = await browser.open(`http://127.0.0.1:${port}/`);
    return new Scene(server, [one, two], folder, browser);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#browser.close();
    await this.server.stop("SIGTERM");
    await removeFolder(this.#folder);
  }
}

function testExample(
  name: string,
  program: string,
  args: readonly string[],
  run: (scene: Scene) => Promise<void>,
): void {
  Deno.test({
    name,
    // The browser's driver keeps its connection open.
    sanitizeOps: false,
    sanitizeResources: false,
    async fn(): Promise<void> {
      await using scene = await Scene.open(program, args);
      await run(scene);
    },
  });
}

const RUN = "../web/examples/run.ts";
const SENT = "Everything is sent";
const WAITING = "Waiting to be sent: 1";

for (const framework of ["react", "solid", "svelte", "vue"]) {
  testExample(
    `the ${framework} example edits its list offline, reloads, and agrees once the server is back [U15, U30]`,
    RUN,
    [framework],
    async ({ server, one, two }) => {
      await one.sees({ state: "live" });
      await two.sees({ state: "live" });
      await one.add("bread");
      await two.sees({ items: ["bread"] });
      await two.add("milk");
      const both = { items: ["bread", "milk"], waiting: SENT };
      await one.sees(both);
      await two.sees(both);
      // Applied entries become durable on the device within about a second.
      await sleep(2_000);
      await server.stop("SIGKILL");
      await one.sees({ state: "offline" });
      await two.sees({ state: "offline" });
      await one.add("tea");
      await two.click("[aria-label='Remove bread']");
      const offline = [
        [one, { items: ["bread", "milk", "tea"], waiting: WAITING }],
        [two, { items: ["milk"], waiting: WAITING }],
      ] as const;
      for (const [visitor, seen] of offline) await visitor.sees(seen);
      for (const [visitor, seen] of offline) {
        await visitor.reload();
        await visitor.sees(seen);
      }
      await server.start();
      for (const visitor of [one, two]) {
        await visitor.sees({
          state: "live",
          items: ["milk", "tea"],
          waiting: SENT,
          problems: "",
        });
      }
    },
  );
}

testExample(
  "the example of a state machine of one's own lets two book a seat offline, and refuses the second [U18]",
  RUN,
  ["seats"],
  async ({ server, one, two }) => {
    const free = Array(8).fill("free");
    const named = [[one, "Ann"], [two, "Bob"]] as const;
    for (const [visitor, name] of named) {
      await visitor.sees({ state: "live", items: free });
      await visitor.type("#name", name);
    }
    await one.click("[aria-label='Seat 1: free']");
    await two.sees({ items: ["Ann", ...free.slice(1)] });
    await server.stop("SIGKILL");
    for (const [visitor, name] of named) {
      await visitor.sees({ state: "offline" });
      await visitor.click("[aria-label='Seat 3: free']");
      const seen = {
        items: ["Ann", "free", name, ...free.slice(3)],
        waiting: WAITING,
      };
      await visitor.sees(seen);
      await visitor.reload();
      await visitor.sees(seen);
    }
    await server.start();
    await one.sees({ state: "live", waiting: SENT });
    await two.sees({ state: "live", waiting: SENT });
    const { items } = await one.look();
    const [winner, loser] = items[2] === "Ann"
      ? ["Ann", two] as const
      : ["Bob", one] as const;
    const seen = ["Ann", "free", winner, ...free.slice(3)];
    await one.sees({ items: seen });
    await two.sees({ items: seen });
    await loser.sees({ problems: `Seat 3 belongs to ${winner} already OK` });
    await loser.click("#refused button");
    await loser.sees({ problems: "" });
  },
);

/** Client of the guest book, with a token of its own. */
async function guest(
  url: string,
  token: string,
): Promise<{ replica: Replica; logDB: RemoteLogDB } & AsyncDisposable> {
  const logDB = new RemoteLogDB(url.replace("http", "ws"), { token });
  const host = new NodeHost({ logDB, outbox: new MemoryOutbox() });
  const replica = await host.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: newNodeID(),
  });
  return {
    replica,
    logDB,
    async [Symbol.asyncDispose](): Promise<void> {
      await host.stop();
      await logDB.close();
    },
  };
}

testExample(
  "the JWT example has people log in, and write offline under their own name only [U17, U34]",
  "../web/examples/jwt.ts",
  [],
  async ({ server, one, two }) => {
    for (const [visitor, name] of [[one, "Ann"], [two, "Bob"]] as const) {
      await visitor.type("#login input", name);
      await visitor.click("#login button");
      await visitor.sees({ state: "live" });
      await visitor.type("#write input", "hello");
      await visitor.click("#write button");
    }
    const hello = { items: ["Ann: hello", "Bob: hello"], waiting: SENT };
    await one.sees(hello);
    await two.sees(hello);
    await server.stop("SIGKILL");
    await two.sees({ state: "offline" });
    await two.type("#write input", "anyone?");
    await two.click("#write button");
    await two.sees({ waiting: WAITING });
    await server.start();
    const items = ["Ann: hello", "Bob: hello", "Bob: anyone?"];
    // Tokens issued before the restart stay valid.
    for (const visitor of [one, two]) {
      await visitor.sees({ state: "live", items, waiting: SENT, problems: "" });
    }

    const body = new FormData();
    body.set("name", "Eve");
    const token = await fetch(`${server.url}login`, { method: "POST", body })
      .then((response) => response.text());
    {
      await using eve = await guest(server.url, token);
      for (
        const cmd of [
          kv.put("Ann/1", "I never said this"),
          kv.delete("Ann/1"),
          kv.batch([kv.put("Eve/1", "mine"), kv.delete("Ann/1")]),
          new Uint8Array([255]),
        ]
      ) {
        const { result } = await eve.replica.submit(cmd);
        const error = await assertRejects(() => result, ErrProposalRefused);
        assertMatch(error.message, /You are Eve/);
      }
      await (await eve.replica.submit(kv.put("Eve/1", "mine"))).result;
    }
    // A token with a forged signature, and an empty token.
    for (const bad of [`${token}x`, ""]) {
      await using stranger = await guest(server.url, bad);
      while (stranger.logDB.state !== "needs-auth") await sleep(20);
    }
    await one.click("#logout");
    await one.finds("#login");
    await one.sees({ items: [] });
    await one.type("#login input", "Cid");
    await one.click("#login button");
    await one.sees({ state: "live", items: [...items, "Eve: mine"] });
  },
);
