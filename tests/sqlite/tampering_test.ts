/**
 * Files of a server that another program changes while it runs, or that were cut
 * off while it did not: real files, and a real server with a client.
 */

import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertMatch,
  assertRejects,
  assertThrows,
} from "@std/assert";
import { type Env, systemEnv } from "../../src/env.ts";
import { LOG_VERIFY_MS } from "../../src/limits.ts";
import {
  type HostEvent,
  kv,
  KVStateMachine,
  NodeHost,
  type Replica,
} from "../../mod.ts";
import { packRecords } from "../../src/ports/mod.ts";
import {
  DirectoryFileStore,
  ErrStoreCorrupted,
  FileSnapshotStore,
  SqliteBlockStore,
  SqliteKVStateMachine,
  SqliteLogDB,
  SqliteOutbox,
} from "../../src/sqlite/mod.ts";
import { RemoteLogDB } from "../../src/sync/client/mod.ts";
import { serve, type ServerLogRecord } from "../../src/sync/server/mod.ts";
import { makeDirectory } from "../support/directory.ts";

const CLUSTER = { clusterID: 1n, nodeID: 1n };

/** Ways in which another program ruins a database that is in use; `path` is that of the database. */
const RUINED: Record<string, (path: string) => void> = {
  "overwritten with zeros": (path) => overwrite(path, 0),
  "overwritten in its second half": (path) =>
    overwrite(path, Deno.statSync(path).size / 2),
  "overwritten by another file": (path) =>
    Deno.writeTextFileSync(path, "not a database".repeat(100_000)),
  "cut off": (path) => Deno.truncateSync(path, Deno.statSync(path).size / 2),
  "emptied": (path) => Deno.truncateSync(path, 0),
  "removed": (path) => Deno.removeSync(path),
  "replaced": (path) => {
    Deno.copyFileSync(path, `${path}.copy`);
    Deno.renameSync(`${path}.copy`, path);
  },
  "without the content of its WAL": (path) =>
    Deno.truncateSync(`${path}-wal`, 0),
  "overwritten in its WAL": (path) => overwrite(`${path}-wal`, 0),
  "removed together with its WAL": (path) => {
    Deno.removeSync(path);
    Deno.removeSync(`${path}-wal`);
  },
};

/** Overwrites a file with zeros from an offset on, without making it shorter. */
function overwrite(path: string, from: number): void {
  const bytes = Deno.readFileSync(path).fill(0, from);
  using file = Deno.openSync(path, { write: true });
  file.writeSync(bytes);
}

/** Resolves once a condition holds; checks it at each event of its source. */
function until(
  watch: (changed: () => void) => () => void,
  isTrue: () => boolean,
): Promise<void> {
  return new Promise((resolve) => {
    const look = (): void => {
      if (!isTrue()) return;
      resolve();
      unwatch();
    };
    const unwatch = watch(() => queueMicrotask(look));
    queueMicrotask(look);
  });
}

/** Proposes enough commands that some are checkpointed from the WAL to the database file. */
async function fill(replica: Replica): Promise<void> {
  for (let i = 0; i < 30; i++) {
    await replica.propose(kv.put(`before ${i}`, new Uint8Array(200_000)));
  }
}

for (const [how, ruin] of Object.entries(RUINED)) {
  Deno.test(`case A16: a log that is ${how} while the server runs refuses appends, and is reported as failed [H18, H8]`, async () => {
    using directory = makeDirectory();
    const path = directory.path("log.db");
    const events: HostEvent[] = [];
    const records: ServerLogRecord[] = [];
    await using logDB = new SqliteLogDB(path);
    await using host = new NodeHost({
      logDB,
      onEvent: (event) => events.push(event),
    });
    const replica = await host.startCluster(
      () => new KVStateMachine(),
      CLUSTER,
    );
    await fill(replica);
    await using server = serve(host, {
      log: (record) => records.push(record),
      sigterm: false,
    });
    await using remote = new RemoteLogDB(server.url);
    const log = await remote.open(1n, 2n);
    await log.readIndex();
    ruin(path);
    const error = await assertRejects(
      async () => {
        // Writes look at the files at most every few milliseconds.
        for (let i = 0; i < 1_000; i++) {
          await replica.propose(kv.put(`after ${i}`, ""));
        }
      },
      ErrStoreCorrupted,
    );
    assert(error.part.startsWith(path));
    await assertRejects(() => replica.propose(kv.put("more", "")));
    const failed = events.filter(({ type }) => type === "failed");
    assertEquals(failed.length, 1);
    const health = await fetch(new URL("health", server.httpURL));
    assertEquals(health.status, 503);
    assertMatch(await health.text(), /its log is damaged/);
    await until(
      (changed) => remote.watch(changed),
      () => remote.status.clusters[0]?.reason?.code === "cluster-failed",
    );
    assertEquals(
      records.filter(({ event }) => event === "cluster failed").length,
      1,
    );
    await log.close();
  });
}

