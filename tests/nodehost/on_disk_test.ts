import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertStrictEquals,
} from "@std/assert";
import {
  ErrDiverged,
  ErrInvalidSession,
  ErrSnapshotStopped,
  ErrSnapshotStreaming,
  ErrStoreVanished,
  ErrUnknownOutcome,
  MemoryLogDB,
  MemorySnapshotStore,
} from "../../mod.ts";
import type { LogBatch } from "../../src/ports/mod.ts";
import { bytes, text } from "../support/bytes.ts";
import {
  checked,
  Gate,
  ManualEnv,
  rejection,
  settle,
} from "../support/environment.ts";
import { Disk } from "../machines/journal.ts";
import { FaultyLogDB } from "../support/faults.ts";
import {
  listOf,
  proposeAll,
  snapshotAfterEach,
  start,
  stopAll,
} from "../support/clusters.ts";
import { random32 } from "../support/random.ts";
import { newLogDB, test, testInMemory } from "../support/log_tests.ts";

const ON_DISK = ["disk", "hosted"] as const;

testInMemory(
  "D1 D3 D4 D5 a machine that crashes at any point recovers its state, with no entry applied twice",
  checked(async () => {
    for (const kind of ON_DISK) {
      for (let seed = 1; seed <= 30; seed++) {
        const random = random32(seed);
        const env = new ManualEnv(seed);
        await using logDB = new MemoryLogDB({ env });
        const disk = new Disk();
        const holder = await start({ logDB, env, config: { nodeID: 9n } });
        const session = await holder.replica.openSession();
        const expected: string[] = [];
        for (let life = 0; life < 4; life++) {
          const one = await start({
            logDB,
            env,
            kind,
            disk,
            config: { fullSnapshotInterval: 2 },
          });
          assertEquals(await listOf(one.replica), expected, `seed ${seed}`);
          for (let i = 0; i < random() % 12; i++) {
            const command = `${life}/${i}`;
            expected.push(command);
            const via = random() % 2 ? one : holder;
            await via.replica.propose(
              bytes(command),
              random() % 2 ? { session } : {},
            );
            if (random() % 4 === 0) {
              await one.replica.read(null);
              await one.replica.requestSnapshot();
            }
            if (random() % 6 === 0) await env.advance(1_500);
          }
          await one.replica.read(null);
          await one.host.stop();
          disk.crash(random);
        }
        const last = await start({ logDB, env, kind, disk });
        assertEquals(await listOf(last.replica), expected, `seed ${seed}`);
        await stopAll([last, holder]);
      }
    }
  }),
);

testInMemory(
  "D6 applied entries are durable after the sync interval, and with a snapshot",
  checked(async () => {
    for (const kind of ON_DISK) {
      const env = new ManualEnv();
      const disk = new Disk();
      const { host, replica } = await start({ env, kind, disk });
      await proposeAll(replica, "a");
      await env.advance(1_000);
      await proposeAll(replica, "b");
      disk.crash();
      assertEquals(disk.newest.list, ["a"]);
      await proposeAll(replica, "c");
      await replica.requestSnapshot();
      disk.crash();
      assertEquals(disk.newest.list.at(-1), "c");
      await host.stop();
    }
  }),
);

testInMemory(
  "H7 D6 the log is not compacted past the durable entries of a running on-disk replica",
  checked(async () => {
    for (const kind of ON_DISK) {
      const env = new ManualEnv();
      await using logDB = new MemoryLogDB({ env });
      const disk = new Disk();
      const one = await start({ logDB, env, kind, disk });
      const two = await start({ logDB, env, config: { nodeID: 2n } });
      for (const c of ["a", "b", "c"]) {
        await proposeAll(two.replica, c);
        await one.replica.read(null);
        await two.replica.requestSnapshot();
      }
      const log = logDB.open(1n, 9n);
      (await log.read(0)).close();
      // Once it is durable, the log may be compacted: with its sessions, or with its record.
      if (kind === "disk") await one.replica.requestSnapshot();
      else await env.advance(1_000);
      await proposeAll(two.replica, "d");
      await two.replica.requestSnapshot();
      assertEquals(
        (await rejection((async () => await log.read(0))()) as Error).name,
        "ErrCompacted",
      );
      await log.close();
      await stopAll([one, two]);
    }
  }),
);

