import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import { toBytes } from "@std/streams";
import {
  ErrDiverged,
  type HostEvent,
  kv,
  KVStateMachine,
  MemoryLogDB,
  NodeHost,
} from "../../mod.ts";
import { bytes } from "../support/bytes.ts";
import {
  checked,
  Gate,
  ManualEnv,
  rejection,
  settle,
} from "../support/environment.ts";
import { FaultyLogDB, FaultySnapshotStore } from "../support/faults.ts";
import type { Journal, MachineFaults } from "../machines/journal.ts";
import {
  proposeAll,
  start,
  type Started,
  stopAll,
} from "../support/clusters.ts";

/** Machine that applies something different from other replicas. */
function wrong(when: () => boolean): {
  before(method: string, machine: Journal): void;
} {
  return {
    before(method, machine): void {
      if (method === "update" && when()) {
        machine.list.push(`clock ${performance.now()}`);
      }
    },
  };
}

/** Faults of `wrong()` whose saves wait until the gate opens. */
function gatedWrong(gate: Gate, when: () => boolean): MachineFaults {
  const { before } = wrong(when);
  return {
    before: (method, machine) => {
      before(method, machine);
      return method === "saveSnapshot" ? gate.opened : undefined;
    },
  };
}

/** Events of divergence without explanation. */
function divergedOf({ events }: Started): (HostEvent & { type: "diverged" })[] {
  return events.filter((event) => event.type === "diverged")
    .filter(({ error }) => (error as ErrDiverged).index === undefined);
}

async function startBoth(
  logDB: MemoryLogDB | FaultyLogDB,
  env: ManualEnv,
  isWrong: () => boolean,
  trustedNode: bigint | undefined,
  kind: "regular" | "concurrent" | "hosted",
): Promise<[Started, Started]> {
  const config = {
    hashEntries: 4,
    ...(trustedNode === undefined ? {} : { trustedNode }),
  };
  const one = await start({
    logDB,
    env,
    kind,
    config: { ...config, fullSnapshotInterval: 1 },
  });
  const two = await start({
    logDB,
    env,
    kind,
    config: { ...config, nodeID: 2n, fullSnapshotInterval: 1 },
    faults: wrong(isWrong),
  });
  return [one, two];
}

Deno.test(
  "H12 replicas that agree report nothing, whatever sizes their batches have",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new MemoryLogDB({ env });
    const [one, two] = await startBoth(
      logDB,
      env,
      () => false,
      1n,
      "concurrent",
    );
    const session = await two.replica.openSession();
    for (let i = 0; i < 30; i++) {
      await Promise.all([
        one.replica.propose(bytes(`${i}`)),
        two.replica.propose(bytes(`s${i}`), { session }),
        one.replica.propose(bytes(`t${i}`)),
      ]);
    }
    const late = await start({
      logDB,
      env,
      config: { nodeID: 3n, hashEntries: 4, trustedNode: 1n },
    });
    for (const { events } of [one, two, late]) assertEquals(events, []);
    await stopAll([one, two, late]);
  }),
);

Deno.test(
  "H12 a replica that differs from the trusted one is detected, serves neither reads nor snapshots, and recovers from a good one",
  checked(async () => {
    for (const kind of ["regular", "concurrent", "hosted"] as const) {
      const env = new ManualEnv();
      await using logDB = new MemoryLogDB({ env });
      let isWrong = false;
      const [one, two] = await startBoth(
        logDB,
        env,
        () => isWrong,
        1n,
        kind,
      );
      await proposeAll(one.replica, "a", "b", "c", "d");
      await two.replica.read(null);
      isWrong = true;
      await proposeAll(one.replica, "e");
      await settle();
      isWrong = false;
      await proposeAll(one.replica, "f", "g", "h");
      await settle();
      // Both sides report the range.
      const [seenByOne, seenByTwo] = [divergedOf(one), divergedOf(two)];
      assertEquals(seenByTwo.length, 1);
      assert(seenByOne.length >= 1);
      assertEquals([seenByOne[0]!.from, seenByTwo[0]!.from], [2n, 1n]);
      for (const { error } of [seenByOne[0]!, seenByTwo[0]!]) {
        assertInstanceOf(error, ErrDiverged);
        assertEquals([error.after, error.upTo], [4, 8]);
      }
      for (
        const refused of [
          two.replica.read(null),
          (async () => await two.replica.staleRead(null))(),
          two.replica.requestSnapshot(),
          (async () => await two.replica.exportSnapshot().getReader().read())(),
        ]
      ) assertInstanceOf(await rejection(refused), ErrDiverged);
      // The trusted one goes on.
      const session = await one.replica.openSession();
      await one.replica.propose(bytes("i"), { session });
      const waiting = two.replica.propose(bytes("j"), { session });
      await settle();
      await one.replica.requestSnapshot();
      const { value } = await env.until(waiting);
      assertEquals(value, 10n);
      assertEquals(
        await two.replica.read(null),
        await one.replica.read(null),
      );
      assertEquals(await two.replica.getHash(), await one.replica.getHash());
      // It serves snapshots again.
      await two.replica.requestSnapshot();
      await proposeAll(one.replica, "k", "l", "m", "n");
      await settle();
      assertEquals(divergedOf(two).length, 1);
      await env.until(stopAll([one, two]));
    }
  }),
);

