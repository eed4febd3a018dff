import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertStrictEquals,
} from "@std/assert";
import {
  ErrClusterAlreadyExist,
  ErrClusterClosed,
  ErrClusterNotFound,
  MemoryLogDB,
  MemoryOutbox,
  MemorySnapshotStore,
  NodeHost,
} from "../../mod.ts";
import type { Log, SnapshotStore } from "../../src/ports/mod.ts";
import { STOP_TIMEOUT_MS } from "../../src/limits.ts";
import { bytes } from "../support/bytes.ts";
import {
  checked,
  Gate,
  ManualEnv,
  never,
  peek,
  rejection,
  settle,
} from "../support/environment.ts";
import { FaultyLogDB, FaultySnapshotStore } from "../support/faults.ts";
import {
  hostOf,
  KINDS,
  listOf,
  proposeAll,
  start,
  startOn,
  typesOf,
} from "../support/clusters.ts";
import { streamOf } from "../support/streams.ts";
import { newLogDB, test, testInMemory } from "../support/log_tests.ts";

testInMemory(
  "H10 NodeHost.stop() rejects all pending calls with ErrClusterClosed, and is idempotent",
  checked(async () => {
    for (const kind of KINDS) {
      const env = new ManualEnv();
      await using logDB = new FaultyLogDB({ env });
      const { host, replica, machines } = await start({ logDB, env, kind });
      const session = await replica.openSession();
      await replica.propose(bytes("a"), { session });
      logDB.faults.slow = true;
      logDB.faults.append = () => never();
      logDB.faults.readIndex = () => never();
      const waiting = [
        replica.propose(bytes("x")),
        replica.propose(bytes("y"), { session }),
        replica.openSession(),
        replica.closeSession(session),
        replica.read(null),
        replica.naRead(new Uint8Array()),
      ].map(rejection);
      await settle();
      await Promise.all([host.stop(), host.stop()]);
      for (const error of await Promise.all(waiting)) {
        assertInstanceOf(error, ErrClusterClosed);
        assertEquals(error.cause, undefined);
      }
      await host.stop();
      for (
        const late of [
          replica.propose(bytes("x")),
          replica.openSession(),
          replica.read(null),
          replica.getHash(),
          replica.requestSnapshot(),
          (async () => await replica.staleRead(null))(),
          (async () => await replica.exportSnapshot())(),
          host.stopCluster(1n).catch((error) => {
            assertInstanceOf(error, ErrClusterNotFound);
            throw new ErrClusterClosed();
          }),
          startOn(host, {}),
          host.importSnapshot(1n, new ReadableStream()),
        ]
      ) assertInstanceOf(await rejection(late), ErrClusterClosed);
      assertEquals(machines.at(-1)!.calls.at(-1), "close");
      assertEquals(env.timers, 0);
    }
  }),
);

test(
  "H10 NodeHost.stopCluster() stops one cluster and leaves the others; an unknown one is ErrClusterNotFound",
  checked(async () => {
    const { host, replica } = await start();
    const other = await startOn(host, { config: { clusterID: 2n } });
    const error = await rejection(host.stopCluster(3n));
    assertInstanceOf(error, ErrClusterNotFound);
    assertEquals(error.clusterID, 3n);
    await Promise.all([host.stopCluster(1n), host.stopCluster(1n)]);
    assertInstanceOf(
      await rejection(replica.propose(bytes("x"))),
      ErrClusterClosed,
    );
    await proposeAll(other, "fine");
    // It can be started again, with its state.
    const again = await startOn(host, {});
    await proposeAll(again, "again");
    await host.stop();
  }),
);

testInMemory(
  "H10 a replica that waits for a log to read it again stops at once",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const { host } = await start({ logDB, env });
    let reads = 0;
    logDB.faults.read = async (_nodeID, signal) => {
      reads++;
      await new Promise((_resolve, reject) =>
        signal?.addEventListener("abort", () => reject(signal.reason))
      );
    };
    logDB.faults.break(1n);
    logDB.faults.mend(1n);
    await env.advance(1_000);
    assertEquals(reads, 1);
    await host.stop();
    assertEquals(env.timers, 0);
  }),
);