test(
  "D13 a machine ahead of the log is refused with ErrDiverged, at each start",
  checked(async () => {
    for (const kind of ON_DISK) {
      const disk = new Disk();
      const one = await start({ kind, disk });
      await proposeAll(one.replica, "a", "b", "c");
      await one.host.stop();
      await using logDB = newLogDB();
      const other = await start({ logDB, config: { nodeID: 2n } });
      for (let i = 0; i < 2; i++) {
        const error = await rejection(start({ logDB, kind, disk }));
        assertInstanceOf(error, ErrDiverged);
      }
      // However long the other log gets, its entries are not taken for those of this one.
      await proposeAll(other.replica, "x", "y", "z", "w");
      if (kind === "hosted") {
        assertInstanceOf(
          await rejection(start({ logDB, kind, disk })),
          ErrDiverged,
        );
      }
      assertEquals(disk.newest.list, ["a", "b", "c"]);
      await other.host.stop();
    }
  }),
);

testInMemory(
  "D14 a machine whose files were deleted is rebuilt from the log, else from a full snapshot, else ErrStoreVanished",
  checked(async () => {
    for (const kind of ON_DISK) {
      const env = new ManualEnv();
      await using logDB = new FaultyLogDB({ env });
      const disk = new Disk();
      const config = { fullSnapshotInterval: 2 };
      const one = await start({ logDB, env, kind, disk, config });
      await proposeAll(one.replica, "a", "b");
      await one.replica.requestSnapshot();
      await one.host.stop();
      disk.erase();
      const two = await start({ logDB, env, kind, disk, config });
      assertEquals(await listOf(two.replica), ["a", "b"]);
      // Two full snapshots, so the log is compacted.
      await snapshotAfterEach(two.replica, "c", "d", "e", "f", "g");
      await two.host.stop();
      disk.erase();
      const three = await start({ logDB, env, kind, disk, config });
      assertEquals(await listOf(three.replica), [..."abcdefg"]);
      assert(
        three.machines.some((m) => m.calls.includes("recoverFromSnapshot")),
      );
      await three.host.stop();
      disk.erase();
      for (const info of logDB.inner.snapshots.list(1n)) {
        if (info.kind === "full") logDB.inner.snapshots.remove(info);
      }
      const error = await rejection(
        start({ logDB, env, kind, disk, config }),
      );
      assertInstanceOf(error, ErrStoreVanished);
      assertEquals(disk.newest.list, [], "its state is not assumed");
    }
  }),
);

testInMemory(
  "D14 a machine restored from a backup catches up",
  checked(async () => {
    for (const kind of ON_DISK) {
      for (const cut of [false, true]) {
        const env = new ManualEnv();
        await using logDB = new MemoryLogDB({ env });
        const disk = new Disk();
        const config = { fullSnapshotInterval: cut ? 1 : 0 };
        const one = await start({ logDB, env, kind, disk, config });
        const session = await one.replica.openSession();
        await one.replica.propose(bytes("a"), { session });
        const restore = disk.backup();
        for (const c of ["b", "c", "d"]) {
          await one.replica.propose(bytes(c), { session });
          await one.replica.requestSnapshot();
        }
        await one.host.stop();
        restore();
        const two = await start({ logDB, env, kind, disk, config });
        assertEquals(await listOf(two.replica), ["a", "b", "c", "d"]);
        await two.replica.propose(bytes("e"), { session });
        await two.host.stop();
        disk.crash();
        const three = await start({ logDB, env, kind, disk, config });
        assertEquals(await listOf(three.replica), ["a", "b", "c", "d", "e"]);
        await three.host.stop();
      }
    }
  }),
);

