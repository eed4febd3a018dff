import { assert, assertEquals } from "@std/assert";
import { ErrCompacted, kv, KVStateMachine, NodeHost } from "../../mod.ts";
import { EtcdLogDB } from "../../src/etcd/mod.ts";
import { EtcdNodes, withoutEtcd } from "../etcd/nodes.ts";
import { ServerProcess } from "../etcd/server_process.ts";
import { S3Server, testIfS3 } from "./s3_server.ts";

/** Longest wait for anything, in milliseconds. */
const WAIT_MS_MAX = 120_000;

async function until(
  what: string,
  condition: () => Promise<boolean>,
): Promise<void> {
  const end = Date.now() + WAIT_MS_MAX;
  while (!await condition()) {
    assert(Date.now() < end, `not ${what} in ${WAIT_MS_MAX} ms`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const noEtcd = withoutEtcd();

testIfS3(
  `H7 servers on etcd that share snapshots on S3: one that is killed in the middle of an upload gets no pointer and is replaced, and a new one recovers behind compaction${
    noEtcd === undefined ? "" : `: skipped, ${noEtcd}`
  }`,
  async () => {
    if (noEtcd !== undefined) return;
    await using nodes = await EtcdNodes.start();
    await using s3 = await S3Server.start();
    await using stack = new AsyncDisposableStack();
    const { endpoints } = nodes;
    const { endpoint, bucket } = s3;
    const startServer = async (nodeID: number): Promise<ServerProcess> =>
      stack.use(
        await ServerProcess.start({
          endpoints,
          nodeID,
          snapshotEntries: 200,
          s3: { endpoint, bucket },
        }),
      );
    await using logDB = new EtcdLogDB({ endpoints, snapshots: s3.store() });
    await using host = new NodeHost({ logDB, snapshots: s3.store() });
    const replica = await host.startCluster(() => new KVStateMachine(), {
      clusterID: 1n,
      nodeID: 99n,
    });
    const value = "x".repeat(150_000);
    const put = async (count: number): Promise<void> => {
      for (let i = 0; i < count; i++) {
        await replica.propose(kv.put(`key ${i % 190}`, value));
      }
    };
    // A state of more than three parts.
    await put(190);
    const servers = [await startServer(1), await startServer(2)];
    assertEquals((await logDB.snapshotPointers(1n)).length, 0);
    const isUploading = async (): Promise<boolean> =>
      (await s3.files()).some((one) => one.includes("_uploads"));
    const filled = put(100);
    await until("uploading", isUploading);
    const [first] = await Promise.all(
      servers.map(async (one) => await one.isOnDuty() ? [one] : []),
    ).then((all) => all.flat());
    await first!.kill();
    await filled;
    // What it had written is an upload that was not ended.
    assert(await isUploading());
    assertEquals((await logDB.snapshotPointers(1n)).length, 0);
    // The other one takes over when its lease has ended.
    const log = await logDB.open(1n, 98n);
    await until("compacted", async () => {
      // Small ones: the state stays as large as it is.
      for (let i = 0; i < 20; i++) await replica.propose(kv.put("key 0", "x"));
      await log.readIndex();
      try {
        (await log.read(0)).close();
        return false;
      } catch (error) {
        if (error instanceof ErrCompacted) return true;
        throw error;
      }
    });
    await log.close();
    assert(await logDB.compactHistory() > 0);
    const third = await startServer(3);
    const [second] = servers.filter((one) => one !== first);
    assertEquals((await third.state()).count, (await second!.state()).count);
    assertEquals((await third.state()).count, 190);
  },
  true,
);
