import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertStrictEquals,
} from "@std/assert";
import {
  type Entry,
  ErrClusterClosed,
  ErrCompacted,
  ErrInvalidResult,
  ErrLogCorrupted,
  ErrNotImplemented,
  ErrUpdateFailed,
  MemoryLogDB,
  type Result,
} from "../../mod.ts";
import type { LogBatch } from "../../src/ports/mod.ts";
import { packRecords } from "../../src/log/records.ts";
import { bytes } from "../support/bytes.ts";
import {
  checked,
  ManualEnv,
  rejection,
  settle,
} from "../support/environment.ts";
import { Disk } from "../machines/journal.ts";
import { FaultyLogDB } from "../support/faults.ts";
import {
  forge,
  KINDS,
  listOf,
  proposeAll,
  start,
  startOn,
  startThree,
  stopAll,
  typesOf,
} from "../support/clusters.ts";
import { newLogDB, test, testInMemory } from "../support/log_tests.ts";

testInMemory(
  "R5 an error of update() ends this replica only: pending calls reject with it, later ones with ErrClusterClosed caused by it",
  checked(async () => {
    for (const kind of KINDS) {
      for (const asynchronous of [false, true]) {
        const env = new ManualEnv();
        await using logDB = new MemoryLogDB({ env });
        const cause = new Error("update() failed (test)");
        const one = await start({
          logDB,
          env,
          kind,
          faults: {
            before: (method, { list }) => {
              if (method !== "update" || !list.includes("a")) return;
              if (asynchronous) return Promise.reject(cause);
              throw cause;
            },
          },
        });
        const two = await start({ logDB, env, config: { nodeID: 2n } });
        const neighbour = await startOn(one.host, {
          config: { clusterID: 2n },
        });
        const session = await one.replica.openSession();
        await one.replica.propose(bytes("a"), { session });
        const waiting = [
          one.replica.propose(bytes("b")),
          one.replica.propose(bytes("c"), { session }),
          one.replica.openSession(),
          one.replica.read(null).then(async () => {
            // It had its result before the failure.
            throw await one.replica.propose(bytes("d"));
          }),
        ].map(rejection);
        const [b, c, opened, read] = await Promise.all(waiting);
        for (const error of [b, c, opened]) assertStrictEquals(error, cause);
        assert(read === cause || (read as Error).cause === cause);
        for (
          const later of [
            one.replica.propose(bytes("x")),
            one.replica.propose(bytes("x"), { session }),
            one.replica.read(null),
            one.replica.getHash(),
            one.replica.requestSnapshot(),
            one.replica.openSession(),
          ]
        ) {
          const error = await rejection(later);
          assertInstanceOf(error, ErrClusterClosed);
          assertStrictEquals(error.cause, cause);
        }
        assertStrictEquals(one.replica.error, cause);
        assertEquals(typesOf(one.events), ["failed"]);
        await proposeAll(neighbour, "fine");
        await proposeAll(two.replica, "fine");
        await stopAll([one, two]);
        assertEquals(one.machines[0]!.calls.at(-1), "close");
        assertEquals(env.timers, 0);
      }
    }
  }),
);

test(
  "R5 a machine that fails during catch-up fails the start with its error as the cause",
  checked(async () => {
    for (const kind of KINDS) {
      await using logDB = newLogDB();
      const one = await start({ logDB });
      await proposeAll(one.replica, "a");
      const cause = new Error("update() failed (test)");
      const error = await rejection(start({
        logDB,
        kind,
        config: { nodeID: 2n },
        faults: {
          before: (method) => {
            if (method === "update") throw cause;
          },
        },
      }));
      assertInstanceOf(error, ErrUpdateFailed);
      assertStrictEquals(error.cause, cause);
      // The cluster can be started again.
      const again = await start({ logDB, kind, config: { nodeID: 2n } });
      assertEquals(await listOf(again.replica), ["a"]);
      await stopAll([one, again]);
    }
  }),
);

testInMemory(
  "R5 an error of the log's class thrown by a machine counts as the machine's",
  checked(async () => {
    const env = new ManualEnv();
    const cause = new ErrCompacted(7);
    const { host, replica, events } = await start({
      env,
      faults: {
        before: (method) => {
          if (method === "update") throw cause;
        },
      },
    });
    assertStrictEquals(await rejection(replica.propose(bytes("a"))), cause);
    assertEquals(typesOf(events), ["failed"]);
    await host.stop();
  }),
);

test(
  "R4 an error of lookup() rejects the query, and the machine continues",
  checked(async () => {
    for (const kind of KINDS) {
      const { host, replica, events } = await start({ kind });
      await proposeAll(replica, "a");
      assertInstanceOf(await rejection(replica.read(7)), TypeError);
      assertInstanceOf(
        await rejection((async () => await replica.staleRead(7))()),
        TypeError,
      );
      await proposeAll(replica, "b");
      assertEquals(await replica.read("count"), 2);
      assertEquals(events, []);
      await host.stop();
    }
  }),
);