testInMemory(
  "H10 a replica that waits for a list of snapshots stops at once",
  checked(async () => {
    const env = new ManualEnv();
    const snapshots: SnapshotStore = new MemorySnapshotStore();
    snapshots.list = () => never();
    const host = new NodeHost({ env, snapshots });
    const starting = rejection(startOn(host, {}));
    await settle();
    await host.stop();
    assertInstanceOf(await starting, ErrClusterClosed);
    assertEquals(env.timers, 0);
  }),
);

test(
  "H11 a replica that is started here, or elsewhere on the log, is ErrClusterAlreadyExist",
  checked(async () => {
    await using logDB = newLogDB();
    const { host } = await start({ logDB });
    await using elsewhere = new NodeHost({ logDB });
    for (
      const second of [
        startOn(host, {}),
        startOn(host, { config: { nodeID: 2n } }),
        startOn(elsewhere, {}),
      ]
    ) assertInstanceOf(await rejection(second), ErrClusterAlreadyExist);
    const two = await startOn(elsewhere, { config: { nodeID: 2n } });
    await proposeAll(two, "a");
    await host.stop();
    // Now it can be started.
    await using after = new NodeHost({ logDB });
    assertEquals(await listOf(await startOn(after, {})), ["a"]);
  }),
);

test(
  "H10 a host closes the stores it created, never those it was given",
  checked(async () => {
    await using logDB = newLogDB();
    await using snapshots = new MemorySnapshotStore();
    const one = await start({ logDB, snapshots });
    await proposeAll(one.replica, "a");
    await one.replica.requestSnapshot();
    await one.host.stop();
    assertEquals(snapshots.list(1n).length, 1);
    const two = await start({ logDB, snapshots });
    assertEquals(await listOf(two.replica), ["a"]);
    await two.host.stop();
    await snapshots.close();
    await snapshots.close();
    await logDB.close();
    await logDB.close();
  }),
);

test(
  "H7 hosts on one in-memory log without a store share the log's store",
  checked(async () => {
    await using logDB = newLogDB();
    const one = await start({ logDB });
    await proposeAll(one.replica, "a");
    await one.replica.requestSnapshot();
    assertEquals((await logDB.snapshots.list(1n)).length, 1);
    const two = await start({ logDB, config: { nodeID: 2n } });
    assertEquals(typesOf(two.events), ["recovered"]);
    await one.host.stop();
    await two.host.stop();
  }),
);

for (
  const method of [
    "update",
    "lookup",
    "saveSnapshot",
    "prepareSnapshot",
    "sync",
    "getHash",
    "close",
  ]
) {
  testInMemory(
    `H10 U39 a stop is bounded when ${method}() never settles, and leaves other clusters alone`,
    checked(async () => {
      for (const kind of KINDS) {
        if (method === "sync" && !["disk", "hosted"].includes(kind)) continue;
        if (method === "prepareSnapshot" && kind === "regular") continue;
        const env = new ManualEnv();
        let hang = false;
        const { host, replica, events } = await start({
          env,
          kind,
          faults: {
            before: (name) => hang && name === method ? never() : undefined,
          },
        });
        const other = await startOn(host, { config: { clusterID: 2n } });
        await proposeAll(replica, "a");
        hang = true;
        const waiting: Promise<unknown>[] = [];
        if (method === "update") {
          waiting.push(replica.propose(bytes("b")));
          await settle();
          waiting.push(replica.read(null));
          // It waits behind the update, or in the queue for the index.
          if (kind === "regular") {
            waiting.push((async () => await replica.staleRead(null))());
          }
        } else if (method === "lookup") {
          waiting.push(replica.read(null));
          waiting.push((async () => await replica.staleRead(null))());
        } else if (method === "getHash") waiting.push(replica.getHash());
        else if (method !== "close") waiting.push(replica.requestSnapshot());
        if (method === "prepareSnapshot" && kind.match(/disk|hosted/)) {
          const reader = replica.exportSnapshot().getReader();
          waiting.push(reader.read());
        }
        await settle();
        const ends = waiting.map((promise) =>
          rejection(promise.then((value) => {
            // A periodic snapshot of an on-disk machine prepares nothing.
            if (method !== "update" && kind.match(/disk|hosted/)) {
              throw new ErrClusterClosed(`${value}`);
            }
          }))
        );
        // Lookups of an on-disk machine hold up nothing, and its periodic
        // snapshots do not call it (D7, D10).
        const free = kind.match(/disk|hosted/) &&
          ["lookup", "saveSnapshot"].includes(method);
        const stopped = host.stopCluster(1n);
        if (!free) assertEquals(await peek(stopped), "pending");
        await proposeAll(other, "fine");
        await env.advance(STOP_TIMEOUT_MS);
        assert((await peek(stopped)) !== "pending");
        if (!free) assertEquals(typesOf(events).at(-1), "close failed");
        for (const end of ends) {
          const state = await peek(end);
          assert(state !== "pending", `${method} of ${kind} is left waiting`);
          assertInstanceOf(
            (state as { value: unknown }).value,
            ErrClusterClosed,
          );
        }
        await proposeAll(other, "fine");
        await env.until(host.stop());
        assertEquals(env.timers, 0);
      }
    }),
  );
}

