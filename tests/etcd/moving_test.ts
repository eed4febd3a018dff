import { assert, assertEquals } from "@std/assert";
import { kv, KVStateMachine, NodeHost } from "../../mod.ts";
import { RemoteLogDB } from "../../src/sync/client/mod.ts";
import { Proxy } from "../sync/proxy.ts";
import { type EtcdNodes, test } from "./nodes.ts";
import { ServerProcess } from "./server_process.ts";

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Client that proposes in a session, and whose reads must not go back in time. */
class Client {
  /** Proposals answered. */
  count = 0;
  readonly logDB: RemoteLogDB;
  readonly #host: NodeHost;
  readonly #name: string;
  #isStopped = false;
  #done: Promise<void> = Promise.resolve();

  constructor(name: string, urls: readonly string[]) {
    this.#name = name;
    this.logDB = new RemoteLogDB(urls);
    this.#host = new NodeHost({ logDB: this.logDB });
  }

  async start(nodeID: bigint): Promise<void> {
    const replica = await this.#host.startCluster(() => new KVStateMachine(), {
      clusterID: 1n,
      nodeID,
    });
    const session = await replica.openSession();
    let seen = 0;
    const see = (count: unknown): void => {
      assert(
        count as number >= seen,
        `${this.#name} read ${count} after ${seen}`,
      );
      seen = count as number;
    };
    this.#done = (async () => {
      while (!this.#isStopped) {
        const key = `${this.#name}-${String(this.count).padStart(6, "0")}`;
        await replica.propose(kv.put(key, "x"), { session });
        this.count++;
        see(await replica.staleRead(kv.count()));
        const rows = await replica.read(
          kv.range({ start: `${this.#name}-`, end: `${this.#name}.` }),
        ) as readonly unknown[];
        assert(rows.length >= this.count, "an answered proposal is missing");
        see(await replica.staleRead(kv.count()));
      }
    })();
    this.#done.catch(() => {});
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#done;
    await this.#host.stop();
    await this.logDB.close();
  }
}

/** Waits until each client has made progress. */
async function moving(
  clients: readonly Client[],
  what: string,
): Promise<void> {
  const before = clients.map(({ count }) => count);
  for (let waited = 0;; waited += 100) {
    if (clients.every(({ count }, i) => count > before[i]! + 3)) return;
    const { state, reason } = clients[0]!.logDB.status;
    assert(
      waited < 40_000,
      `${what}: ${
        clients.map((c) => c.count)
      } after ${before}, ${state} ${reason?.message}`,
    );
    await pause(100);
  }
}

/** Proxies between one server and the etcd nodes. */
function proxiesOf(nodes: EtcdNodes): {
  readonly endpoints: readonly string[];
  readonly all: readonly Proxy[];
} {
  const all = nodes.endpoints.map((url) =>
    new Proxy(Number(new URL(url).port), 1, undefined)
  );
  return {
    endpoints: all.map(({ port }) => `http://127.0.0.1:${port}`),
    all,
  };
}

test(
  "U30 H3 clients move on from a server that is killed, one that is cut off from etcd and lags, and one that is frozen: nothing is lost or doubled, no read goes back",
  async (nodes) => {
    const { endpoints } = nodes;
    const cut = proxiesOf(nodes);
    await using stack = new AsyncDisposableStack();
    for (const proxy of cut.all) stack.use(proxy);
    const servers: ServerProcess[] = [];
    for (const nodeID of [1, 2, 3]) {
      servers.push(stack.use(
        await ServerProcess.start({
          endpoints: nodeID === 2 ? cut.endpoints : endpoints,
          nodeID,
        }),
      ));
    }
    const [first, second, third] = servers as [
      ServerProcess,
      ServerProcess,
      ServerProcess,
    ];
    const urls = servers.map(({ url }) => url);
    const clients = [new Client("a", urls), new Client("b", urls)];
    for (const [i, client] of clients.entries()) {
      await client.start(BigInt(100 + i));
    }
    await moving(clients, "at first");
    await first.kill();
    await moving(clients, "at the second server, the first one killed");
    for (const proxy of cut.all) proxy.isDown = true;
    await moving(clients, "at the third server, the second one cut off");
    // A client that has not been there is sent on by the one that is cut off.
    const late = new Client("c", [second.url, third.url]);
    await late.start(102n);
    await moving([...clients, late], "with another client");
    await first.restart();
    third.signal("SIGSTOP");
    await moving(clients, "at the first server, the third one frozen");
    for (const proxy of cut.all) proxy.isDown = false;
    await moving([late], "at the second server, which reaches etcd again");
    third.signal("SIGCONT");
    await moving([...clients, late], "with all servers");
    for (const client of [...clients, late]) await client.stop();
    const total = [...clients, late].reduce((sum, { count }) => sum + count, 0);
    const states = [];
    for (const server of servers) states.push(await server.state());
    assertEquals(states.map(({ count }) => count), [total, total, total]);
    assertEquals(new Set(states.map(({ hash }) => hash)).size, 1);
  },
  { count: 3, leavesTimers: true },
);