test(
  "R5 an error of getHash() rejects the call",
  checked(async () => {
    const cause = new Error("getHash() failed (test)");
    const { host, replica, events } = await start({
      faults: {
        before: (method) => {
          if (method === "getHash") throw cause;
        },
      },
    });
    assertStrictEquals(await rejection(replica.getHash()), cause);
    await proposeAll(replica, "a");
    assertEquals(events, []);
    await host.stop();
  }),
);

test(
  "E1 E2 a machine without getHash() or naLookup() gives ErrNotImplemented",
  checked(async () => {
    const { host, replica } = await start();
    assertInstanceOf(
      await rejection(replica.naRead(new Uint8Array())),
      ErrNotImplemented,
    );
    const bare = await host.startCluster(() => ({
      update: () => ({ value: 0n }),
      lookup: () => null,
      saveSnapshot: () => {},
      recoverFromSnapshot: () => {},
      close: () => {},
    }), { clusterID: 2n, nodeID: 1n });
    assertInstanceOf(await rejection(bare.getHash()), ErrNotImplemented);
    await host.stop();
  }),
);

test(
  "E1 E2 getHash() and naLookup() return the same on all replicas, if the machine implements them",
  checked(async () => {
    await using logDB = newLogDB();
    const three = await startThree(logDB);
    await proposeAll(three[0]!.replica, "a", "b");
    const hashes = [];
    for (const { replica } of three) {
      await replica.read(null);
      hashes.push(await replica.getHash());
    }
    assertEquals(hashes[1], hashes[0]);
    assertEquals(hashes[2], hashes[0]);
    assertEquals(hashes[0]!.index, three[0]!.replica.appliedIndex);
    await stopAll(three);
    const { host } = three[0]!;
    assert(host);
    const another = await start();
    const echo = await another.host.startCluster(() => ({
      update: () => ({ value: 0n }),
      lookup: () => null,
      naLookup: (query: Uint8Array) => query.slice().reverse(),
      saveSnapshot: () => {},
      recoverFromSnapshot: () => {},
      close: () => {},
    }), { clusterID: 2n, nodeID: 1n });
    assertEquals(
      await echo.naRead(new Uint8Array([1, 2])),
      new Uint8Array([2, 1]),
    );
    await another.host.stop();
  }),
);

test(
  "T3 C1 an invalid result or batch of results fails the replica with an error that describes it",
  checked(async () => {
    const wrong: Record<string, (value: Result) => unknown> = {
      "too large": () => ({ value: 2n ** 64n }),
      "negative": () => ({ value: -1n }),
      "a number": () => ({ value: 1 }),
      "nothing": () => undefined,
      "null": () => null,
      "text as data": ({ value }) => ({ value, data: "text" }),
    };
    for (const kind of KINDS) {
      for (const [what, change] of Object.entries(wrong)) {
        const { host, replica, events } = await start({
          kind,
          faults: {
            result: (method, value) => {
              if (method !== "update") return value;
              if (kind === "regular") return change(value as Result);
              for (const entry of value as Entry[]) {
                entry.result = change(entry.result!) as Result;
              }
              return value;
            },
          },
        });
        const error = await rejection(replica.propose(bytes("a"))) as Error;
        const expected = what === "too large" || what === "negative"
          ? "RangeError"
          : "ErrInvalidResult";
        assertEquals(error.name, expected, `${kind}: ${what}: ${error}`);
        assert(error.message.includes("Journal"), error.message);
        assertStrictEquals(replica.error, error);
        assertEquals(typesOf(events), ["failed"]);
        await host.stop();
      }
    }
    const batches: Record<string, (entries: Entry[]) => unknown> = {
      "fewer": (entries) => entries.slice(1),
      "more": (entries) => [...entries, entries[0]!],
      "another order": (entries) => [...entries].reverse(),
      "another index": (entries) =>
        entries.map((entry) => ({ ...entry, index: entry.index + 1 })),
      "none": () => undefined,
      "no results": (entries) =>
        entries.map(({ index, cmd }) => ({ index, cmd })),
      "holes": (entries) => new Array(entries.length),
    };
    for (const kind of ["concurrent", "disk", "hosted"] as const) {
      for (const [what, change] of Object.entries(batches)) {
        const { host, replica } = await start({
          kind,
          faults: {
            result: (method, value) =>
              method === "update" ? change(value as Entry[]) : value,
          },
        });
        const errors = await Promise.all([
          rejection(replica.propose(bytes("a"))),
          rejection(replica.propose(bytes("b"))),
        ]);
        for (const error of errors) {
          assertInstanceOf(error, ErrInvalidResult, `${kind}: ${what}`);
        }
        await host.stop();
      }
    }
  }),
);

