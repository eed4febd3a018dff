import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { ErrClusterClosed, kv, KVStateMachine, NodeHost } from "../../mod.ts";
import { type Env, systemEnv } from "../../src/env.ts";
import { ErrSystemBusy } from "../../src/rsm/errors.ts";
import { Watches } from "../../src/watch/watch.ts";
import { bytes, text } from "../support/bytes.ts";
import {
  checked,
  Gate,
  peek,
  rejection,
  settle,
} from "../support/environment.ts";
import { start } from "../support/clusters.ts";

async function kvReplica(): Promise<
  { host: NodeHost; replica: Awaited<ReturnType<NodeHost["startCluster"]>> }
> {
  const host = new NodeHost();
  const replica = await host.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: 1n,
  });
  return { host, replica };
}

Deno.test(
  "U15 watch() yields the answer and each one that differs; a slow consumer gets the newest",
  checked(async () => {
    const { host, replica } = await kvReplica();
    for (const view of ["committed", "optimistic"] as const) {
      await replica.propose(kv.put("a", "0"));
      const watch = replica.watch<Uint8Array>(kv.get("a"), { view });
      const iterator = watch[Symbol.asyncIterator]();
      const value = async (): Promise<string> =>
        text((await iterator.next()).value);
      assertEquals(await value(), "0");
      const waiting = value();
      await replica.propose(kv.put("b", "1"));
      assertEquals(await peek(waiting), "pending");
      await replica.propose(kv.put("a", "1"));
      assertEquals(await waiting, "1");
      for (let i = 2; i < 10; i++) {
        await replica.propose(kv.put("a", `${i}`));
        await settle(1);
      }
      await settle();
      assertEquals(await value(), "9");
      // A change that the same batch takes back is no change.
      await Promise.all([
        replica.propose(kv.put("a", "1")),
        replica.propose(kv.put("a", "9")),
      ]);
      assertEquals(await peek(iterator.next()), "pending");
      assertEquals(await iterator.return!(), { done: true, value: undefined });
      assertEquals(await iterator.next(), { done: true, value: undefined });
    }
    await host.stop();
  }),
);

Deno.test(
  "U15 getSnapshot() returns the same object until the answer changes, and listeners are called once per change",
  checked(async () => {
    const { host, replica } = await kvReplica();
    await replica.propose(kv.put("a", "0"));
    const { subscribe, getSnapshot } = replica.watch<unknown[]>(kv.range());
    const first = getSnapshot();
    assertEquals(first?.length, 1);
    assertStrictEquals(getSnapshot(), first);
    const calls: unknown[] = [];
    const unsubscribe = subscribe(() => calls.push(getSnapshot()));
    const unsubscribeOther = subscribe(() => {
      throw new Error("Listener failed (injected)");
    });
    await settle();
    assertEquals(calls, []);
    // The same rows.
    await replica.propose(kv.batch([kv.delete("b"), kv.put("a", "0")]));
    await settle();
    assertEquals(calls, []);
    assertStrictEquals(getSnapshot(), first);
    await Promise.all([
      replica.propose(kv.put("b", "0")),
      replica.propose(kv.put("c", "0")),
    ]);
    await settle();
    assertEquals(calls.length, 1);
    assertEquals(getSnapshot()?.length, 3);
    unsubscribe();
    unsubscribeOther();
    await replica.propose(kv.put("d", "0"));
    await settle();
    assertEquals(calls.length, 1);
    // Without subscribers, getSnapshot() queries the present answer.
    assertEquals(getSnapshot()?.length, 4);
    await host.stop();
    assertEquals(getSnapshot()?.length, 4);
  }),
);

Deno.test(
  "U28 a machine is not queried without subscribers, and once in a turn for everything applied in it",
  checked(async () => {
    const { host, replica, machines } = await start();
    const lookups = (): number =>
      machines[0]!.calls.filter((call) => call === "lookup").length;
    const watch = replica.watch(null);
    await replica.propose(bytes("a"));
    await settle();
    assertEquals(lookups(), 0);
    const unsubscribe = watch.subscribe(() => {});
    await settle();
    assertEquals(lookups(), 1);
    await Promise.all(
      Array.from({ length: 100 }, (_, i) => replica.propose(bytes(`${i}`))),
    );
    await settle();
    assert(lookups() <= 3, `${lookups()}`);
    const before = lookups();
    unsubscribe();
    unsubscribe();
    await replica.propose(bytes("b"));
    await settle();
    assertEquals(lookups(), before);
    await host.stop();
  }),
);