Deno.test("case A16: a log whose WAL alone is removed while it is in use loses nothing and continues [D5]", async () => {
  using directory = makeDirectory();
  const path = directory.path("log.db");
  {
    await using logDB = new SqliteLogDB(path);
    await using host = new NodeHost({ logDB });
    const replica = await host.startCluster(
      () => new KVStateMachine(),
      CLUSTER,
    );
    await replica.propose(kv.put("before", "1"));
    Deno.removeSync(`${path}-wal`);
    for (let i = 0; i < 50; i++) {
      await replica.propose(kv.put(`after ${i}`, ""));
      await systemEnv.turn();
    }
    assert(Deno.statSync(`${path}-wal`).size > 0);
    // As a kill would leave it.
    Deno.mkdirSync(directory.path("copy"));
    for (const name of ["log.db", "log.db-wal"]) {
      Deno.copyFileSync(
        directory.path(name),
        directory.path(`copy/${name}`),
      );
    }
  }
  await using logDB = new SqliteLogDB(directory.path("copy/log.db"));
  await using host = new NodeHost({ logDB });
  const replica = await host.startCluster(() => new KVStateMachine(), CLUSTER);
  assertEquals(await replica.read(kv.count()), 51);
});

Deno.test("case A16: an idle log detects that its file was removed [H18]", async () => {
  using directory = makeDirectory();
  const timers = new Set<() => void>();
  const env: Env = {
    ...systemEnv,
    setTimer: (callback, delay) => {
      if (delay !== LOG_VERIFY_MS) return systemEnv.setTimer(callback, delay);
      timers.add(callback);
      return () => void timers.delete(callback);
    },
  };
  const failed = Promise.withResolvers<unknown>();
  await using logDB = new SqliteLogDB(directory.path("log.db"), { env });
  await using host = new NodeHost({
    logDB,
    onEvent: (event) => {
      if (event.type === "failed") failed.resolve(event.error);
    },
  });
  const replica = await host.startCluster(() => new KVStateMachine(), CLUSTER);
  await replica.propose(kv.put("boat", "sampan"));
  const fire = (): void => {
    const due = [...timers];
    assertEquals(due.length, 1);
    timers.clear();
    for (const callback of due) callback();
  };
  fire();
  while (timers.size === 0) await systemEnv.turn();
  assertEquals(replica.error, undefined);
  Deno.removeSync(directory.path("log.db"));
  fire();
  assertInstanceOf(await failed.promise, ErrStoreCorrupted);
  assertEquals(host.clusterStatus(1n)?.state, "failed");
});

Deno.test("case A16: a file that is only touched, or read by a backup, does not count as damaged", async () => {
  using directory = makeDirectory();
  const path = directory.path("store.db");
  await using store = new SqliteBlockStore(path, { durability: "full" });
  for (let i = 0; i < 20; i++) {
    const bytes = new Uint8Array(300_000).fill(i);
    store.write({ put: [{ key: `block ${i}`, bytes }] }, "strict");
    Deno.utimeSync(path, i, i);
    Deno.utimeSync(`${path}-wal`, i, i);
    Deno.readFileSync(`${path}-wal`);
    store.verify();
    store.verify();
  }
  assertEquals(store.keys("a", "z").length, 20);
});

Deno.test("case A16: a directory of snapshots that is removed while in use is created again, and lists its files [H8]", async () => {
  using directory = makeDirectory();
  const path = directory.path("snapshots");
  const events: HostEvent[] = [];
  await using logDB = new SqliteLogDB(directory.path("log.db"));
  await using snapshots = new FileSnapshotStore(path);
  await using host = new NodeHost({
    logDB,
    snapshots,
    onEvent: (event) => events.push(event),
  });
  const replica = await host.startCluster(() => new KVStateMachine(), CLUSTER);
  await replica.propose(kv.put("boat", "sampan"));
  await replica.requestSnapshot();
  assertEquals(snapshots.list(1n).length, 1);
  Deno.removeSync(path, { recursive: true });
  assertEquals(snapshots.list(1n), []);
  await replica.propose(kv.put("boat", "junk"));
  await replica.requestSnapshot();
  assertEquals(snapshots.list(1n).length, 1);
  await using other = new FileSnapshotStore(path);
  await assertRejects(async () => await other.list(1n));
  // One that is removed alone is not listed once that is known.
  const [info] = snapshots.list(1n);
  for (const { name } of Deno.readDirSync(path)) {
    if (name !== "lock") Deno.removeSync(`${path}/${name}`);
  }
  await assertRejects(async () => await snapshots.open(info!));
  assertEquals(snapshots.list(1n), []);
});