testInMemory(
  "H10 a stop is bounded when open() never settles, and the start ends at once",
  checked(async () => {
    const env = new ManualEnv();
    const host = hostOf({ env });
    const starting = rejection(startOn(host, {
      kind: "disk",
      faults: { before: (name) => name === "open" ? never() : undefined },
    }));
    await settle();
    const stopped = host.stop();
    await env.advance(STOP_TIMEOUT_MS);
    assertInstanceOf(await starting, ErrClusterClosed);
    await stopped;
  }),
);

testInMemory(
  "D2 R8 a stop during open() or a recovery aborts its signal and ends with ErrClusterClosed",
  checked(async () => {
    await using logDB = new MemoryLogDB();
    const first = await start({ logDB });
    await proposeAll(first.replica, "a");
    await first.replica.requestSnapshot();
    await first.host.stop();
    for (const method of ["open", "recoverFromSnapshot"]) {
      const env = new ManualEnv();
      const gate = new Gate();
      const host = hostOf({ logDB, env });
      const starting = rejection(startOn(host, {
        kind: method === "open" ? "hosted" : "regular",
        config: { nodeID: 2n },
        faults: {
          before: (name) => name === method ? gate.opened : undefined,
        },
      }));
      await settle();
      const stopped = host.stop();
      gate.open();
      assertInstanceOf(await starting, ErrClusterClosed);
      await stopped;
      assertEquals(env.timers, 0);
    }
  }),
);

testInMemory(
  "H10 a stop while a start writes its first record waits for nothing",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const first = await start({ logDB, env });
    await first.host.stop();
    const gate = new Gate();
    logDB.faults.isEmpty = () => gate.opened;
    // There is an entry to apply, which arrives after the stop.
    const writer = await start({ logDB, env, config: { nodeID: 2n } });
    await proposeAll(writer.replica, "a");
    await logDB.inner.snapshots.list(1n);
    const events: string[] = [];
    const host = new NodeHost({
      logDB,
      env,
      onEvent: ({ type }) => events.push(type),
    });
    // The session limit makes it query the log.
    const starting = rejection(
      startOn(host, { config: { nodeID: 3n, sessionsMax: 5 } }),
    );
    await settle();
    const stopped = host.stop();
    await settle();
    gate.open();
    assertInstanceOf(await starting, ErrClusterClosed);
    assert(await peek(stopped) !== "pending", "The stop is left to its limit");
    assertEquals(events, []);
    await writer.host.stop();
    assertEquals(env.timers, 0);
  }),
);

testInMemory(
  "R10 D6 no method is called after close(), also if an update ends during the stop",
  checked(async () => {
    for (const kind of ["disk", "hosted"] as const) {
      const env = new ManualEnv();
      const gate = new Gate();
      const { host, replica, machines } = await start({
        env,
        kind,
        faults: {
          before: (name) => name === "update" ? gate.opened : undefined,
        },
      });
      const waiting = rejection(replica.propose(bytes("a")));
      await settle();
      const stopped = host.stop();
      gate.open();
      await stopped;
      assertInstanceOf(await waiting, ErrClusterClosed);
      assertEquals(env.timers, 0, "A timer is left");
      await env.advance(60_000);
      assertEquals(machines[0]!.calls.at(-1), "close");
    }
  }),
);

