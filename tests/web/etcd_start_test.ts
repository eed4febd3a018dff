import { assert, assertEquals, assertMatch } from "@std/assert";
import { ErrCompacted, NodeHost } from "../../mod.ts";
import { EtcdLogDB } from "../../src/etcd/mod.ts";
import { RemoteLogDB } from "../../src/sync/client/mod.ts";
import { board } from "../../web/app/board.ts";
import { clusterOf, WELCOME } from "../../web/app/names.ts";
import { EtcdNodes, testIfEtcd } from "../etcd/nodes.ts";

const START = new URL("../../web/start.ts", import.meta.url).href;

function spawn(...args: string[]): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-all", "--quiet", START, "--port=0", ...args],
    env: { NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** Starts a server that cannot start; returns what it says. */
async function refusal(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await spawn(...args).output();
  const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
  assertEquals([code, text(stdout)], [2, ""], text(stderr));
  assertMatch(text(stderr), /^start: --log: .*\n$/, "one line");
  return text(stderr);
}

/** Starts a server, lets it note which etcd it has, and kills it. */
async function runAndKill(folder: string, log: string): Promise<void> {
  const child = spawn(log, `--data=${folder}`);
  try {
    for (let tries = 0;; tries++) {
      try {
        await Deno.stat(`${folder}/etcd.json`);
        return;
      } catch (error) {
        assert(
          error instanceof Deno.errors.NotFound && tries < 2_400,
          `${error}`,
        );
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  } finally {
    child.kill("SIGKILL");
    await child.output();
  }
}

function urlOf({ endpoints }: EtcdNodes, user = ""): string {
  return `--log=etcd://${user}${new URL(endpoints[0]!).host}`;
}

testIfEtcd(
  "H13 a server that was killed refuses another etcd at its next start, and one that was restored from a backup, in one line",
  async () => {
    const folder = await Deno.makeTempDir({ prefix: "start-" });
    try {
      await using nodes = await EtcdNodes.start();
      await using others = await EtcdNodes.start();
      const backup = `${folder}/backup.db`;
      assert((await nodes.ctl("snapshot", "save", backup)).success);
      const data = `${folder}/data`;
      await runAndKill(data, urlOf(nodes));
      assertMatch(
        await refusal(urlOf(others), `--data=${data}`),
        /cluster id .* Nothing was written/,
      );
      await nodes.restore(backup);
      assertMatch(
        await refusal(urlOf(nodes), `--data=${data}`),
        /Nothing was written/,
      );
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
  true,
);

testIfEtcd(
  "H11 a server says in one line that etcd refuses its password, or does not answer",
  async () => {
    const folder = await Deno.makeTempDir({ prefix: "start-" });
    try {
      await using nodes = await EtcdNodes.start();
      for (
        const args of [
          ["user", "add", "root", "--new-user-password=secret"],
          ["user", "grant-role", "root", "root"],
          ["auth", "enable"],
        ]
      ) assert((await nodes.ctl(...args)).success);
      const data = `--data=${folder}`;
      assertMatch(
        await refusal(urlOf(nodes, "root:guess@"), data),
        /check user and password/,
      );
      await nodes.kill(0);
      assertMatch(
        await refusal(urlOf(nodes, "root:secret@"), data),
        /No answer of etcd/,
      );
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
  true,
);

/** Server of the demo in a process of its own. */
class DemoServer implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #reader: ReadableStreamDefaultReader<string>;
  url = "";

  constructor(...args: string[]) {
    this.#child = spawn(...args);
    this.#child.stderr.cancel();
    this.#reader = this.#child.stdout.pipeThrough(new TextDecoderStream())
      .getReader();
  }

  /** Waits until it has printed its URL. */
  async started(): Promise<this> {
    let said = "";
    while (this.url === "") {
      const { done, value } = await this.#reader.read();
      assert(!done, `It ended: ${said}`);
      said += value;
      this.url = /board is at (http:\S+)/.exec(said)?.[1] ?? "";
    }
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#reader.cancel();
    await this.#child.status;
  }
}

testIfEtcd(
  "H7 servers of the demo on etcd share nothing, compact the log, and one with an empty folder comes back by its peers",
  async () => {
    const folder = await Deno.makeTempDir({ prefix: "start-" });
    try {
      await using nodes = await EtcdNodes.start();
      await using stack = new AsyncDisposableStack();
      const add = async (node: number): Promise<DemoServer> =>
        await stack.use(
          new DemoServer(
            urlOf(nodes),
            `--data=${folder}/${node}`,
            `--node=${node}`,
            "--snapshot-entries=10",
          ),
        ).started();
      const [first] = [await add(1), await add(2)];
      const clusterID = clusterOf(WELCOME);
      await using logDB = new EtcdLogDB({ endpoints: nodes.endpoints });
      const log = await logDB.open(clusterID, 99n);
      const remote = new RemoteLogDB(`${first!.url.replace("http", "ws")}sync`);
      const host = new NodeHost({ logDB: remote });
      const replica = await host.startConcurrentCluster(board.create, {
        clusterID,
        nodeID: 100n,
      });
      for (let tries = 0;; tries++) {
        assert(tries < 1_000, "the log was not compacted");
        await replica.closeSession(await replica.openSession());
        // The other server copies a snapshot a moment after it was taken.
        await new Promise((resolve) => setTimeout(resolve, 50));
        await log.readIndex();
        try {
          (await log.read(0)).close();
        } catch (error) {
          if (!(error instanceof ErrCompacted)) throw error;
          break;
        }
      }
      await logDB.compactHistory();
      const third = await add(3);
      const health = new URL(`health/clusters/${clusterID}`, third.url);
      const { status, applied } = await (await fetch(health)).json();
      assertEquals(status, "ok");
      assert(applied >= replica.appliedIndex);
      await host.stop();
      await remote.close();
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
  true,
);
