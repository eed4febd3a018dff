import { assert, assertEquals } from "@std/assert";
import {
  kv,
  KVStateMachine,
  MemoryLogDB,
  newNodeID,
  NodeHost,
} from "../../mod.ts";
import { RemoteLogDB, serve } from "../../src/sync/mod.ts";
import { connectSocket } from "../../src/sync/transport.ts";
import { SqliteKVStateMachine } from "../../src/sqlite/mod.ts";

/** Number of entries in the log of the server. */
const ENTRIES = 16_000;

/** On-disk machine that opens later than the log on the server, as on a fast network. */
class LateStateMachine extends SqliteKVStateMachine {
  readonly #logDB: RemoteLogDB;
  constructor(path: string, logDB: RemoteLogDB) {
    super(path);
    this.#logDB = logDB;
  }
  override async open(signal: AbortSignal): Promise<number> {
    const opened = await super.open(signal);
    while (this.#logDB.status.clusters[0]?.state !== "catching up") {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    return opened;
  }
}

Deno.test("case B7: a replica on disk that is opened again downloads nothing that it has [D3, U38]", async () => {
  const directory = await Deno.makeTempDir();
  try {
    await using serverLog = new MemoryLogDB();
    await using there = new NodeHost({ logDB: serverLog });
    const origin = await there.startCluster(() => new KVStateMachine(), {
      clusterID: 1n,
      nodeID: 1n,
    });
    for (let i = 0; i < ENTRIES; i += 500) {
      await Promise.all(
        Array.from(
          { length: 500 },
          (_, j) => origin.propose(kv.put(`key ${i + j}`, "some value")),
        ),
      );
    }
    await using server = serve(there);
    const nodeID = newNodeID();
    const visit = async (): Promise<number> => {
      let received = 0;
      await using logDB = new RemoteLogDB(server.url, {
        connect: (url) => {
          const transport = connectSocket(url);
          const { listen } = transport;
          transport.listen = (listener): void =>
            listen({
              opened: () => listener.opened(),
              frame: (bytes) => {
                received += bytes.length;
                listener.frame(bytes);
              },
              closed: (code, reason) => listener.closed(code, reason),
            });
          return transport;
        },
      });
      await using host = new NodeHost({ logDB });
      const replica = await host.startOnDiskCluster(
        () => new LateStateMachine(`${directory}/state.db`, logDB),
        { clusterID: 1n, nodeID },
      );
      assertEquals(await replica.read(kv.count()), ENTRIES);
      return received;
    };
    const first = await visit();
    assert(first > 5 * ENTRIES, `${first}`);
    const again = await visit();
    assert(again <= 4096, `${again} bytes`);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