Deno.test(
  "H12 without a trusted replica both report, and both continue",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new MemoryLogDB({ env });
    const [one, two] = await startBoth(
      logDB,
      env,
      () => true,
      undefined,
      "regular",
    );
    for (let i = 0; i < 10; i++) await proposeAll(one.replica, `${i}`);
    await settle();
    assert(divergedOf(one).length > 0);
    assert(divergedOf(two).length > 0);
    for (const { replica } of [one, two]) {
      await replica.read(null);
      await replica.propose(bytes("x"));
      assertEquals(replica.error, undefined);
    }
    await stopAll([one, two]);
  }),
);

Deno.test(
  "H12 reads that wait at a replica that turns out to be wrong are rejected",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    let isWrong = false;
    const [one, two] = await startBoth(
      logDB,
      env,
      () => isWrong,
      1n,
      "regular",
    );
    await proposeAll(one.replica, "a");
    await two.replica.read(null);
    isWrong = true;
    logDB.faults.break(2n);
    for (let i = 0; i < 20; i++) await proposeAll(one.replica, `${i}`);
    const read = rejection(two.replica.read(null));
    await settle();
    logDB.faults.mend(2n);
    assertInstanceOf(await env.until(read), ErrDiverged);
    isWrong = false;
    await env.until(stopAll([one, two]));
  }),
);

Deno.test(
  "H12 the trusted replica itself is never the one that is wrong",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new MemoryLogDB({ env });
    const [one, two] = await startBoth(logDB, env, () => true, 2n, "regular");
    for (let i = 0; i < 10; i++) await proposeAll(two.replica, `${i}`);
    await settle();
    await two.replica.read(null);
    assertInstanceOf(await rejection(one.replica.read(null)), ErrDiverged);
    await stopAll([one, two]);
  }),
);

Deno.test(
  "H12 a wrong replica can be stopped while it waits for a good snapshot",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new MemoryLogDB({ env });
    const [one, two] = await startBoth(logDB, env, () => true, 1n, "regular");
    for (let i = 0; i < 10; i++) await proposeAll(one.replica, `${i}`);
    await env.advance(30_000);
    const waiting = rejection(two.replica.propose(bytes("x")));
    await settle();
    await two.host.stop();
    assertEquals((await waiting as Error).name, "ErrClusterClosed");
    assertEquals(two.machines[0]!.calls.at(-1), "close");
    await one.host.stop();
    assertEquals(env.timers, 0);
  }),
);

Deno.test(
  "R5 H12 a hash that cannot be had at a checkpoint is reported and ends nothing",
  checked(async () => {
    for (const later of [false, true]) {
      const events: HostEvent[] = [];
      await using host = new NodeHost({ onEvent: (e) => void events.push(e) });
      class Hashless extends KVStateMachine {
        override getHash(): bigint {
          const error = new Error("getHash() failed");
          // A promise where the type permits none.
          if (later) return Promise.reject(error) as unknown as bigint;
          throw error;
        }
      }
      const replica = await host.startCluster(() => new Hashless(), {
        clusterID: 1n,
        nodeID: 1n,
        hashEntries: 1,
      });
      assertEquals((await replica.propose(kv.put("a", "b"))).value, 1n);
      assertEquals(await replica.read(kv.count()), 1);
      assert(events.length > 0);
      assert(events.every(({ type }) => type === "hash failed"));
    }
  }),
);