test(
  "R5 an error of the factory fails the start, and the cluster can be started again",
  checked(async () => {
    await using logDB = newLogDB();
    const { host } = await start({ logDB, config: { clusterID: 9n } });
    const cause = new Error("Factory failed (test)");
    const error = await rejection(
      host.startCluster(() => {
        throw cause;
      }, { clusterID: 1n, nodeID: 1n }),
    );
    assertStrictEquals(error, cause);
    await proposeAll(await startOn(host, {}), "a");
    await host.stop();
  }),
);

test(
  "R5 an error of open() fails the start, and the cluster can be started again",
  checked(async () => {
    await using logDB = newLogDB();
    const cause = new Error("open() failed (test)");
    for (const kind of ["disk", "hosted"] as const) {
      const disk = new Disk();
      const error = await rejection(start({
        logDB,
        kind,
        disk,
        faults: {
          before: (method) => {
            if (method === "open") throw cause;
          },
        },
      }));
      assertStrictEquals(error, cause);
      for (const index of [-1, 1.5, NaN, "7", undefined]) {
        const error = await rejection(start({
          logDB,
          kind,
          disk,
          faults: {
            result: (method, value) => method === "open" ? index : value,
          },
        }));
        assertInstanceOf(error, RangeError);
      }
      const { host, replica } = await start({ logDB, kind, disk });
      await proposeAll(replica, "a");
      await host.stop();
    }
  }),
);

testInMemory(
  "R5 an error of sync() is fatal wherever it is called",
  checked(async () => {
    for (let call = 1; call <= 4; call++) {
      for (const kind of ["disk", "hosted"] as const) {
        const env = new ManualEnv();
        const cause = new Error("Disk failed (test)");
        let calls = 0;
        const { host, replica, events } = await start({
          env,
          kind,
          config: { fullSnapshotInterval: 1 },
          faults: {
            before: (method) => {
              if (method === "sync" && ++calls === call) throw cause;
            },
          },
        });
        for (let i = 0; i < 4 && replica.error === undefined; i++) {
          await replica.propose(bytes(`${i}`)).catch(() => {});
          if (i === 0) await env.advance(2_000);
          else await replica.requestSnapshot().catch(() => {});
        }
        await settle();
        assertStrictEquals(replica.error, cause, `${kind}, call ${call}`);
        assert(typesOf(events).includes("failed"));
        await host.stop();
      }
    }
  }),
);

test(
  "R5 an error of prepareSnapshot() is fatal",
  checked(async () => {
    for (const kind of ["concurrent", "disk", "hosted"] as const) {
      const cause = new Error("prepareSnapshot() failed (test)");
      const { host, replica } = await start({
        kind,
        config: { fullSnapshotInterval: 1 },
        faults: {
          before: (method) => {
            if (method === "prepareSnapshot") throw cause;
          },
        },
      });
      await proposeAll(replica, "a");
      assertStrictEquals(await rejection(replica.requestSnapshot()), cause);
      assertStrictEquals(replica.error, cause);
      await host.stop();
    }
  }),
);

testInMemory(
  "H15 a missing, repeated or misplaced batch is detected and fails this replica only",
  checked(async () => {
    const changes: Record<string, (batch: LogBatch) => LogBatch | undefined> = {
      "skipped": () => undefined,
      "follows another": (batch) => ({ ...batch, follows: batch.follows - 1 }),
      "another place": (batch) => ({ ...batch, first: batch.follows }),
    };
    for (const [what, change] of Object.entries(changes)) {
      const env = new ManualEnv();
      await using logDB = new FaultyLogDB({ env });
      const [one, two, three] = await startThree(logDB, { env });
      await proposeAll(one!.replica, "a");
      await two!.replica.read(null);
      let left = 1;
      logDB.faults.batch = (batch, nodeID) =>
        nodeID === 2n && left-- > 0 ? change(batch) : batch;
      await proposeAll(one!.replica, "b", "c");
      await settle();
      const error = two!.replica.error;
      assertInstanceOf(error, ErrLogCorrupted, what);
      assertEquals(await three!.replica.read(null), ["a", "b", "c"]);
      assertInstanceOf(
        await rejection(two!.replica.read(null)),
        ErrClusterClosed,
      );
      await stopAll([one!, two!, three!]);
    }
  }),
);