Deno.test("case A16: a directory of files that is removed while in use is created again", async () => {
  using directory = makeDirectory();
  const path = directory.path("files");
  await using files = new DirectoryFileStore(path);
  const put = async (name: string): Promise<void> => {
    const writer = files.create(name).getWriter();
    await writer.write(new Uint8Array([1]));
    await writer.close();
  };
  await put("one");
  Deno.removeSync(path, { recursive: true });
  await put("two");
  assertEquals(files.list(""), ["two"]);
});

/** Leaves a log as a killed process does, with a WAL, some of it in the database already. */
async function kill(path: string, copy: string): Promise<void> {
  await using logDB = new SqliteLogDB(path);
  const log = await logDB.open(1n, 1n);
  for (let i = 0; i < 60; i++) {
    await log.append(packRecords(new Uint8Array(100_000).fill(i)));
  }
  Deno.copyFileSync(path, copy);
  Deno.copyFileSync(`${path}-wal`, `${copy}-wal`);
}

Deno.test("case A17: a start on a log whose database is too short for its WAL fails, wherever it was truncated [H8]", async () => {
  using directory = makeDirectory();
  const whole = directory.path("whole.db");
  await kill(directory.path("log.db"), whole);
  const { size } = Deno.statSync(whole);
  assert(size > 1_000_000);
  const cuts = [0, 1, 100, 4096, 8192, size / 2, size - 4096, size - 1];
  for (const [i, at] of cuts.entries()) {
    const path = directory.path(`${i}.db`);
    Deno.copyFileSync(whole, path);
    Deno.copyFileSync(`${whole}-wal`, `${path}-wal`);
    Deno.truncateSync(path, Math.floor(at));
    const events: HostEvent[] = [];
    await using logDB = new SqliteLogDB(path);
    await using host = new NodeHost({
      logDB,
      onEvent: (event) => events.push(event),
    });
    const error = await assertRejects(
      () => host.startCluster(() => new KVStateMachine(), CLUSTER),
      ErrStoreCorrupted,
      undefined,
      `Cut off at ${at} of ${size}`,
    );
    assert(error.message.includes(path), error.message);
    assert(events.length <= 1, `${events.length} events`);
  }
  // Nothing is missing from the whole one.
  await using store = new SqliteBlockStore(whole, { durability: "full" });
  assertEquals(store.keys("log/", "log0").length, 61);
});

Deno.test("case A16: an on-disk machine and an outbox report changes of their databases by another program, and lose nothing silently [D14, R5]", async () => {
  using directory = makeDirectory();
  const path = directory.path("state.db");
  const failed: unknown[] = [];
  await using logDB = new SqliteLogDB(directory.path("log.db"));
  await using outbox = new SqliteOutbox(directory.path("outbox.db"));
  await using host = new NodeHost({
    logDB,
    outbox,
    onEvent: (event) => {
      if (event.type === "failed") failed.push(event.error);
    },
  });
  const replica = await host.startOnDiskCluster(
    () => new SqliteKVStateMachine(path),
    CLUSTER,
  );
  const { result } = await replica.submit(kv.put("boat", "sampan"));
  await result;
  Deno.removeSync(directory.path("outbox.db"));
  await assertRejects(
    async () => {
      for (let i = 0; i < 1_000; i++) await replica.submit(kv.put("boat", "a"));
    },
    ErrStoreCorrupted,
  );
  Deno.truncateSync(path, 0);
  // The machine keeps updates in memory for a while: its store is looked at all
  // the same, every second.
  await assertRejects(async () => {
    for (let i = 0; i < 100_000; i++) {
      await replica.propose(kv.put("boat", "b"));
    }
  });
  assertInstanceOf(failed[0], ErrStoreCorrupted);
  assertEquals(failed.length, 1);
});

Deno.test("case A16: a database that is truncated right before a checkpoint is not mistaken for one that the checkpoint has written [H8, D14]", async () => {
  using directory = makeDirectory();
  const path = directory.path("state.db");
  const store = new SqliteBlockStore(path);
  // More than is left in the WAL: each write is followed by a checkpoint.
  const block = new Uint8Array(5 * 1024 * 1024).fill(1);
  const write = (): void =>
    store.write({ put: [{ key: "b", bytes: block }] }, "relaxed");
  write();
  const { now } = performance;
  const frozen = performance.now();
  // No write looks at the files: that is a matter of time.
  performance.now = () => frozen;
  try {
    write();
    Deno.truncateSync(path, 0);
    assertThrows(() => {
      write();
      write();
    }, ErrStoreCorrupted);
  } finally {
    performance.now = now;
    await store.close();
  }
});