testInMemory(
  "R5 H10 an error of close() is reported, and everything is released",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new MemoryLogDB({ env });
    const { host, events } = await start({
      logDB,
      env,
      faults: {
        before: (name) => {
          if (name === "close") throw new Error("close() failed (test)");
        },
      },
    });
    await host.stop();
    assertEquals(typesOf(events), ["close failed"]);
    const again = await start({ logDB, env });
    await again.host.stop();
  }),
);

testInMemory(
  "H10 a log that cannot be closed is reported, and the host stops",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const { host, replica, events } = await start({
      logDB,
      env,
      faults: {
        before: (name, { list }) => {
          if (name === "update" && list.length === 1) throw new Error("Broken");
        },
      },
    });
    const other = await startOn(host, { config: { clusterID: 2n } });
    await proposeAll(replica, "a");
    logDB.faults.close = () => {
      throw new Error("close() failed (test)");
    };
    // The failure of the machine closes the log in the background.
    await rejection(replica.propose(bytes("b")));
    await settle();
    await host.stop();
    assertInstanceOf(
      await rejection(other.propose(bytes("x"))),
      ErrClusterClosed,
    );
    assertEquals(
      typesOf(events),
      ["failed", "close failed", "close failed"],
    );
  }),
);

testInMemory(
  "H10 a stop ends an import whose source has stalled",
  checked(async () => {
    const env = new ManualEnv();
    const host = new NodeHost({ env });
    let cancelled: unknown;
    const source = new ReadableStream<Uint8Array>({
      pull: () => never(),
      cancel: (reason) => {
        cancelled = reason;
      },
    });
    const importing = rejection(host.importSnapshot(1n, source));
    await settle();
    const stopped = host.stop();
    assert(await peek(stopped) !== "pending", "The stop waits for the source");
    assertInstanceOf(await importing, ErrClusterClosed);
    assertInstanceOf(cancelled, ErrClusterClosed);
  }),
);

testInMemory(
  "H10 a stop ends an unread export at once, and not as complete",
  checked(async () => {
    for (const kind of KINDS) {
      const env = new ManualEnv();
      const { host, replica, events } = await start({
        env,
        kind,
        faults: { filling: 4 << 20 },
      });
      await proposeAll(replica, "a");
      const reader = replica.exportSnapshot().getReader();
      await reader.read();
      await settle();
      const begun = replica.exportSnapshot().getReader();
      const late = replica.exportSnapshot().getReader();
      const pending = begun.read().then(async () => {
        for (;;) if ((await begun.read()).done) return "complete";
      });
      await host.stop();
      assertEquals(env.now(), 0);
      assertEquals(typesOf(events).filter((t) => t === "close failed"), []);
      for (
        const rest of [
          (async () => {
            for (;;) if ((await reader.read()).done) return;
          })(),
          pending,
          late.read(),
        ]
      ) {
        const error = await rejection(rest);
        assertInstanceOf(error, ErrClusterClosed, `${kind}: ${error}`);
      }
    }
  }),
);

testInMemory(
  "H10 a stop ends a snapshot whose store hangs, within the limit",
  checked(async () => {
    for (const step of ["create", "write", "commit"]) {
      const env = new ManualEnv();
      await using snapshots = new FaultySnapshotStore();
      const { host, replica } = await start({ env, snapshots });
      await proposeAll(replica, "a");
      snapshots.before = (name) => name === step ? never() : undefined;
      const asked = rejection(replica.requestSnapshot());
      await settle();
      const stopped = host.stop();
      await env.advance(STOP_TIMEOUT_MS);
      await stopped;
      const state = await peek(asked);
      assert(state !== "pending", `${step} leaves who asked waiting`);
      assertInstanceOf((state as { value: unknown }).value, ErrClusterClosed);
      assertEquals(env.timers, 0);
    }
  }),
);

test(
  "H10 a log closed by its owner fails the replica, with a cause",
  checked(async () => {
    const logDB = newLogDB();
    const { host, replica, events } = await start({ logDB });
    await proposeAll(replica, "a");
    await logDB.close();
    await settle();
    const error = await rejection(replica.propose(bytes("b")));
    assertInstanceOf(error, ErrClusterClosed);
    assertEquals(typesOf(events), ["failed"]);
    assertStrictEquals(error.cause, replica.error);
    await host.stop();
  }),
);