testInMemory(
  "H6 exactly-once holds for on-disk machines across crashes and every kind of append failure",
  checked(async () => {
    for (const kind of ON_DISK) {
      for (let seed = 1; seed <= 20; seed++) {
        const random = random32(seed);
        const env = new ManualEnv(seed);
        await using logDB = new FaultyLogDB({ env });
        const disk = new Disk();
        const holder = await start({ logDB, env, config: { nodeID: 9n } });
        const session = await holder.replica.openSession();
        const faults = [
          undefined,
          "fail",
          "committed",
          "lost",
          "twice",
        ] as const;
        logDB.faults.append = () => faults[random() % faults.length];
        let one = await start({ logDB, env, kind, disk });
        let lostResults = 0;
        for (let i = 0; i < 20; i++) {
          const answer = one.replica.propose(bytes(`${i}`), { session });
          if (random() % 3 === 0) {
            const outcome = answer.catch((error) => error);
            await settle(random() % 3);
            await one.host.stop();
            await outcome;
            disk.crash(random);
            one = await env.until(start({ logDB, env, kind, disk }));
            continue;
          }
          try {
            const { data } = await env.until(answer);
            assertEquals(text(data), `${i}`);
          } catch (error) {
            assertInstanceOf(error, ErrUnknownOutcome);
            assertEquals(error.applied, true);
            lostResults++;
          }
        }
        logDB.faults.append = () => undefined;
        await env.until(one.replica.propose(bytes("end"), { session }));
        const list = await listOf(one.replica);
        assertEquals(new Set(list).size, list.length, `seed ${seed}: ${list}`);
        const numbers = list.slice(0, -1).map(Number);
        assertEquals(numbers, [...numbers].sort((a, b) => a - b));
        assertEquals(await holder.replica.read(null), list);
        if (kind === "hosted") assertEquals(lostResults, 0);
        await env.until(stopAll([one, holder]));
      }
    }
  }),
);

test(
  "H4 H6 the sessions of an on-disk machine are the same after a restart: an evicted session stays evicted",
  checked(async () => {
    for (const kind of ON_DISK) {
      await using logDB = newLogDB();
      const disk = new Disk();
      const config = { sessionsMax: 2 };
      const one = await start({ logDB, kind, disk, config });
      const holder = await start({ logDB, config: { nodeID: 2n } });
      const a = await holder.replica.openSession();
      const b = await holder.replica.openSession();
      await holder.replica.propose(bytes("a1"), { session: a });
      await one.replica.read(null);
      await one.host.stop();
      const two = await start({ logDB, kind, disk, config });
      // b was used least recently, also after the restart.
      await holder.replica.openSession();
      await two.replica.propose(bytes("a2"), { session: a });
      assertInstanceOf(
        await rejection(two.replica.propose(bytes("b1"), { session: b })),
        ErrInvalidSession,
      );
      await stopAll([two, holder]);
    }
  }),
);

testInMemory(
  "D7 lookups of an on-disk machine run concurrently with every other call",
  checked(async () => {
    const env = new ManualEnv();
    let release!: () => void;
    const { host, replica } = await start({
      env,
      kind: "hosted",
      faults: {
        before: (method, { list }) =>
          method === "update" && list.length > 0
            ? new Promise<void>((resolve) => release = resolve)
            : undefined,
      },
    });
    await proposeAll(replica, "a");
    const answer = replica.propose(bytes("b"));
    await settle();
    assertEquals(await replica.staleRead(null), ["a"]);
    release();
    await answer;
    await host.stop();
  }),
);

