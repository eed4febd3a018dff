import { assert, assertEquals } from "@std/assert";
import { freePort } from "../../web/free_ports.ts";
import { launch, removeFolder, within } from "./browser.ts";
import { sleep } from "../sync/server_process.ts";
import { Visitor } from "./visitor.ts";

const ROOT = new URL("../../", import.meta.url);
const BOARD = new URL("web/examples/board/", ROOT);

/** Milliseconds that a server may take to start: it bundles the page. */
const START_MS_MAX = 60_000;

/** Milliseconds until a page has the cards of a test. */
const CARDS_MS_MAX = 20_000;

/** Board in a folder of its own, in one of its versions, as its author would change it. */
class Board {
  readonly #folder: URL;
  readonly #port: number;
  #child: Deno.ChildProcess | undefined;

  constructor(folder: URL, port: number) {
    this.#folder = folder;
    this.#port = port;
  }

  async #copy(
    from: string,
    to: string,
    changes: readonly [string, string][],
  ): Promise<void> {
    let text = await Deno.readTextFile(new URL(from, BOARD));
    for (const [old, changed] of changes) {
      const parts = text.split(old);
      assert(parts.length > 1, `${from} has no ${old}`);
      text = parts.join(changed);
    }
    await Deno.writeTextFile(new URL(to, this.#folder), text);
  }

  /** Serves a version, with a snapshot after each third entry. */
  async start(version: 1 | 2): Promise<void> {
    const often: [string, string] = [
      "clusterID: 1n,",
      "clusterID: 1n, snapshotEntries: 3,",
    ];
    const path = this.#folder.href.slice(ROOT.href.length);
    await this.#copy("index.html", "index.html", []);
    await this.#copy("server.ts", "server.ts", [
      ["./web/examples/board/", `./${path}`],
      ["../../page.ts", "../../web/page.ts"],
      often,
    ]);
    await this.#copy(
      version === 1 ? "machine.ts" : "next.ts",
      "machine.ts",
      [],
    );
    await this.#copy(
      "page.ts",
      "page.ts",
      version === 1 ? [often] : [
        often,
        [
          "newID(), text:",
          "newID(), urgent: true, text:",
        ],
        ["by, done })", "by, done, urgent })"],
        ["} ${text}", '}${urgent ? " !" : ""} ${text}'],
      ],
    );
    const program = new URL("server.ts", this.#folder);
    const data = new URL("data", this.#folder).pathname;
    this.#child = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--allow-all",
        "--quiet",
        "--no-check",
        program.pathname,
        data,
        `${this.#port}`,
      ],
      stdin: "null",
      stdout: "null",
      stderr: "inherit",
    }).spawn();
    await within(START_MS_MAX, "Starting the board", this.#answers());
  }

  async #answers(): Promise<void> {
    for (;;) {
      const response = await fetch(`http://127.0.0.1:${this.#port}/health`)
        .catch(() => undefined);
      await response?.body?.cancel();
      if (response?.ok) return;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  async stop(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    child?.kill("SIGTERM");
    await child?.status;
  }
}

async function logIn(visitor: Visitor, name: string): Promise<void> {
  await visitor.finds("form");
  await visitor.type("form input", name);
  await visitor.click("form button");
  await visitor.sees({ state: "live" });
}

async function add(visitor: Visitor, text: string): Promise<void> {
  await visitor.type("form:last-of-type input", text);
  await visitor.click("form:last-of-type button");
}

/** Waits until the page has these cards, in any order. */
async function sees(
  visitor: Visitor,
  cards: readonly string[],
): Promise<void> {
  let items: readonly string[] = [];
  for (let waited = 0; waited < CARDS_MS_MAX; waited += 50) {
    items = (await visitor.look()).items.toSorted();
    if (`${items}` === `${cards.toSorted()}`) return;
    await sleep(50);
  }
  assertEquals(items, cards.toSorted());
}

Deno.test({
  name:
    "the board's second version adds a field and a command: old pages, queued commands and snapshots lose nothing, and are asked for a reload at most [Y6, Y8, U30]",
  // The browser's driver keeps its connection open.
  sanitizeOps: false,
  sanitizeResources: false,
  async fn(): Promise<void> {
    const folder = new URL(`.cache/board-${crypto.randomUUID()}/`, ROOT);
    await Deno.mkdir(folder, { recursive: true });
    const port = freePort();
    const board = new Board(folder, port);
    const browser = await launch("Chromium");
    try {
      await board.start(1);
      // The browser treats two origins as two devices.
      const one = new Visitor(await browser.open(`http://localhost:${port}/`));
      const two = new Visitor(await browser.open(`http://127.0.0.1:${port}/`));
      await logIn(one, "Ann");
      await logIn(two, "Bob");
      await add(one, "rice");
      await two.sees({ items: ["○ rice (Ann)"] });
      await two.click("section button");
      await one.sees({ items: ["✓ rice (Ann)"] });
      await board.stop();
      await one.reads(/server/);
      await add(one, "tea");
      await add(two, "milk");
      await sees(one, ["○ tea (Ann)", "✓ rice (Ann)"]);

      // Pages of version 1, with their commands queued, meet the server of version 2,
      // which begins with a snapshot of version 1. They go on taking edits.
      await board.start(2);
      await one.reads(/load the newer code/);
      await two.reads(/load the newer code/);
      await add(two, "salt");
      await one.reload();
      await one.sees({ state: "live" });
      // The page of version 2 sends what version 1 does not know.
      await add(one, "bread");
      await two.reload();
      await two.sees({ state: "live" });
      for (const visitor of [one, two]) {
        await sees(visitor, [
          "○ milk (Bob)",
          "○ salt (Bob)",
          "○ tea (Ann)",
          "○ ! bread (Ann)",
          "✓ rice (Ann)",
        ]);
      }
    } finally {
      await browser.close();
      await board.stop();
      await removeFolder(folder.pathname);
    }
  },
});
