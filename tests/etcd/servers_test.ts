import { assert, assertEquals } from "@std/assert";
import { kv, KVStateMachine, NodeHost, type Replica } from "../../mod.ts";
import { EtcdLogDB } from "../../src/etcd/mod.ts";
import { RemoteLogDB } from "../../src/sync/client/mod.ts";
import { serve, type Server } from "../../src/sync/server/mod.ts";
import { type EtcdNodes, test } from "./nodes.ts";

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Server with its host on etcd. */
interface Running {
  readonly replica: Replica;
  readonly server: Server;
  stop(): Promise<void>;
}

async function run(nodes: EtcdNodes, nodeID: bigint): Promise<Running> {
  const at = Number(nodeID) % 3;
  const endpoints = [
    ...nodes.endpoints.slice(at),
    ...nodes.endpoints.slice(0, at),
  ];
  const logDB = new EtcdLogDB({ endpoints, appendMs: 2_000 });
  const host = new NodeHost({ logDB });
  const replica = await host.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID,
    hashEntries: 16,
  });
  const server = serve(host);
  return {
    replica,
    server,
    async stop(): Promise<void> {
      await server.shutdown();
      await host.stop();
      await logDB.close();
    },
  };
}

/** Client that proposes in a session, and reads its own count after each answer. */
class Client {
  count = 0;
  readonly #logDB: RemoteLogDB;
  readonly #host: NodeHost;
  readonly #name: string;
  #isStopped = false;
  #done: Promise<void> = Promise.resolve();

  constructor(name: string, urls: readonly string[]) {
    this.#name = name;
    this.#logDB = new RemoteLogDB(urls);
    this.#host = new NodeHost({ logDB: this.#logDB });
  }

  async start(nodeID: bigint): Promise<void> {
    const replica = await this.#host.startCluster(() => new KVStateMachine(), {
      clusterID: 1n,
      nodeID,
    });
    const session = await replica.openSession();
    this.#done = (async () => {
      while (!this.#isStopped) {
        const key = `${this.#name}-${String(this.count).padStart(6, "0")}`;
        await replica.propose(kv.put(key, "x"), { session });
        this.count++;
        const rows = await replica.read(
          kv.range({ start: `${this.#name}-`, end: `${this.#name}.` }),
        ) as readonly unknown[];
        assert(rows.length >= this.count, "a read went back in time");
      }
    })();
    this.#done.catch(() => {});
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#done;
    await this.#host.stop();
    await this.#logDB.close();
  }
}

test(
  "H3 U30 clients of three servers on etcd move on when a server stops or an etcd node dies: nothing is lost or doubled, no read goes back",
  async (nodes) => {
    const servers: (Running | undefined)[] = [];
    for (const nodeID of [1n, 2n, 3n]) servers.push(await run(nodes, nodeID));
    const urls = servers.map((one) => one!.server.url);
    const clients = urls.map((_, i) =>
      new Client(`c${i}`, [...urls.slice(i), ...urls.slice(0, i)])
    );
    try {
      for (const [i, client] of clients.entries()) {
        await client.start(BigInt(100 + i));
      }
      await pause(500);
      const moving = async (what: string): Promise<void> => {
        const before = clients.map(({ count }) => count);
        for (let waited = 0;; waited += 100) {
          if (clients.every(({ count }, i) => count > before[i]! + 3)) return;
          assert(waited < 15_000, `${what}: ${clients.map((c) => c.count)}`);
          await pause(100);
        }
      };
      await moving("at first");
      await servers[0]!.stop();
      servers[0] = undefined;
      await moving("without server 1");
      const leader = await nodes.leader();
      await nodes.kill(leader);
      await moving("without etcd's leader");
      nodes.run(leader);
      await moving("with all etcd nodes");
      for (const client of clients) await client.stop();
      const total = clients.reduce((sum, { count }) => sum + count, 0);
      const hashes = new Set<string>();
      for (const one of servers.slice(1)) {
        assertEquals(await one!.replica.read(kv.count()), total);
        const { hash, index } = await one!.replica.getHash();
        hashes.add(`${hash} at ${index}`);
      }
      assertEquals(hashes.size, 1);
    } finally {
      for (const one of servers) await one?.stop();
    }
  },
  { count: 3, leavesTimers: true },
);