Deno.test(
  "H12 U32 a wrong replica recovers from a snapshot of one that agreed with the trusted one, and not before it did",
  checked(async () => {
    for (const kind of ["regular", "concurrent", "hosted"] as const) {
      const env = new ManualEnv();
      await using logDB = new MemoryLogDB({ env });
      let isWrong = false;
      const [one, three] = await startBoth(logDB, env, () => isWrong, 1n, kind);
      const two = await start({
        logDB,
        env,
        kind,
        config: { hashEntries: 4, nodeID: 3n, fullSnapshotInterval: 1 },
      });
      await proposeAll(one.replica, "a", "b", "c", "d");
      await settle();
      isWrong = true;
      await proposeAll(one.replica, "e");
      await settle();
      isWrong = false;
      await proposeAll(one.replica, "f", "g", "h");
      await settle();
      assertEquals(divergedOf(three).length, 1);
      // At an index at which the trusted one was not compared yet.
      await two.replica.requestSnapshot();
      await env.advance(20_000);
      assertInstanceOf(await rejection(three.replica.read(null)), ErrDiverged);
      await proposeAll(one.replica, "i", "j", "k", "l");
      await env.advance(20_000);
      assertEquals(await three.replica.read(null), [..."abcdefghijkl"]);
      assertEquals(
        logDB.snapshots.list(1n).map(({ nodeID }) => nodeID),
        [3n],
      );
      await env.until(stopAll([one, two, three]));
    }
  }),
);

Deno.test(
  "H12 a snapshot or export under way when its replica is found to be wrong is not completed",
  checked(async () => {
    for (const kind of ["concurrent", "hosted"] as const) {
      const env = new ManualEnv();
      await using logDB = new MemoryLogDB({ env });
      let isWrong = false;
      const config = {
        hashEntries: 4,
        trustedNode: 1n,
        fullSnapshotInterval: 1,
      };
      const one = await start({ logDB, env, kind, config });
      const gate = new Gate();
      const two = await start({
        logDB,
        env,
        kind,
        config: { ...config, nodeID: 2n },
        faults: gatedWrong(gate, () => isWrong),
      });
      isWrong = true;
      await proposeAll(one.replica, "a");
      await two.replica.read(null);
      const asked = [
        two.replica.requestSnapshot(),
        toBytes(two.replica.exportSnapshot()),
      ].map(rejection);
      await settle();
      assertEquals(divergedOf(two), []);
      await proposeAll(one.replica, "b", "c", "d", "e");
      await settle();
      isWrong = false;
      assertEquals(divergedOf(two).length, 1);
      gate.open();
      for (const error of await Promise.all(asked)) {
        assertInstanceOf(error, ErrDiverged, `${error}`);
      }
      assertEquals(logDB.snapshots.list(1n), []);
      await env.until(stopAll([one, two]));
    }
  }),
);

Deno.test(
  "H12 a snapshot or export under way when its replica is found to be wrong is not completed once that has recovered, either",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new MemoryLogDB({ env });
    let isWrong = true;
    const kind = "concurrent";
    const config = { hashEntries: 4, trustedNode: 1n };
    const one = await start({ logDB, env, kind, config });
    const gate = new Gate();
    const two = await start({
      logDB,
      env,
      kind,
      config: { ...config, nodeID: 2n },
      faults: gatedWrong(gate, () => isWrong),
    });
    await proposeAll(one.replica, "a");
    await two.replica.read(null);
    const asked = [
      two.replica.requestSnapshot(),
      toBytes(two.replica.exportSnapshot()),
    ].map(rejection);
    await settle();
    await proposeAll(one.replica, "b", "c", "d");
    await settle();
    assertEquals(divergedOf(two).length, 1);
    isWrong = false;
    await one.replica.requestSnapshot();
    await env.advance(30_000);
    assertEquals(await two.replica.read(null), [..."abcd"]);
    gate.open();
    for (const error of await Promise.all(asked)) {
      assertInstanceOf(error, ErrDiverged, `${error}`);
    }
    assertEquals(
      logDB.snapshots.list(1n).map(({ nodeID }) => nodeID),
      [1n],
    );
    // The machine that took its place can save.
    await two.replica.requestSnapshot();
    await env.until(stopAll([one, two]));
  }),
);

Deno.test(
  "H12 a snapshot that waits for its store while its replica is found to be wrong is not completed",
  checked(async () => {
    for (const kind of ["regular", "concurrent", "hosted"] as const) {
      const env = new ManualEnv();
      await using snapshots = new FaultySnapshotStore();
      await using logDB = new FaultyLogDB({ env, snapshots });
      let isWrong = true;
      const [one, two] = await startBoth(logDB, env, () => isWrong, 1n, kind);
      await proposeAll(one.replica, "a");
      await two.replica.read(null);
      const gate = new Gate();
      snapshots.before = (step) => step === "list" ? gate.opened : undefined;
      const asked = rejection(two.replica.requestSnapshot());
      await settle(10);
      snapshots.before = () => {};
      await proposeAll(one.replica, "b", "c", "d", "e");
      await settle();
      isWrong = false;
      assertEquals(divergedOf(two).length, 1);
      gate.open();
      assertInstanceOf(await asked, ErrDiverged);
      assertEquals(snapshots.inner.list(1n), []);
      await env.until(stopAll([one, two]));
    }
  }),
);
