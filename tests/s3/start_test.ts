import { assert, assertEquals, assertMatch } from "@std/assert";
import { clusterOf, WELCOME } from "../../web/app/names.ts";
import { EtcdLogDB } from "../../src/etcd/mod.ts";
import { EtcdNodes, withoutEtcd } from "../etcd/nodes.ts";
import { S3Server, testIfS3 } from "./s3_server.ts";
import { NodeHost } from "../../mod.ts";
import { RemoteLogDB } from "../../src/sync/client/mod.ts";
import { board } from "../../web/app/board.ts";

const START = new URL("../../web/start.ts", import.meta.url).href;

const CREDENTIALS = {
  AWS_ACCESS_KEY_ID: "S3RVER",
  AWS_SECRET_ACCESS_KEY: "S3RVER",
};

function spawn(
  env: Readonly<Record<string, string>>,
  ...args: string[]
): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-all", "--quiet", START, "--port=0", ...args],
    env: { NO_COLOR: "1", AWS_ACCESS_KEY_ID: "", ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** Starts a server that cannot start; returns what it says. */
async function refusal(
  env: Readonly<Record<string, string>>,
  ...args: string[]
): Promise<string> {
  const { code, stderr } = await spawn(env, ...args).output();
  const text = new TextDecoder().decode(stderr);
  assertEquals(code, 2, text);
  assertMatch(text, /^start: --snapshots.*\n$/, "one line");
  return text;
}

const noEtcd = withoutEtcd();

testIfS3(
  `H7 servers of the demo on etcd share their snapshots on S3, and say in one line what is missing${
    noEtcd === undefined ? "" : `: skipped, ${noEtcd}`
  }`,
  async () => {
    if (noEtcd !== undefined) return;
    await using nodes = await EtcdNodes.start();
    await using s3 = await S3Server.start();
    const folder = await Deno.makeTempDir({ prefix: "start-" });
    const log = `--log=etcd://${new URL(nodes.endpoints[0]!).host}`;
    const data = `--data=${folder}/1`;
    const place = (bucket: string): string =>
      `--snapshots=s3://${bucket}/demo?endpoint=${s3.endpoint}`;
    try {
      assertMatch(
        await refusal({}, log, data, place("boards")),
        /AWS_ACCESS_KEY_ID is not set/,
      );
      assertMatch(
        await refusal(CREDENTIALS, log, data, "--snapshots=boards"),
        /give s3:\/\/bucket/,
      );
      assertMatch(
        await refusal(CREDENTIALS, data, place("boards")),
        /give --log, too/,
      );
      assertMatch(
        await refusal(CREDENTIALS, log, data, place("none-such")),
        /NoSuchBucket.*create the bucket/,
      );
      const child = spawn(
        CREDENTIALS,
        log,
        data,
        place("boards"),
        "--snapshot-entries=10",
      );
      child.stderr.cancel();
      const reader = child.stdout.pipeThrough(new TextDecoderStream())
        .getReader();
      try {
        let said = "";
        let url: string | undefined;
        while (url === undefined) {
          const { done, value } = await reader.read();
          assert(!done, `It ended: ${said}`);
          said += value;
          url = /board is at (http:\S+)/.exec(said)?.[1];
        }
        await using logDB = new EtcdLogDB({
          endpoints: nodes.endpoints,
          snapshots: s3.store({ prefix: "demo" }),
        });
        const remote = new RemoteLogDB(`${url.replace("http", "ws")}sync`);
        const host = new NodeHost({ logDB: remote });
        const clusterID = clusterOf(WELCOME);
        const replica = await host.startConcurrentCluster(board.create, {
          clusterID,
          nodeID: 100n,
        });
        for (let tries = 0;; tries++) {
          assert(tries < 500, "no snapshot was stored");
          await replica.closeSession(await replica.openSession());
          if ((await logDB.snapshotPointers(clusterID)).length > 1) break;
        }
        const [newest] = await logDB.snapshots!.list(clusterID);
        assertEquals(newest!.clusterID, clusterID);
        await host.stop();
        await remote.close();
      } finally {
        child.kill("SIGKILL");
        await reader.cancel();
        await child.status;
      }
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
  true,
);
