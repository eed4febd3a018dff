import { assert, assertEquals, assertMatch } from "@std/assert";
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