testInMemory(
  "D11 a recovery that was not durable before a crash is repeated from the stored snapshot",
  checked(async () => {
    for (const kind of ON_DISK) {
      const env = new ManualEnv();
      await using logDB = new MemoryLogDB({ env });
      const config = { fullSnapshotInterval: 1 };
      const one = await start({ logDB, env, kind, config });
      await snapshotAfterEach(one.replica, "a", "b", "c");
      const disk = new Disk();
      const cause = new Error("Power failed (test)");
      const second = { logDB, env, kind, disk, config: { nodeID: 2n } };
      const error = await rejection(start({
        ...second,
        faults: {
          before: (method) => {
            if (method === "sync") throw cause;
          },
        },
      }));
      assertStrictEquals(error, cause);
      disk.crash();
      assertEquals(disk.newest.list, []);
      const two = await start(second);
      assertEquals(await listOf(two.replica), ["a", "b", "c"]);
      await stopAll([one, two]);
    }
  }),
);

test(
  "D9 a machine whose snapshot receiver is lost gets ErrSnapshotStreaming and continues",
  checked(async () => {
    for (const kind of ["concurrent", ...ON_DISK] as const) {
      const { host, replica, machines } = await start({
        kind,
        faults: { filling: 4 << 20 },
      });
      await proposeAll(replica, "a");
      const machine = machines[0]!;
      const write = machine.write.bind(machine);
      let told: unknown;
      machine.write = async (w, list): Promise<void> => {
        try {
          await write(w, list);
        } catch (error) {
          told = error;
          throw error;
        }
      };
      const reader = replica.exportSnapshot().getReader();
      await reader.read();
      await settle();
      await reader.cancel();
      await settle();
      assert(
        told instanceof ErrSnapshotStreaming ||
          told instanceof ErrSnapshotStopped,
        `${told}`,
      );
      assertEquals(replica.error, undefined);
      await proposeAll(replica, "b");
      await host.stop();
    }
  }),
);

testInMemory(
  "H3 H6 C4 no full snapshot is taken of a machine ahead of its sessions until they are rebuilt",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const disk = new Disk();
    const holder = await start({ logDB, env, config: { nodeID: 2n } });
    const session = await holder.replica.openSession();
    const options = { logDB, env, kind: "disk", disk } as const;
    const one = await start(options);
    for (const c of "abcdef") {
      await holder.replica.propose(bytes(c), { session });
    }
    await one.replica.read(null);
    await one.host.stop();
    const gate = new Gate();
    logDB.faults.batch = (batch) =>
      batch.first === 6
        ? gate.opened.then(() => batch) as unknown as LogBatch
        : batch;
    const starting = start({
      ...options,
      config: { snapshotEntries: 1, fullSnapshotInterval: 1 },
    });
    await settle(10);
    assertEquals(logDB.inner.snapshots.list(1n), []);
    gate.open();
    const two = await starting;
    await settle(10);
    const [info] = logDB.inner.snapshots.list(1n);
    assertEquals([info?.kind, info?.index], ["full", two.replica.appliedIndex]);
    await holder.replica.propose(bytes("g"), { session });
    await two.replica.read(null);
    // A replica started from it has every command once.
    const late = await start({
      ...options,
      disk: new Disk(),
      config: { nodeID: 3n },
    });
    assertEquals(await listOf(late.replica), [..."abcdefg"]);
    await stopAll([two, late, holder]);
  }),
);

test(
  "D13 a machine whose snapshot is past the end of the log is refused with ErrDiverged",
  checked(async () => {
    for (const kind of ON_DISK) {
      for (const fullSnapshotInterval of [0, 1]) {
        await using snapshots = new MemorySnapshotStore();
        const config = { fullSnapshotInterval };
        const one = await start({ kind, snapshots, config });
        await proposeAll(one.replica, "a", "b", "c");
        await one.replica.requestSnapshot();
        await one.host.stop();
        const disk = new Disk();
        for (let i = 0; i < 2; i++) {
          assertInstanceOf(
            await rejection(start({ kind, disk, snapshots, config })),
            ErrDiverged,
          );
        }
        assertEquals(disk.newest.list, []);
      }
    }
  }),
);
