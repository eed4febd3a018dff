import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import {
  ConcurrentKVStateMachine,
  type Entry,
  ErrClusterClosed,
  ErrCompacted,
  ErrDiverged,
  type HostEvent,
  kv,
  KVStateMachine,
  type MaybePromise,
  MemoryBlockStore,
  MemoryLogDB,
  MemorySnapshotStore,
  NodeHost,
  OnDiskKVStateMachine,
  type Replica,
  type ReplicaConfig,
  type Result,
} from "../../mod.ts";
import type {
  Log,
  LogDB,
  SnapshotInfo,
  SnapshotStore,
} from "../../src/ports/mod.ts";
import { EXPLAIN_ENTRIES_MAX } from "../../src/limits.ts";
import { bytes, text } from "../support/bytes.ts";
import {
  checked,
  ManualEnv,
  rejection,
  settle,
} from "../support/environment.ts";
import { FaultyLogDB } from "../support/faults.ts";
import {
  listOf,
  proposeAll,
  start,
  stopAll,
  typesOf,
} from "../support/clusters.ts";
import { RegularJournal } from "../machines/journal.ts";

/** Log as a page has it: ordered elsewhere, with snapshots and checkpoints beside it there. */
class PageLogDB implements LogDB {
  readonly #inner: LogDB;
  readonly #beside: Partial<Log>;

  constructor(inner: LogDB, beside: Partial<Log>) {
    this.#inner = inner;
    this.#beside = beside;
  }