test(
  "H11 an invalid record is ErrLogCorrupted with its index, and no machine gets it",
  checked(async () => {
    const garbage = [
      new Uint8Array(),
      new Uint8Array([0]),
      new Uint8Array([0x25, 1, 1, 0]),
      new Uint8Array([0x15]),
      new Uint8Array([0x15, 1]),
      new Uint8Array([0x15, 1, 1, 5, 65]),
      new Uint8Array([0x15, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1]),
      new Uint8Array([0x14, 1, 2, 3]),
      new Uint8Array([0x12, 1, 2, 3]),
      new Uint8Array([0x13]),
      new Uint8Array([0x16, 1, 1, 1, 0]),
      new Uint8Array([0x17, 1, 2, 3]),
      new Uint8Array([0x11, 0]),
      new Uint8Array([0x10, 1]),
    ];
    for (const record of garbage) {
      await using logDB = newLogDB();
      const { host, replica, machines } = await start({ logDB });
      const other = await startOn(host, { config: { clusterID: 2n } });
      await proposeAll(replica, "a");
      const index = await forge(logDB, packRecords(record));
      await settle();
      const { error } = replica;
      assertInstanceOf(error, ErrLogCorrupted, `${record}`);
      assertEquals(error.index, index);
      assertEquals(machines[0]!.list, ["a"]);
      await proposeAll(other, "fine");
      await host.stop();
    }
  }),
);

testInMemory(
  "H1 a log that cannot be read for a while is read again, without loss",
  checked(async () => {
    for (const kind of KINDS) {
      const env = new ManualEnv();
      await using logDB = new FaultyLogDB({ env });
      const three = await startThree(logDB, { env, kind, disk: undefined! });
      const [one, two] = three as [typeof three[0], typeof three[0]];
      const session = await two.replica.openSession();
      logDB.faults.break(2n);
      await proposeAll(one.replica, "a", "b");
      const waiting = two.replica.propose(bytes("c"), { session });
      const read = two.replica.read(null);
      await env.advance(3_000);
      assertEquals(await listOf(two.replica), []);
      logDB.faults.mend(2n);
      assertEquals((await env.until(waiting)).value, 3n);
      assertEquals((await read as string[]).slice(0, 2), ["a", "b"]);
      assert(typesOf(two.events).every((type) => type === "log failed"));
      await env.until(stopAll(three));
    }
  }),
);

testInMemory(
  "H2 an error of readIndex() rejects its readers only",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const { host, replica, events } = await start({ logDB, env });
    await proposeAll(replica, "a");
    const cause = new Error("Connection failed (test)");
    for (const asynchronous of [false, true]) {
      logDB.faults.readIndex = () => {
        if (asynchronous) return Promise.reject(cause);
        throw cause;
      };
      const errors = await Promise.all([
        rejection(replica.read(null)),
        rejection(replica.read(null)),
      ]);
      for (const error of errors) assertStrictEquals(error, cause);
    }
    logDB.faults.readIndex = () => {};
    assertEquals(await replica.read(null), ["a"]);
    assertEquals(events, []);
    await host.stop();
  }),
);

test(
  "H1 an error of a listener is ignored",
  checked(async () => {
    await using logDB = newLogDB();
    const { NodeHost } = await import("../../mod.ts");
    await using host = new NodeHost({
      logDB,
      onEvent: () => {
        throw new Error("Listener");
      },
    });
    const replica = await startOn(host, {});
    await proposeAll(replica, "a");
    assertEquals((await replica.requestSnapshot()).index, 2);
    await proposeAll(replica, "b");
  }),
);

test(
  "R1 C1 a thenable that a machine returns is awaited and checked",
  checked(async () => {
    /** Thenable that is not a promise and settles later. */
    const later = (value: unknown): unknown => ({
      then(settle: (value: unknown) => void): void {
        queueMicrotask(() => settle(value));
      },
    });
    for (const kind of KINDS) {
      let isBad = false;
      const { host, replica, machines } = await start({
        kind,
        config: { hashEntries: 1, fullSnapshotInterval: 1 },
        faults: {
          result: (method, value) => {
            if (!isBad || method !== "update") return later(value);
            if (kind === "regular") return later(7);
            return later((value as Entry[]).slice(1));
          },
        },
      });
      const session = await replica.openSession();
      const answers = await Promise.all([
        replica.propose(bytes("a")),
        replica.propose(bytes("b"), { session }),
      ]);
      assertEquals(answers.map(({ value }) => value), [1n, 2n]);
      assertEquals(await replica.read(null), ["a", "b"]);
      assertEquals((await replica.getHash()).hash, machines[0]!.hash());
      await replica.requestSnapshot();
      isBad = true;
      assertInstanceOf(
        await rejection(replica.propose(bytes("c"))),
        ErrInvalidResult,
      );
      await host.stop();
      assertEquals(machines[0]!.calls.at(-1), "close");
    }
  }),
);