Deno.test(
  "H10 when the replica stops, iterators throw ErrClusterClosed and listeners are not called",
  checked(async () => {
    const { host, replica } = await kvReplica();
    const watch = replica.watch(kv.count());
    const calls: unknown[] = [];
    watch.subscribe(() => calls.push(watch.getSnapshot()));
    const iterator = watch[Symbol.asyncIterator]();
    assertEquals((await iterator.next()).value, 0);
    const waiting = rejection(iterator.next());
    await host.stop();
    assert(await waiting instanceof ErrClusterClosed);
    assertEquals((await iterator.next()).done, true);
    const late = watch[Symbol.asyncIterator]();
    assert(await rejection(late.next()) instanceof ErrClusterClosed);
    await settle();
    assertEquals(calls, [0]);
  }),
);

Deno.test(
  "U15 an aborted signal ends a watch",
  checked(async () => {
    const { host, replica } = await kvReplica();
    const ended = new AbortController();
    const { signal } = ended;
    const watch = replica.watch(kv.count(), { signal });
    const calls: unknown[] = [];
    watch.subscribe(() => calls.push(0));
    const given: unknown[] = [];
    const watching = (async () => {
      for await (const count of watch) given.push(count);
    })();
    await settle();
    ended.abort();
    await watching;
    await replica.propose(kv.put("a", ""));
    await settle();
    assertEquals([given, calls], [[0], [0]]);
    for await (const _ of watch) {
      throw new Error("watch() yielded though it was aborted before it began");
    }
    await host.stop();
  }),
);

Deno.test(
  "R4 subscribers get what a watched query throws, until a query succeeds",
  checked(async () => {
    let broken = true;
    const { host, replica } = await start({
      faults: {
        before: (method) => {
          if (method === "lookup" && broken) throw new TypeError("Broken");
        },
      },
    });
    const { getSnapshot, subscribe, ...watch } = replica.watch(null);
    const snapshot = async (): Promise<unknown> => await getSnapshot();
    let calls = 0;
    subscribe(() => calls++);
    await settle();
    assertEquals(calls, 1);
    assert(await rejection(snapshot()) instanceof TypeError);
    const iterator = replica.watch(null)[Symbol.asyncIterator]();
    assert(await rejection(iterator.next()) instanceof TypeError);
    assertEquals((await iterator.next()).done, true);
    broken = false;
    await replica.propose(bytes("a"));
    await settle();
    assertEquals(calls, 2);
    assertEquals(await snapshot(), ["a"]);
    assertEquals(replica.error, undefined);
    void watch;
    await host.stop();
  }),
);

Deno.test(
  "U15 slow queries run one after the other, and the first answer of an iterator is never stale",
  checked(async () => {
    let running = 0;
    let gate = new Gate();
    const { host, replica } = await start({
      kind: "concurrent",
      faults: {
        before: async (method) => {
          if (method !== "lookup") return;
          assertEquals(++running, 1);
          await gate.opened;
          running--;
        },
      },
    });
    await replica.propose(bytes("a"));
    const watch = replica.watch(null);
    // Not known yet.
    assertEquals(watch.getSnapshot(), undefined);
    gate.open();
    await settle();
    gate = new Gate();
    await replica.propose(bytes("b"));
    const first = watch[Symbol.asyncIterator]().next();
    assertEquals(await peek(first), "pending");
    await replica.propose(bytes("c"));
    gate.open();
    const { value } = await first;
    assertEquals((value as string[]).slice(0, 2), ["a", "b"]);
    await settle();
    assertEquals(watch.getSnapshot(), ["a", "b", "c"]);
    await host.stop();
  }),
);