  async open(clusterID: bigint, nodeID: bigint): Promise<Log> {
    const log = await this.#inner.open(clusterID, nodeID);
    const beside = this.#beside;
    return new Proxy(log, {
      get(log, key): unknown {
        if (key === "checkpoints" && beside.checkpoints) {
          return Object.assign(
            Object.create(log.checkpoints!),
            {
              publish: log.checkpoints!.publish.bind(log.checkpoints),
              watch: log.checkpoints!.watch.bind(log.checkpoints),
            },
            beside.checkpoints,
          );
        }
        if (key in beside) return Reflect.get(beside, key);
        const value = Reflect.get(log, key);
        return typeof value === "function" ? value.bind(log) : value;
      },
    });
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Journal that applies some commands differently. */
function journalOf(
  change: (command: string) => string,
): new (...ids: readonly [bigint, bigint]) => RegularJournal {
  return class extends RegularJournal {
    constructor(clusterID: bigint, nodeID: bigint) {
      super({}, clusterID, nodeID);
    }
    override apply(cmd: Uint8Array): Result {
      return super.apply(bytes(change(text(cmd))));
    }
  };
}

const plain = journalOf((command) => command);
const withClock = journalOf((command) =>
  command === "now" ? `${command} ${performance.now()}` : command
);
const skewed = journalOf((command) =>
  command === "new" ? "not understood" : command
);

interface Started {
  readonly host: NodeHost;
  readonly replica: Replica;
  readonly events: HostEvent[];
  readonly machines: [];
}

async function startWith(
  Machine: ReturnType<typeof journalOf>,
  nodeID: bigint,
  logDB: LogDB,
  options: {
    readonly config?: Partial<ReplicaConfig>;
    readonly snapshots?: SnapshotStore;
  } = {},
): Promise<Started> {
  const events: HostEvent[] = [];
  const { config = {}, ...rest } = options;
  const host = new NodeHost({
    ...rest,
    logDB,
    onEvent: (event) => events.push(event),
  });
  const replica = await host.startCluster((c, n) => new Machine(c, n), {
    clusterID: 1n,
    nodeID,
    hashEntries: 4,
    ...config,
  });
  return { host, replica, events, machines: [] };
}

function explanations({ events }: Started): ErrDiverged[] {
  return events.filter((event) => event.type === "diverged")
    .map(({ error }) => error as ErrDiverged)
    .filter(({ index }) => index !== undefined);
}

/** Compacts a log without the knowledge of its replicas. */
async function cut(logDB: LogDB, upTo: number): Promise<void> {
  const log = await logDB.open(1n, 0n);
  await log.compact!(upTo);
  await log.close();
}

async function until(condition: () => MaybePromise<boolean>): Promise<void> {
  for (let i = 0; i < 1000 && !await condition(); i++) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

Deno.test(
  "H12 U32 for a machine that reads the clock, the entry after which it differs is found without the trusted replica",
  checked(async () => {
    for (const snapshot of [false, true]) {
      await using logDB = new MemoryLogDB();
      const config = { trustedNode: 1n };
      const one = await startWith(plain, 1n, logDB, { config });
      const two = await startWith(withClock, 2n, logDB, { config });
      await proposeAll(one.replica, "a", "b", "c");
      await settle();
      if (snapshot) {
        const { index } = await one.replica.requestSnapshot();
        await settle();
        await cut(logDB, index);
      }
      await proposeAll(one.replica, "d", "e", "now", "f", "now", "g");
      await until(() => explanations(two).length > 0);
      const [error] = explanations(two);
      assertEquals([error!.after, error!.upTo, error!.index], [4, 8, 7]);
      assertEquals(text(error!.command), "now");
      assert(error!.message.includes("twice"));
      assertEquals(explanations(one), []);
      assertInstanceOf(await rejection(two.replica.read(null)), ErrDiverged);
      await stopAll([one, two]);
    }
  }),
);

Deno.test(
  "H12 U32 for a machine of another version, the entry it applies differently is found by the trusted replica's hashes, and it recovers",
  checked(async () => {
    await using logDB = new MemoryLogDB();
    const one = await startWith(plain, 1n, logDB);
    // As a page has it: the log names the trusted replica, and shares no snapshots.
    const page = new PageLogDB(logDB, {
      snapshots: logDB.snapshots,
      checkpoints: {
        trusted: 1n,
        explain: (after, upTo, signal) =>
          one.replica.explain(after, upTo, { signal }),
      } as Log["checkpoints"],
    });
    await using snapshots = new MemorySnapshotStore();
    const two = await startWith(skewed, 2n, page, { snapshots });
    await proposeAll(one.replica, "a", "b", "new", "c");
    await settle();
    assertInstanceOf(await rejection(two.replica.read(null)), ErrDiverged);
    await until(() => explanations(two).length > 0);
    const [error] = explanations(two);
    assertEquals([error!.after, error!.upTo, error!.index], [
      undefined,
      4,
      4,
    ]);
    assertEquals(text(error!.command), "new");
    assertEquals(typesOf(two.events).filter((type) => type === "diverged"), [
      "diverged",
      "diverged",
    ]);
    // From the snapshots beside the log; then it has one of its own.
    await one.replica.requestSnapshot();
    await until(async () => {
      try {
        return (await listOf(two.replica)).length > 0;
      } catch {
        return false;
      }
    });
    assertEquals(await two.replica.read(null), ["a", "b", "new", "c"]);
    await until(() => snapshots.list(1n).length > 0);
    assertEquals(snapshots.list(1n).map(({ nodeID }) => nodeID), [2n]);
    await stopAll([one, two]);
  }),
);

/** Applies commands whose key is "new" differently. */
function misread(cmd: Uint8Array): Uint8Array {
  return text(cmd).includes("new") ? kv.put("old", "x") : cmd;
}

function misreadAll(entries: Entry[]): Entry[] {
  for (const entry of entries) {
    (entry as { cmd: Uint8Array }).cmd = misread(entry.cmd);
  }
  return entries;
}

class SkewedKV extends KVStateMachine {
  override update(cmd: Uint8Array): Result {
    return super.update(misread(cmd));
  }
}

class SkewedConcurrentKV extends ConcurrentKVStateMachine {
  override update(entries: Entry[]): Entry[] {
    return super.update(misreadAll(entries));
  }
}

class SkewedDiskKV extends OnDiskKVStateMachine {
  override updateWithHost(
    ...[entries, host]: Parameters<OnDiskKVStateMachine["updateWithHost"]>
  ): ReturnType<OnDiskKVStateMachine["updateWithHost"]> {
    return super.updateWithHost(misreadAll(entries), host);
  }
}

Deno.test(
  "H12 U32 for an on-disk machine with a replayMachine, the command after which it differs is found from the log's beginning and from a full snapshot",
  checked(async () => {
    for (const isSnapshot of [false, true]) {
      for (const Replayed of [SkewedKV, SkewedConcurrentKV]) {
        await using logDB = new MemoryLogDB();
        const events: HostEvent[] = [];
        await using there = new NodeHost({ logDB });
        await using here = new NodeHost({
          // As a page has it: the log names the trusted replica.
          logDB: new PageLogDB(logDB, {
            snapshots: logDB.snapshots,
            checkpoints: {
              trusted: 1n,
              explain: (after, upTo, signal) =>
                one.explain(after, upTo, { signal }),
            } as Log["checkpoints"],
          }),
          onEvent: (event) => events.push(event),
        });
        // The trusted one is on disk, too.
        const one = await there.startOnDiskCluster(
          () => new OnDiskKVStateMachine(new MemoryBlockStore()),
          {
            clusterID: 1n,
            nodeID: 1n,
            hashEntries: 8,
            fullSnapshotInterval: 1,
            replayMachine: () => new KVStateMachine(),
          },
        );
        await here.startOnDiskCluster(
          () => new SkewedDiskKV(new MemoryBlockStore()),
          {
            clusterID: 1n,
            nodeID: 2n,
            hashEntries: 8,
            replayMachine: () => new Replayed(),
          },
        );
        const put = (...keys: string[]): Promise<unknown> =>
          Promise.all(keys.map((key) => one.propose(kv.put(key, "x"))));
        await put("a", "b", "c", "d", "e", "f", "g");
        await settle();
        if (isSnapshot) {
          const { index } = await one.requestSnapshot();
          await settle();
          await cut(logDB, index);
        }
        await put("h", "i", "new", "j", "new", "k", "l", "m");
        const found = (): ErrDiverged[] =>
          events.filter((event) => event.type === "diverged")
            .map(({ error }) => error as ErrDiverged)
            .filter(({ index }) => index !== undefined);
        await until(() => found().length > 0);
        const [{ after, upTo, index, command }] = found() as [ErrDiverged];
        assertEquals([after, upTo, index], [8, 16, 11]);
        assertEquals(command, kv.put("new", "x"));
        assertEquals(typesOf(events).includes("hash failed"), false);
      }
    }
  }),
);

Deno.test(
  "H12 U32 a log that only advises a snapshot is replayed, and a compacted one is not reported as a failed hash",
  checked(async () => {
    for (const isCut of [false, true]) {
      await using inner = new MemoryLogDB();
      const logDB = new AdvisingLogDB(inner, {});
      const config = { trustedNode: 1n };
      const one = await startWith(plain, 1n, inner, { config });
      const two = await startWith(withClock, 2n, logDB, { config });
      await proposeAll(one.replica, "a", "b", "c");
      if (isCut) await cut(inner, 2);
      await settle();
      logDB.advice = 1;
      await proposeAll(one.replica, "d", "e", "now", "f", "now", "g");
      await until(() => isCut || explanations(two).length > 0);
      await settle(50);
      assertEquals(
        explanations(two).map(({ index }) => index),
        isCut ? [] : [7],
      );
      assertEquals(typesOf(two.events).includes("hash failed"), false);
      await stopAll([one, two]);
    }
  }),
);

Deno.test(
  "H12 a divergence that cannot be explained is only reported",
  checked(async () => {
    await using logDB = new MemoryLogDB();
    const config = { trustedNode: 1n };
    const one = await startWith(plain, 1n, logDB, { config });
    const two = await startWith(skewed, 2n, logDB, { config });
    await proposeAll(one.replica, "a", "new", "b", "c");
    await settle(20);
    assertEquals(
      typesOf(two.events).filter((type) => type === "diverged"),
      ["diverged"],
    );
    await stopAll([one, two]);
  }),
);

Deno.test(
  "H12 explain() gives the hash after each entry, or undefined where it cannot",
  checked(async () => {
    await using logDB = new MemoryLogDB();
    const one = await startWith(plain, 1n, logDB);
    const { replica } = one;
    const hashes: bigint[] = [];
    for (const command of ["a", "b", "c", "d", "e"]) {
      await replica.propose(bytes(command));
      hashes.push((await replica.getHash()).hash);
    }
    const states = async (
      after: number,
      upTo: number,
    ): Promise<unknown[] | undefined> =>
      (await replica.explain(after, upTo))?.map(({ index, state }) => [
        index,
        state,
      ]);
    assertEquals(await states(3, 5), [[4, hashes[2]], [5, hashes[3]]]);
    assertEquals((await states(0, 6))?.length, 6);
    assertEquals(await states(6, 6), []);
    const { index } = await replica.requestSnapshot();
    await proposeAll(replica, "f");
    await cut(logDB, index);
    assertEquals(await states(3, 5), undefined);
    assertEquals((await states(index, index + 1))?.length, 1);
    await one.host.stop();
    await using host = new NodeHost();
    const long = await host.startCluster(() => new KVStateMachine(), {
      clusterID: 1n,
      nodeID: 1n,
    });
    for (let i = 0; i <= EXPLAIN_ENTRIES_MAX; i += 1000) {
      const puts = Array.from(
        { length: 1000 },
        (_, j) => long.propose(kv.put(`${i + j}`, "")),
      );
      await Promise.all(puts);
    }
    assertEquals((await long.explain(10, 1010))?.length, 1000);
    assertEquals(await long.explain(0, EXPLAIN_ENTRIES_MAX + 500), undefined);
    await host.stopCluster(1n);
    const disk = await start({ kind: "hosted" });
    await proposeAll(disk.replica, "a");
    assertEquals(await disk.replica.explain(0, 2), undefined);
    await disk.host.stop();
    class Hashless extends RegularJournal {
      override getHash = undefined as unknown as () => bigint;
    }
    const hashless = await host.startCluster(
      (c, n) => new Hashless({}, c, n),
      { clusterID: 1n, nodeID: 1n },
    );
    await proposeAll(hashless, "a");
    assertEquals(await hashless.explain(0, 2), undefined);
  }),
);

Deno.test(
  "U29 a page whose log was compacted starts from the snapshots beside the log, and the next time from its own",
  checked(async () => {
    await using logDB = new MemoryLogDB();
    const one = await startWith(plain, 1n, logDB);
    await proposeAll(one.replica, "a", "b");
    await one.replica.requestSnapshot();
    await proposeAll(one.replica, "c");
    await settle();
    await cut(logDB, 3);
    let offline = false;
    let asked = 0;
    const source = {
      list: (clusterID: bigint): readonly SnapshotInfo[] => {
        asked++;
        if (offline) throw new Error("Offline");
        return logDB.snapshots.list(clusterID);
      },
      open: (info: SnapshotInfo): ReadableStream<Uint8Array> =>
        logDB.snapshots.open(info),
    };
    const page = new PageLogDB(logDB, { snapshots: source });
    await using snapshots = new MemorySnapshotStore();
    offline = true;
    assertInstanceOf(
      await rejection(startWith(plain, 2n, page, { snapshots })),
      ErrCompacted,
    );
    offline = false;
    const two = await startWith(plain, 2n, page, { snapshots });
    assertEquals(await listOf(two.replica), ["a", "b", "c"]);
    await until(() => snapshots.list(1n).length > 0);
    assertEquals(typesOf(two.events), ["recovered", "snapshot"]);
    await two.host.stop();
    offline = true;
    asked = 0;
    const again = await startWith(plain, 2n, page, { snapshots });
    assertEquals(await listOf(again.replica), ["a", "b", "c"]);
    assertEquals(asked, 0);
    await stopAll([one, again]);
  }),
);

/** Log that advises a snapshot at a number of reads. */
class AdvisingLogDB extends PageLogDB {
  advice = 0;

  override async open(clusterID: bigint, nodeID: bigint): Promise<Log> {
    const log = await super.open(clusterID, nodeID);
    return new Proxy(log, {
      get: (log, key): unknown => {
        if (key !== "read") return Reflect.get(log, key);
        return (...all: Parameters<Log["read"]>) => {
          if (this.advice-- > 0) throw new ErrCompacted(3);
          return log.read(...all);
        };
      },
    });
  }
}

Deno.test(
  "H8 a log that only advises a snapshot is read if no snapshot exists",
  checked(async () => {
    for (const kind of ["regular", "hosted"] as const) {
      const env = new ManualEnv();
      await using inner = new FaultyLogDB({ env });
      const one = await start({ logDB: inner, env });
      await proposeAll(one.replica, "a", "b");
      const source = { list: () => [], open: () => assert(false) as never };
      const logDB = new AdvisingLogDB(inner, { snapshots: source });
      // An on-disk machine reads twice: the records at hand, and the next ones.
      logDB.advice = kind === "regular" ? 1 : 2;
      const two = await start({
        logDB,
        env,
        kind,
        config: { nodeID: 2n },
        snapshots: new MemorySnapshotStore(),
      });
      assertEquals(await listOf(two.replica), ["a", "b"]);
      // Also while it runs.
      inner.faults.break(2n);
      await proposeAll(one.replica, "c");
      await settle();
      inner.faults.mend(2n);
      logDB.advice = 1;
      assertEquals(await env.until(two.replica.read(null)), ["a", "b", "c"]);
      assertEquals(two.replica.error, undefined);
      await env.until(stopAll([one, two]));
    }
  }),
);

Deno.test(
  "R9 U29 a replica whose snapshot is lost in transfer requests it again, and applies nothing in between",
  checked(async () => {
    for (const kind of ["regular", "hosted"] as const) {
      const env = new ManualEnv();
      await using inner = new FaultyLogDB({ env });
      const one = await start({ logDB: inner, env });
      await proposeAll(one.replica, "a");
      let isLost = true;
      const source = {
        list: (clusterID: bigint): readonly SnapshotInfo[] =>
          inner.snapshots!.list(clusterID) as readonly SnapshotInfo[],
        open: (info: SnapshotInfo): ReadableStream<Uint8Array> => {
          if (!isLost) return inner.snapshots!.open(info) as never;
          isLost = false;
          throw new Error("ECONNRESET: connection is lost");
        },
      };
      const logDB = new AdvisingLogDB(inner, { snapshots: source });
      const two = await start({
        logDB,
        env,
        kind,
        config: { nodeID: 2n },
        snapshots: new MemorySnapshotStore(),
      });
      await env.until(two.replica.read(null));
      inner.faults.break(2n);
      await proposeAll(one.replica, "b");
      await one.replica.requestSnapshot();
      await proposeAll(one.replica, "c");
      await settle();
      inner.faults.mend(2n);
      logDB.advice = 1;
      await env.advance(30_000);
      assertEquals(isLost, false);
      assertEquals(two.replica.error, undefined);
      assertEquals(await env.until(two.replica.read(null)), ["a", "b", "c"]);
      await env.until(stopAll([one, two]));
    }
  }),
);

Deno.test(
  "H10 a replica that is stopped while it reopens its log stops at once",
  checked(async () => {
    const env = new ManualEnv();
    await using inner = new FaultyLogDB({ env });
    const one = await start({ logDB: inner, env });
    const gate = Promise.withResolvers<void>();
    let isSlow = false;
    let isAsked = false;
    const page = new PageLogDB(inner, {});
    const logDB: LogDB = {
      async open(clusterID, nodeID): Promise<Log> {
        const log = await page.open(clusterID, nodeID);
        return new Proxy(log, {
          get: (log, key): unknown => {
            if (key !== "read") return Reflect.get(log, key);
            return async (...all: Parameters<Log["read"]>) => {
              const reader = await log.read(...all);
              if (!isSlow) return reader;
              isAsked = true;
              await gate.promise;
              // It has no records at hand.
              const { promise, reject } = Promise.withResolvers<never>();
              promise.catch(() => {});
              return {
                lastAtStart: reader.lastAtStart,
                next: () => promise,
                close(): void {
                  reader.close();
                  reject(new ErrClusterClosed("LogReader is closed"));
                },
              };
            };
          },
        });
      },
      close: () => page.close(),
      [Symbol.asyncDispose]: () => page.close(),
    };
    const two = await start({ logDB, env, config: { nodeID: 2n } });
    isSlow = true;
    inner.faults.break(2n);
    await proposeAll(one.replica, "a");
    await settle();
    inner.faults.mend(2n);
    await env.until(until(() => isAsked));
    const stopped = two.host.stop();
    gate.resolve();
    await env.until(stopped);
    assertEquals(typesOf(two.events).includes("close failed"), false);
    await env.until(stopAll([one]));
  }),
);

Deno.test(
  "H7 U29 a replica that fell behind a compaction catches up from the snapshots beside the log",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const one = await start({ logDB, env });
    const page = new PageLogDB(logDB, { snapshots: logDB.snapshots! });
    await using snapshots = new MemorySnapshotStore();
    const two = await start({
      logDB: page,
      env,
      config: { nodeID: 2n },
      snapshots,
    });
    await proposeAll(one.replica, "a");
    await settle();
    logDB.faults.break(2n);
    await proposeAll(one.replica, "b", "c");
    const { index } = await one.replica.requestSnapshot();
    await settle();
    await cut(logDB, index);
    logDB.faults.mend(2n);
    await env.advance(30_000);
    assertEquals(await env.until(two.replica.read(null)), ["a", "b", "c"]);
    await env.until(until(() => snapshots.list(1n).length > 0));
    assertEquals(snapshots.list(1n).length, 1);
    await env.until(stopAll([one, two]));
  }),
);
