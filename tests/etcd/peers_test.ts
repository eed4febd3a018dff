import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertThrows,
} from "@std/assert";
import { createHmac } from "node:crypto";
import {
  ErrCompacted,
  kv,
  KVStateMachine,
  MemorySnapshotStore,
  NodeHost,
  type Replica,
} from "../../mod.ts";
import {
  type ErrPeerSnapshot,
  EtcdLogDB,
  type EtcdPeersOptions,
} from "../../src/etcd/mod.ts";
import type { SnapshotInfo, SnapshotStore } from "../../src/ports/mod.ts";
import { serve, type Server } from "../../src/sync/server/mod.ts";
import { type EtcdNodes, test } from "./nodes.ts";
import { storeConforms } from "./store_conforms.ts";
import { ServerProcess } from "./server_process.ts";

/** Longest wait for anything, in milliseconds. */
const WAIT_MS_MAX = 60_000;

async function until(
  what: string,
  condition: () => Promise<boolean> | boolean,
): Promise<void> {
  for (let waited = 0; !await condition(); waited += 50) {
    assert(waited < WAIT_MS_MAX, `not ${what} in ${WAIT_MS_MAX} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test(
  "the store of a server that exchanges snapshots conforms to its port",
  ({ endpoints }, t) =>
    storeConforms(
      t,
      () => ({ endpoints, peers: { store: new MemorySnapshotStore() } }),
    ),
);

/** Server of this process with snapshots of its own. */
class PeerServer implements AsyncDisposable {
  readonly store = new MemorySnapshotStore();
  readonly faults: ErrPeerSnapshot[] = [];
  readonly logDB: EtcdLogDB;
  readonly host: NodeHost;
  #server: Server | undefined;

  constructor(
    endpoints: readonly string[],
    options: Partial<EtcdPeersOptions> = {},
  ) {
    this.logDB = new EtcdLogDB({
      endpoints,
      peers: {
        store: this.store,
        onFault: (error) => void this.faults.push(error),
        ...options,
      },
    });
    this.host = new NodeHost({ logDB: this.logDB });
  }

  get url(): string {
    return this.#server!.httpURL;
  }

  start(nodeID: bigint, snapshotEntries = 0): Promise<Replica> {
    return this.host.startCluster(() => new KVStateMachine(), {
      clusterID: 1n,
      nodeID,
      snapshotEntries,
    });
  }

  /** Serves, and announces the server by its own URL or another one. */
  serve(announced?: (url: string) => string): void {
    this.#server = serve(this.host, { sigterm: false });
    this.logDB.announce(announced?.(this.url) ?? this.url);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server?.shutdown();
    await this.host.stop();
    await this.logDB.close();
  }
}

const VALUE = "x".repeat(20_000);

/** Proposes until the log is compacted behind an index. */
async function compactedBehind(
  index: number,
  replica: Replica,
  logDB: EtcdLogDB,
  value: string,
): Promise<void> {
  const log = await logDB.open(1n, 99n);
  try {
    for (let i = 0;; i++) {
      assert(i < 600, `the log was not compacted behind ${index}`);
      await replica.propose(kv.put(`key ${i % 50}`, value));
      await new Promise((resolve) => setTimeout(resolve, 40));
      await log.readIndex();
      (await log.read(index)).close();
    }
  } catch (error) {
    if (!(error instanceof ErrCompacted)) throw error;
  } finally {
    await log.close();
  }
  assert(await logDB.compactHistory() > 0);
}

/** Fills a replica until its log is compacted behind a snapshot that two servers hold; returns the newest index. */
async function fill(
  replica: Replica,
  logDB: EtcdLogDB,
  nodes: EtcdNodes,
): Promise<number> {
  await compactedBehind(0, replica, logDB, VALUE);
  // Nothing but the snapshots has what was compacted.
  const { output } = await nodes.ctl(
    "get",
    "sampan/log",
    "--prefix",
    "--rev=5",
  );
  assertMatch(output, /compacted/);
  return replica.appliedIndex;
}

/** Waits until the newest pointer names a snapshot that a number of stores have. */
async function held(
  logDB: EtcdLogDB,
  stores: readonly SnapshotStore[],
): Promise<number> {
  let newest = 0;
  await until("copied", async () => {
    newest = (await logDB.snapshotPointers(1n))[0]?.index ?? 0;
    for (const store of stores) {
      const list: readonly SnapshotInfo[] = await store.list(1n);
      if (!list.some(({ index }) => index === newest)) return false;
    }
    return newest > 0;
  });
  return newest;
}

test("H7 servers copy each other's snapshots, a log is compacted only behind one that two live servers hold, and a new server recovers from a peer", async (nodes) => {
  const { endpoints } = nodes;
  await using one = new PeerServer(endpoints);
  const first = await one.start(1n, 20);
  one.serve();
  for (let i = 0; i < 60; i++) await first.propose(kv.put(`${i}`, "x"));
  await first.requestSnapshot();
  assert((await one.logDB.snapshotPointers(1n)).length > 1);
  // One server is not enough.
  const log = await one.logDB.open(1n, 99n);
  (await log.read(0)).close();
  await log.close();
  await using two = new PeerServer(endpoints);
  await two.start(2n, 20);
  two.serve();
  await fill(first, one.logDB, nodes);
  await held(one.logDB, [one.store, two.store]);
  // Snapshots that newer ones replace are removed on both.
  await until(
    "pruned",
    async () => (await two.store.list(1n)).length <= 3,
  );
  await using three = new PeerServer(endpoints);
  const third = await three.start(3n);
  assertEquals(
    await third.read(kv.get("key 1")),
    await first.read(kv.get("key 1")),
  );
  // Kept, so that the next start needs no peer.
  assert((await three.store.list(1n)).length > 0);
  assertEquals(three.faults, []);
});

test("H7 a server that was killed and started again counts as one: a log is not compacted behind a snapshot that only it holds", async (nodes) => {
  const { endpoints } = nodes;
  await using one = new PeerServer(endpoints);
  const first = await one.start(1n, 20);
  one.serve();
  // As its process before, whose lease has not ended yet.
  await using before = new PeerServer(endpoints, { store: one.store });
  before.serve(() => one.url);
  for (let i = 0; i < 60; i++) await first.propose(kv.put(`${i}`, "x"));
  const announced = async (): Promise<number> => {
    const { output } = await nodes.ctl(
      "get",
      "sampan/copy",
      "--prefix",
      "--keys-only",
    );
    return output.split("\n").filter((one) => one !== "").length;
  };
  await until("announced twice", async () => await announced() === 2);
  await held(one.logDB, [one.store]);
  await first.requestSnapshot();
  const log = await one.logDB.open(1n, 99n);
  (await log.read(0)).close();
  await log.close();
});

test("H7 a log is not compacted behind a snapshot that stores have lost since their servers announced it", async ({ endpoints }) => {
  await using one = new PeerServer(endpoints);
  const first = await one.start(1n);
  one.serve();
  await using two = new PeerServer(endpoints);
  await two.start(2n);
  two.serve();
  for (let i = 0; i < 2; i++) {
    for (let j = 0; j < 20; j++) await first.propose(kv.put(`${j}`, "x"));
    await first.requestSnapshot({ compactionOverhead: 1_000 });
    await held(one.logDB, [one.store, two.store]);
  }
  assertEquals(first.logInfo?.first, 1);
  for (const store of [one.store, two.store]) {
    for (const info of store.list(1n)) store.remove(info);
  }
  const log = await one.logDB.open(1n, 99n);
  await log.compact!(30);
  (await log.read(0)).close();
  await log.close();
});

test("H7 a server copies the snapshots of a cluster that it does not have open, if too few servers hold them", async (nodes) => {
  await using one = new PeerServer(nodes.endpoints);
  const first = await one.start(1n, 20);
  one.serve();
  await using two = new PeerServer(nodes.endpoints);
  two.serve();
  await fill(first, one.logDB, nodes);
  await held(one.logDB, [one.store, two.store]);
});

/** Proxy before a server that damages the first answers of all proxies. */
class Damage implements AsyncDisposable {
  /** Number of answers that are still to be damaged: all but the last one are cut in the middle. */
  left = 0;
  /** Damage of the next answers. */
  mode: "truncated" | "corrupted" | "refused" | "cut" | "longer" = "truncated";
  readonly #servers: Deno.HttpServer[] = [];

  /** URL of a new proxy. */
  before(url: string): string {
    const server = Deno.serve({
      hostname: "127.0.0.1",
      port: 0,
      onListen(): void {},
    }, async (request) => {
      const { pathname } = new URL(request.url);
      const { headers } = request;
      const response = await fetch(new URL(pathname, url), { headers });
      if (!pathname.includes("/snapshots/") || this.left === 0) return response;
      const mode = this.left === 1 ? this.mode : "cut";
      this.left--;
      const bytes = new Uint8Array(await response.arrayBuffer());
      switch (mode) {
        case "refused":
          return new Response("no\n", { status: 403 });
        case "truncated":
          return new Response(bytes.subarray(0, bytes.length >> 1));
        case "longer":
          return new Response(new Blob([bytes, bytes]).stream());
        case "corrupted":
          bytes[bytes.length >> 1]! ^= 1;
          return new Response(bytes, { status: response.status });
        case "cut": {
          const half = bytes.subarray(0, bytes.length >> 1);
          let isSent = false;
          return new Response(
            new ReadableStream({
              pull(controller): void {
                if (isSent) controller.close();
                else controller.enqueue(half);
                isSent = true;
              },
            }),
            { headers: { "content-length": String(bytes.length) } },
          );
        }
      }
    });
    this.#servers.push(server);
    return `http://127.0.0.1:${(server.addr as Deno.NetAddr).port}/`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers) await server.shutdown();
  }
}

test("H8 a server whose answer is truncated, damaged, cut in the middle or a refusal is named in words, and the snapshot comes from another one", async (nodes) => {
  const { endpoints } = nodes;
  await using damage = new Damage();
  await using one = new PeerServer(endpoints);
  const first = await one.start(1n, 20);
  one.serve((url) => damage.before(url));
  await using two = new PeerServer(endpoints);
  await two.start(2n, 20);
  two.serve((url) => damage.before(url));
  await fill(first, one.logDB, nodes);
  await held(one.logDB, [one.store, two.store]);
  const expected = await first.read(kv.get("key 1"));
  const words = {
    truncated: /Has \d+ bytes of the snapshot after byte 0, not \d+/,
    corrupted: /Sent wrong bytes: /,
    refused: /Answered with status 403 no/,
    cut: /: (?!Sent wrong|Answered)/,
  } as const;
  let nodeID = 10n;
  for (const mode of Object.keys(words) as (keyof typeof words)[]) {
    damage.mode = mode;
    damage.left = 1;
    await using three = new PeerServer(endpoints);
    const third = await three.start(nodeID++);
    assertEquals(damage.left, 0);
    assertEquals(await third.read(kv.get("key 1")), expected);
    const [fault] = three.faults.filter(({ message }) =>
      words[mode].test(message)
    );
    assert(fault !== undefined, `${mode}: ${three.faults.map(String)}`);
    assertMatch(fault.message, /was not fetched: http:.*Start a server/);
  }
  // One of two that have sent a part of it: then all must come from one.
  damage.mode = "corrupted";
  damage.left = 2;
  await using three = new PeerServer(endpoints);
  const third = await three.start(nodeID++);
  assertEquals(damage.left, 0);
  assertEquals(await third.read(kv.get("key 1")), expected);
  assert(
    three.faults.some(({ message }) =>
      /http:\S+ or http:\S+: Sent wrong bytes/.test(message)
    ),
    `${three.faults}`,
  );
});

test("a snapshot is sent to other servers only: a request without the token made for it is refused", async (nodes) => {
  const { endpoints } = nodes;
  await using one = new PeerServer(endpoints, { copies: 1 });
  const first = await one.start(1n);
  one.serve();
  await first.propose(kv.put("a", "secret"));
  await first.requestSnapshot();
  const [pointer] = await one.logDB.snapshotPointers(1n);
  const hex = (bytes: Uint8Array): string =>
    [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const name = hex(pointer!.sha256);
  const { output } = await nodes.ctl("get", "sampan/secret", "-w", "json");
  await until(
    "announced",
    async () => await one.logDB.peers!.find(1n, name) !== undefined,
  );
  const get = async (
    path: string,
    headers: Record<string, string> = {},
  ): Promise<[number, number]> => {
    const response = await fetch(new URL(path, one.url), { headers });
    return [response.status, (await response.arrayBuffer()).byteLength];
  };
  const path = `clusters/1/snapshots/${name}`;
  // The secret is made with the first token.
  for (
    const headers of [
      {},
      { authorization: "Bearer guess" },
      { authorization: `Bearer ${"0".repeat(64)}` },
    ] as Record<string, string>[]
  ) {
    const [status, size] = await get(path, headers);
    assertEquals(status, 403);
    assert(size < 500);
  }
  const json = output.includes("kvs")
    ? output
    : (await nodes.ctl("get", "sampan/secret", "-w", "json")).output;
  const secret = Uint8Array.from(
    atob(JSON.parse(json.split("\n")[0]!).kvs[0].value),
    (char) => char.charCodeAt(0),
  );
  assertEquals(secret.length, 32);
  const authorization = (of: string): string =>
    `Bearer ${createHmac("sha256", secret).update(of).digest("hex")}`;
  assertEquals(await get(path, { authorization: authorization(`1/${name}`) }), [
    200,
    pointer!.size,
  ]);
  assertEquals(
    await get(path, {
      authorization: authorization(`1/${name}`),
      range: "bytes=100-",
    }),
    [206, pointer!.size - 100],
  );
  assertEquals(
    (await get(path, {
      authorization: authorization(`1/${name}`),
      range: `bytes=${pointer!.size}-`,
    }))[0],
    416,
  );
  // Made for another cluster.
  assertEquals(
    (await get(path, { authorization: authorization(`2/${name}`) }))[0],
    403,
  );
  const missing = "0".repeat(64);
  assertEquals(
    (await get(`clusters/1/snapshots/${missing}`, {
      authorization: authorization(`1/${missing}`),
    }))[0],
    404,
  );
});

test("R8 a server whose lease has ended while it runs announces its snapshots again", async (nodes) => {
  await using one = new PeerServer(nodes.endpoints, { copies: 1 });
  const first = await one.start(1n);
  one.serve();
  await first.propose(kv.put("a", "b"));
  await first.requestSnapshot();
  const isAnnounced = async (): Promise<boolean> => {
    const { output } = await nodes.ctl(
      "get",
      "sampan/copy",
      "--prefix",
      "--keys-only",
    );
    return output.includes("sampan/copy");
  };
  await until("announced", isAnnounced);
  const { output } = await nodes.ctl("lease", "list");
  for (const [lease] of output.matchAll(/^[0-9a-f]{8,}$/gm)) {
    await nodes.ctl("lease", "revoke", lease);
  }
  assert(!await isAnnounced());
  await until("announced again", isAnnounced);
});

test("the health of a server that fetches a snapshot has the bytes that have arrived, of all", async (nodes) => {
  const { endpoints } = nodes;
  await using one = new PeerServer(endpoints, { copies: 1 });
  const first = await one.start(1n);
  one.serve();
  for (let i = 0; i < 20; i++) await first.propose(kv.put(`${i}`, VALUE));
  await first.requestSnapshot();
  let release = (): void => {};
  const released = new Promise<void>((resolve) => release = resolve);
  await using two = new PeerServer(endpoints, {
    copies: 2,
    async fetch(url, init): Promise<Response> {
      const response = await fetch(url, init);
      const reader = response.body!.getReader();
      let isFirst = true;
      const body = new ReadableStream<Uint8Array>({
        async pull(controller): Promise<void> {
          if (!isFirst) await released;
          isFirst = false;
          const { done, value } = await reader.read();
          if (done) controller.close();
          else controller.enqueue(value);
        },
        cancel: (reason) => reader.cancel(reason),
      }, { highWaterMark: 0 });
      return new Response(body, response);
    },
  });
  two.serve();
  let health: { fetching?: readonly Record<string, unknown>[] } = {};
  await until("fetching", async () => {
    health = await (await fetch(new URL("health", two.url))).json();
    return Number(health.fetching?.[0]?.received) > 0;
  });
  const [pointer] = await one.logDB.snapshotPointers(1n);
  const { received, ...others } = health.fetching![0]!;
  const { index, size } = pointer!;
  assertEquals(others, { clusterID: "1", index, size });
  assertEquals(two.logDB.peers!.fetching[0]!.from, one.url);
  assert((received as number) < pointer!.size);
  release();
  await held(one.logDB, [two.store]);
  await until("ended", async () => {
    health = await (await fetch(new URL("health", two.url))).json();
    return health.fetching === undefined;
  });
});

test("options of the exchange of snapshots are checked in words", async ({ endpoints }) => {
  const store = new MemorySnapshotStore();
  assertThrows(
    () => new EtcdLogDB({ endpoints, snapshots: store, peers: { store } }),
    TypeError,
    "both snapshots and peers",
  );
  assertThrows(
    () => new EtcdLogDB({ endpoints, peers: { store, copies: 0 } }),
    RangeError,
    "copies is 0",
  );
  await using logDB = new EtcdLogDB({ endpoints });
  assertThrows(() => logDB.announce("http://a/"), TypeError, "option peers");
  assertThrows(() => logDB.announce("a:1"), TypeError, 'is "a:1"');
});

test(
  "H7 servers that share nothing: one whose disk is lost and one that was off while etcd was compacted past it come back by their peers, also when the server that stored the snapshot is killed with its disk kept or lost",
  async (nodes) => {
    const { endpoints } = nodes;
    const root = await Deno.makeTempDir({ prefix: "peers-" });
    try {
      await using stack = new AsyncDisposableStack();
      const folder = (nodeID: number): string => `${root}/${nodeID}`;
      const startServer = async (nodeID: number): Promise<ServerProcess> =>
        stack.use(
          await ServerProcess.start({
            endpoints,
            nodeID,
            snapshotEntries: 20,
            folder: folder(nodeID),
          }),
        );
      const servers: ServerProcess[] = [];
      for (const nodeID of [1, 2, 3]) servers.push(await startServer(nodeID));
      await using logDB = new EtcdLogDB({ endpoints });
      await using host = new NodeHost({ logDB });
      const replica = await host.startCluster(() => new KVStateMachine(), {
        clusterID: 1n,
        nodeID: 9n,
      });
      const compact = (): Promise<void> =>
        compactedBehind(replica.appliedIndex, replica, logDB, "x");
      const isSame = async (all: readonly ServerProcess[]): Promise<void> => {
        const [wanted, ...states] = await Promise.all(
          all.map((one) => one.state()),
        );
        for (const state of states) assertEquals(state.count, wanted!.count);
      };
      await compact();
      // Its disk is lost.
      const [one, two, three] = servers;
      await three!.kill();
      await Deno.remove(folder(3), { recursive: true });
      await three!.restart();
      await isSame(servers);
      // Off while the log is compacted past it; its disk is kept.
      await three!.kill();
      await compact();
      await three!.restart();
      await isSame(servers);
      // The server that stores the snapshots is killed, and its disk is kept.
      const duties = [];
      for (const server of servers) {
        if (await server.isOnDuty()) duties.push(server);
      }
      const [keeper] = duties;
      await compact();
      await keeper!.kill();
      const four = await startServer(4);
      const left = [one!, two!, three!].filter((server) => server !== keeper);
      await isSame([...left, four]);
      // And its disk is lost, too.
      await Deno.remove(folder(servers.indexOf(keeper!) + 1), {
        recursive: true,
      });
      const five = await startServer(5);
      await isSame([...left, four, five]);
      await keeper!.restart();
      await isSame([...servers, four, five]);
      assert((await keeper!.snapshots()).length > 0);
    } finally {
      await Deno.remove(root, { recursive: true });
    }
  },
);

test(
  "a server that needs a snapshot which no live server holds says so, and recovers once one does",
  async (nodes) => {
    const { endpoints } = nodes;
    await using one = new PeerServer(endpoints, { copies: 1 });
    const first = await one.start(1n, 20);
    one.serve();
    await fill(first, one.logDB, nodes);
    const expected = await first.read(kv.get("key 1"));
    await one[Symbol.asyncDispose]();
    await using two = new PeerServer(endpoints);
    const error = await assertRejects(() => two.start(2n), ErrCompacted);
    assertMatch(
      (error.cause as Error).message,
      /Snapshot of cluster 1 at \d+ \(\d+ bytes\) was not fetched: .*no live server holds it/,
    );
    // Its store is still there: it is started again.
    await using again = new PeerServer(endpoints, {
      store: one.store,
      copies: 1,
    });
    again.serve();
    await until("announced", async () => {
      const { output } = await nodes.ctl(
        "get",
        "sampan/copy",
        "--prefix",
        "--keys-only",
      );
      return output.includes("sampan/copy");
    });
    const third = await two.start(2n);
    assertEquals(await third.read(kv.get("key 1")), expected);
  },
);