testInMemory(
  "H10 the stop timeout of the host applies",
  checked(async () => {
    const env = new ManualEnv();
    const { host, replica } = await start({
      env,
      stopTimeoutMs: 70,
      faults: { before: (name) => name === "update" ? never() : undefined },
    });
    const waiting = rejection(replica.propose(bytes("a")));
    await settle();
    const stopped = host.stop();
    await env.advance(69);
    assertEquals(await peek(stopped), "pending");
    await env.advance(1);
    await stopped;
    assertInstanceOf(await waiting, ErrClusterClosed);
  }),
);

testInMemory(
  "H10 a stop is bounded when LogDB.open() or Log.close() never settles",
  checked(async () => {
    for (const one of [true, false]) {
      const env = new ManualEnv();
      await using logDB = new FaultyLogDB({ env });
      const stop = (host: NodeHost): Promise<void> =>
        one ? host.stopCluster(1n) : host.stop();
      class Stuck extends FaultyLogDB {
        override open(): Promise<Log> {
          return never();
        }
      }
      const stuck = new Stuck({ env });
      for (
        const begin of [
          (host: NodeHost) => startOn(host, {}),
          (host: NodeHost) => host.importSnapshot(1n, streamOf(bytes("x"))),
        ]
      ) {
        const host = hostOf({ logDB: stuck, env });
        const begun = rejection(begin(host));
        await settle();
        await env.until(stop(host));
        assertInstanceOf(await begun, ErrClusterClosed);
        await env.until(host.stop());
      }
      const { host, events } = await start({ logDB, env });
      logDB.faults.close = () => never();
      const stopped = stop(host);
      assertEquals(await peek(stopped), "pending");
      await env.advance(STOP_TIMEOUT_MS);
      assert(await peek(stopped) !== "pending", "The stop waits for the log");
      await host.stop();
      assertEquals(typesOf(events), ["close failed"]);
      assertEquals(env.timers, 0);
    }
  }),
);

testInMemory(
  "H10 U40 a stop that does not wait for a machine releases the outbox",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new MemoryLogDB({ env });
    await using outbox = new MemoryOutbox();
    let isHung = true;
    const faults = {
      before: (method: string): Promise<void> | undefined =>
        method === "update" && isHung ? never() : undefined,
    };
    const hung = await start({
      kind: "concurrent",
      logDB,
      env,
      outbox,
      faults,
    });
    await hung.replica.submit(bytes("a"));
    await settle();
    const stopped = hung.host.stop();
    await env.advance(STOP_TIMEOUT_MS + 1);
    await stopped;
    assert(typesOf(hung.events).includes("close failed"));
    isHung = false;
    const next = await start({
      kind: "concurrent",
      logDB,
      env,
      outbox,
      faults,
    });
    await env.until(
      next.replica.submit(bytes("b")).then(({ result }) => result),
      20,
    );
    assertEquals(await listOf(next.replica), ["a", "b"]);
    await env.until(next.host.stop());
  }),
);

testInMemory(
  "H10 a stop waits for an outbox only until its timeout, also after a machine that never settles",
  checked(async () => {
    for (const hung of ["open", "close", "machine and close"]) {
      const env = new ManualEnv();
      await using logDB = new MemoryLogDB({ env });
      const outbox = new MemoryOutbox();
      const open = outbox.open.bind(outbox);
      outbox.open = async (...given) => {
        if (hung === "open") return await never();
        const queue = await open(...given);
        queue.close = () => never();
        return queue;
      };
      const faults = {
        before: (method: string): Promise<void> | undefined =>
          method === "close" && hung.includes("machine") ? never() : undefined,
      };
      const host = new NodeHost({ logDB, env, outbox });
      const starting = startOn(host, { kind: "concurrent", faults })
        .catch((error) => error);
      await settle();
      const stopped = host.stop();
      await env.until(stopped, 20);
      if (hung === "open") assertInstanceOf(await starting, ErrClusterClosed);
      assertEquals(env.timers, 0, hung);
    }
  }),
);