Deno.test(
  "H7 a watch outlives the recovery of its replica",
  checked(async () => {
    const watches = new Watches(systemEnv, () => false);
    let answer: unknown = 1;
    const watch = watches.watch(() => {
      if (answer instanceof Error) throw answer;
      return answer;
    }, {});
    const iterator = watch[Symbol.asyncIterator]();
    assertEquals((await iterator.next()).value, 1);
    const next = iterator.next();
    answer = new ErrSystemBusy(
      "Replica is recovering: call read() again later",
    );
    watches.wake();
    assertEquals(await peek(next), "pending");
    assertEquals(watch.getSnapshot(), 1);
    answer = 2;
    watches.wake();
    assertEquals((await next).value, 2);
    watches.end(new Error("Over"));
  }),
);

Deno.test(
  "U15 a listener that another listener removes is not called",
  checked(async () => {
    const { host, replica } = await kvReplica();
    const watch = replica.watch(kv.count());
    watch.getSnapshot();
    const called: string[] = [];
    watch.subscribe(() => {
      called.push("first");
      unsubscribe();
    });
    const unsubscribe = watch.subscribe(() => called.push("second"));
    await replica.propose(kv.put("a", "1"));
    await settle();
    assertEquals(called, ["first"]);
    await host.stop();
  }),
);

Deno.test(
  "U15 a watch whose iterator is never used does not query",
  checked(async () => {
    let queries = 0;
    const watches = new Watches(systemEnv, () => false);
    const watch = watches.watch(() => queries++, {});
    const unused = watch[Symbol.asyncIterator]();
    const used = watch[Symbol.asyncIterator]();
    watches.wake();
    await settle();
    assertEquals(queries, 0);
    assertEquals((await used.next()).value, 0);
    await used.return!();
    watches.wake();
    await settle();
    assertEquals(queries, 1);
    assertEquals(await unused.return!(), { done: true, value: undefined });
    assertEquals(await unused.next(), { done: true, value: undefined });
    assertEquals(queries, 1);
  }),
);

Deno.test(
  "U28 after a quiet turn an answer is known without another turn of the event loop, and further changes in it are reported once",
  async () => {
    const turns: (() => void)[] = [];
    const turn = (): Promise<void> =>
      new Promise((resolve) => turns.push(resolve));
    let queries = 0;
    const watches = new Watches({ ...systemEnv, turn }, () => false);
    watches.watch(() => ++queries, {}).subscribe(() => {});
    await Promise.resolve();
    assertEquals(queries, 1);
    watches.wake();
    await Promise.resolve();
    watches.wake();
    await settle();
    assertEquals(queries, 1);
    for (const next of turns.splice(0)) next();
    await settle();
    assertEquals(queries, 2);
    watches.end(new Error("Stopped"));
  },
);

Deno.test(
  "U28 queries of a paced watch leave four times as much time to other work as they took, at most 100 ms",
  async () => {
    let now = 0;
    let isPaced = true;
    let took = 20;
    const timers: { delay: number; run: () => void }[] = [];
    let turns: (() => void)[] = [];
    const turn = (): void => {
      const present = turns;
      turns = [];
      for (const run of present) run();
    };
    const env: Env = {
      now: () => now,
      random64: () => 0n,
      setTimer: (run, delay) => {
        timers.push({ delay, run });
        return () => void (timers.length = 0);
      },
      turn: () =>
        ({ then: (run: () => void) => void turns.push(run) }) as never,
    };
    const watches = new Watches(env, () => isPaced);
    const watch = watches.watch(() => now += took, {});
    watch.subscribe(() => {});
    await Promise.resolve();
    assertEquals(now, 20);
    turn();
    watches.wake();
    assertEquals(timers.map(({ delay }) => delay), [80]);
    took = 1000;
    timers.pop()!.run();
    watches.wake();
    assertEquals(timers.map(({ delay }) => delay), [100]);
    timers.pop()!.run();
    isPaced = false;
    watches.wake();
    await Promise.resolve();
    // Refreshed in this turn already.
    assertEquals([now, timers.length], [2020, 0]);
    turn();
    assertEquals(now, 3020);
    isPaced = true;
    watches.wake();
    watches.end(new Error("Stopped"));
    assertEquals(timers.length, 0);
  },
);
