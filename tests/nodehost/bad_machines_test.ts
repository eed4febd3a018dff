/**
 * Wrong machines, hooks and configurations: each is reported with an error that
 * describes it, and none costs a state or a process.
 *
 * @module
 */

import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import { toBytes, toText } from "@std/streams";
import {
  ErrClusterClosed,
  ErrSnapshotAborted,
  ErrSnapshotFile,
  ErrSnapshotStopped,
  ErrSnapshotStreaming,
  ErrSnapshotUnfinished,
  ErrStateMismatch,
  ErrStoreFull,
  ErrSystemBusy,
  type HostEvent,
  type ISnapshotFileCollection,
  MemoryFileStore,
  MemoryLogDB,
  MemoryOutbox,
  MemorySnapshotStore,
  NodeHost,
  type Replica,
  type Result,
} from "../../mod.ts";
import { HOST_DIRECTORY } from "../../src/snapshot/file_store.ts";
import { MACHINE_SLOW_MS } from "../../src/limits.ts";
import { isDifferent } from "../../src/divergence/mod.ts";
import { SnapshotWriter } from "../../src/snapshot/writer.ts";
import { bytes } from "../support/bytes.ts";
import {
  checked,
  ManualEnv,
  rejection,
  settle,
} from "../support/environment.ts";
import {
  ConcurrentJournal,
  Disk,
  HostedDiskJournal,
  type Journal,
  RegularJournal,
} from "../machines/journal.ts";
import {
  firstIndex,
  hostOf,
  listOf,
  proposeAll,
  start,
  type Started,
  startOn,
  typesOf,
} from "../support/clusters.ts";

/** Machine that saves its state with the given function. */
class Saver extends RegularJournal {
  readonly #save: (w: WritableStream<Uint8Array>, state: Uint8Array) => unknown;
  constructor(
    save: (w: WritableStream<Uint8Array>, state: Uint8Array) => unknown,
  ) {
    super({}, 1n, 1n);
    this.#save = save;
  }
  override async saveSnapshot(w: WritableStream<Uint8Array>): Promise<void> {
    await this.#save(w, bytes(JSON.stringify(this.list)));
  }
}

async function startSaver(
  logDB: MemoryLogDB,
  save: (w: WritableStream<Uint8Array>, state: Uint8Array) => unknown,
): Promise<Omit<Started, "machines">> {
  const events: HostEvent[] = [];
  const host = hostOf({ logDB }, events);
  const replica = await host.startCluster(() => new Saver(save), {
    clusterID: 1n,
    nodeID: 1n,
  });
  return { host, replica, events };
}

/** Creates a stream whose bytes arrive once `start` is called. */
function slow(
  state: Uint8Array,
): [source: ReadableStream<Uint8Array>, start: () => void] {
  const { promise, resolve } = Promise.withResolvers<void>();
  const source = new ReadableStream<Uint8Array>({
    async pull(controller): Promise<void> {
      await promise;
      controller.enqueue(state);
      controller.close();
    },
  }, { highWaterMark: 0 });
  return [source, resolve];
}

Deno.test(
  "case C1: a pipeTo() that saveSnapshot() does not await loses no state [H16, R6]",
  checked(async () => {
    await using logDB = new MemoryLogDB();
    const starts: (() => void)[] = [];
    const { host, replica, events } = await startSaver(logDB, (w, state) => {
      const [source, start] = slow(state);
      starts.push(start);
      void source.pipeTo(w);
    });
    for (const command of ["a", "b", "c"]) {
      await proposeAll(replica, command);
      const error = await rejection(replica.requestSnapshot());
      assertInstanceOf(error, ErrSnapshotUnfinished);
      assert(error.message.includes("await the pipeTo()"), error.message);
    }
    for (const start of starts) start();
    await settle(10);
    assertEquals(logDB.snapshots.list(1n), []);
    assertEquals(typesOf(events), [
      "snapshot failed",
      "snapshot failed",
      "snapshot failed",
    ]);
    await host.stop();

    const again = await startSaver(logDB, () => {});
    assertEquals(await listOf(again.replica), ["a", "b", "c"]);
    await again.host.stop();
  }),
);

Deno.test(
  "case C1: a snapshot written to after it was taken is removed, and the log is not compacted because of it [H16]",
  checked(async () => {
    await using logDB = new MemoryLogDB();
    const late: (() => void)[] = [];
    const { host, replica, events } = await startSaver(
      logDB,
      (w, state) => {
        late.push(() => void slow(state)[0].pipeTo(w));
        late.push(() => void w.getWriter().write(state));
      },
    );
    await proposeAll(replica, "a");
    await replica.requestSnapshot();
    assertEquals(logDB.snapshots.list(1n).length, 1);
    late[1]!();
    await settle(10);
    assertEquals(logDB.snapshots.list(1n), []);
    await proposeAll(replica, "b");
    await replica.requestSnapshot();
    await settle(10);
    // The removed one does not count: with one good snapshot, nothing is compacted.
    assertEquals(typesOf(events), [
      "snapshot",
      "snapshot failed",
      "snapshot",
    ]);
    assertEquals(await firstIndex(logDB), 1);
    await host.stop();
  }),
);

/** Machine that recovers without the last command, like code that is older than the snapshot. */
class LosesLastCommand extends RegularJournal {
  override async readAll(r: ReadableStream<Uint8Array>): Promise<string[]> {
    return (await super.readAll(r)).slice(0, -1);
  }
}

class ForgetfulDisk extends HostedDiskJournal {
  override async readAll(r: ReadableStream<Uint8Array>): Promise<string[]> {
    return (await super.readAll(r)).slice(0, -1);
  }
}

/** Machine with state version 1: commands in upper case. */
class UpperCase extends RegularJournal {
  readonly stateVersion: number = 1;
  recovered: bigint | undefined;
  override async readAll(r: ReadableStream<Uint8Array>): Promise<string[]> {
    const list = await super.readAll(r);
    this.list = list;
    this.recovered = this.hash();
    return list.map((command) => command.toUpperCase());
  }
}

class Migrating extends UpperCase {
  getRecoveredHash(): bigint | undefined {
    return this.recovered;
  }
}

const CONFIG = { clusterID: 1n, nodeID: 1n };

/** Compacts the log up to a snapshot of "a" to "d" in another store. */
async function compactLog(
  logDB: MemoryLogDB,
  snapshots: MemorySnapshotStore,
): Promise<void> {
  const { host, replica } = await start({ logDB, snapshots });
  for (const pair of [["a", "b"], ["c", "d"]]) {
    await proposeAll(replica, ...pair);
    await replica.requestSnapshot();
  }
  await host.stop();
}

Deno.test(
  "case C2: a machine that ignores a part of a snapshot is not started, and the snapshot stays [H16]",
  checked(async () => {
    await using logDB = new MemoryLogDB();
    await using snapshots = new MemorySnapshotStore();
    await compactLog(logDB, snapshots);
    const before = snapshots.list(1n).map(({ id }) => id);
    const wrong = hostOf({ logDB, snapshots });
    const error = await rejection(
      wrong.startCluster(() => new LosesLastCommand({}, 1n, 1n), CONFIG),
    );
    assertInstanceOf(error, ErrStateMismatch);
    assert(error.saved !== error.recovered);
    assertEquals(snapshots.list(1n).map(({ id }) => id), before);
    await wrong.stop();

    const right = await start({ logDB, snapshots });
    assertEquals(await listOf(right.replica), ["a", "b", "c", "d"]);
    await right.host.stop();
  }),
);

Deno.test(
  "case C2: an on-disk machine with the state of a wrong recovery is recovered again, and refused again [H16, D11]",
  checked(async () => {
    await using logDB = new MemoryLogDB();
    await using snapshots = new MemorySnapshotStore();
    await compactLog(logDB, snapshots);
    const disk = new Disk();
    for (let i = 0; i < 2; i++) {
      const wrong = hostOf({ logDB, snapshots });
      const error = await rejection(
        wrong.startOnDiskCluster(
          () => new ForgetfulDisk(disk, {}, 1n, 1n),
          CONFIG,
        ),
      );
      assertInstanceOf(error, ErrStateMismatch);
      await wrong.stop();
    }
    assertEquals(snapshots.list(1n).length, 2);
    // The right code recovers all of it, although the machine has that index already.
    const right = await start({ logDB, snapshots, kind: "hosted", disk });
    assertEquals(await listOf(right.replica), ["a", "b", "c", "d"]);
    await right.host.stop();
  }),
);

Deno.test(
  "H16 a machine that migrates in its recovery is compared by the hash of the state it recovered; states of different versions are not compared",
  checked(async () => {
    await using logDB = new MemoryLogDB();
    await using snapshots = new MemorySnapshotStore();
    await compactLog(logDB, snapshots);
    for (const Machine of [UpperCase, Migrating]) {
      const host = hostOf({ logDB, snapshots });
      const replica = await host.startCluster(
        () => new Machine({}, 1n, 1n),
        CONFIG,
      );
      assertEquals(await listOf(replica), ["A", "B", "C", "D"]);
      await host.stop();
    }
    const host = hostOf({ logDB, snapshots });
    class Losing extends Migrating {
      override async readAll(r: ReadableStream<Uint8Array>): Promise<string[]> {
        const list = (await super.readAll(r)).slice(1);
        this.recovered = this.recovered! ^ 1n;
        return list;
      }
    }
    const error = await rejection(
      host.startCluster(() => new Losing({}, 1n, 1n), CONFIG),
    );
    assertInstanceOf(error, ErrStateMismatch);
    await host.stop();
  }),
);

Deno.test(
  "H16 checkpoints have the state version, and those of different versions are not compared",
  checked(async () => {
    const one = { index: 3, state: 1n, sessions: 0n };
    assert(isDifferent(one, { ...one, state: 2n }));
    assert(isDifferent(one, { ...one, state: 2n, stateVersion: 0 }));
    assert(!isDifferent(one, { ...one, state: 2n, stateVersion: 1 }));
    await using logDB = new MemoryLogDB();
    const host = hostOf({ logDB });
    const replica = await host.startCluster(() => new UpperCase({}, 1n, 1n), {
      ...CONFIG,
      hashEntries: 2,
    });
    const seen: (number | undefined)[] = [];
    const log = logDB.open(1n, 7n);
    log.checkpoints!.watch(
      7n,
      ({ stateVersion }) => void seen.push(stateVersion),
    );
    await proposeAll(replica, "a", "b", "c");
    assertEquals(seen, [1, 1]);
    await log.close();
    await host.stop();
  }),
);

Deno.test(
  "case C14: a machine's own files survive a recovery, and names of the host are refused [F4]",
  checked(async () => {
    await using logDB = new MemoryLogDB();
    await using files = new MemoryFileStore();
    const put = async (path: string): Promise<void> => {
      const writer = files.create(path).getWriter();
      await writer.write(bytes(path));
      await writer.close();
    };
    const own = ["snapshots/1-1/2/7", "replays/1-1/2/7"];
    for (const path of own) await put(path);
    await put(`${HOST_DIRECTORY}/mine`);
    let added = [[7n, own[0]!], [8n, own[1]!]] as [bigint, string][];
    const options = {
      logDB,
      files,
      faults: {
        addFiles: (collection: ISnapshotFileCollection): void => {
          for (const [id, path] of added) {
            collection.addFile(id, path, new Uint8Array());
          }
        },
      },
    };
    const { host, replica } = await start(options);
    await proposeAll(replica, "a");
    await replica.requestSnapshot();
    for (
      const path of [HOST_DIRECTORY, `/${HOST_DIRECTORY}/mine`, "Sampan-Host/x"]
    ) {
      added = [[7n, path]];
      const error = await rejection(replica.requestSnapshot());
      assertInstanceOf(error, ErrSnapshotFile);
      assertEquals([error.fileID, error.path], [7n, path]);
    }
    await host.stop();
    const again = await start(options);
    assertEquals(again.machines.at(-1)!.files.map(({ fileID }) => fileID), [
      7n,
      8n,
    ]);
    for (const path of own) {
      const { content } = files.open(path);
      assertEquals(await toText(content), path);
    }
    await again.host.stop();
  }),
);

/** True if nothing was written to the log of cluster 9. */
async function isUntouched(logDB: MemoryLogDB): Promise<boolean> {
  const log = logDB.open(9n, 7n);
  try {
    return await log.isEmpty();
  } finally {
    await log.close();
  }
}

// deno-lint-ignore no-explicit-any
const wrong = (value: unknown): any => value;

Deno.test(
  "case C6: a compression that does not exist is refused at the start, and no rejection is left unhandled [H21, R14]",
  checked(async () => {
    await using host = hostOf({});
    const error = await rejection(
      host.startCluster(() => new RegularJournal({}, 1n, 1n), {
        ...CONFIG,
        compression: wrong("zstd"),
      }),
    );
    assertInstanceOf(error, TypeError);
    assertEquals(
      error.message,
      'compression is "zstd"; give "none", "gzip" or "deflate-raw"',
    );
    // Nor by the writer itself, whose stream has begun before.
    const header = {
      ...CONFIG,
      type: 1,
      kind: "full",
      index: 1,
      compression: "zstd",
    } as const;
    const sink = new WritableStream<Uint8Array>({
      write: () => Promise.reject(new Error("Lost")),
    });
    assertThrows(() =>
      new SnapshotWriter(sink, wrong(header), new Uint8Array())
    );
    await settle();
  }),
);

Deno.test(
  "case C9: a stop during an open() that ignores its signal opens no second machine, and closes the first [D2, H10]",
  checked(async () => {
    for (const kind of ["disk", "hosted"] as const) {
      await using logDB = new MemoryLogDB();
      await using snapshots = new MemorySnapshotStore();
      await compactLog(logDB, snapshots);
      const gate = Promise.withResolvers<void>();
      const machines: Journal[] = [];
      const host = hostOf({ logDB, snapshots });
      const starting = startOn(host, {
        kind,
        faults: {
          before: (method) => method === "open" ? gate.promise : undefined,
        },
      }, machines);
      const refused = rejection(starting);
      await settle();
      const stopping = host.stop();
      await settle();
      gate.resolve();
      await stopping;
      assertInstanceOf(await refused, ErrClusterClosed);
      await settle();
      assertEquals(machines.map(({ calls }) => calls), [["open", "close"]]);
    }
  }),
);

Deno.test(
  "case C10: a library error thrown by a machine is fatal where any error is, and reaches the caller unchanged [R5, R8]",
  checked(async () => {
    for (
      const [kind, method, error] of [
        ["concurrent", "prepareSnapshot", new ErrSystemBusy("Mine")],
        ["concurrent", "prepareSnapshot", new ErrStoreFull("Mine")],
        ["disk", "sync", new ErrSystemBusy("Mine")],
        ["regular", "saveSnapshot", new ErrSystemBusy("Mine")],
      ] as const
    ) {
      const { host, replica, events } = await start({
        kind,
        faults: {
          before: (called) => {
            if (called === method) throw error;
          },
        },
      });
      await proposeAll(replica, "a");
      assertStrictEquals(await rejection(replica.requestSnapshot()), error);
      await settle();
      assertStrictEquals(replica.error, error, `${kind} ${method}`);
      assertEquals(events.at(-1)!.type, "failed");
      await host.stop();
    }
  }),
);

Deno.test(
  "case C10: an ErrSnapshotStopped without a stop reaches the receiver of an export as ErrSnapshotAborted [R8]",
  checked(async () => {
    const { host, replica } = await start({
      kind: "concurrent",
      faults: {
        before: (called) => {
          if (called === "saveSnapshot") throw new ErrSnapshotStopped();
        },
      },
    });
    await proposeAll(replica, "a");
    assertInstanceOf(
      await rejection(toBytes(replica.exportSnapshot())),
      ErrSnapshotAborted,
    );
    assertEquals(replica.error, undefined);
    await host.stop();
  }),
);

Deno.test(
  "case C10: any value a machine throws is passed on, also undefined and null [R5, H21]",
  checked(async () => {
    for (const thrown of [undefined, null, "text", 7]) {
      for (
        const [kind, method] of [
          ["regular", "update"],
          ["concurrent", "update"],
          ["regular", "saveSnapshot"],
          ["concurrent", "prepareSnapshot"],
          ["hosted", "sync"],
        ] as const
      ) {
        const { host, replica, events } = await start({
          kind,
          faults: {
            before: (called) => {
              if (called === method) throw thrown;
            },
          },
        });
        const proposed = replica.propose(bytes("a"));
        const error = method === "update"
          ? await rejection(proposed)
          : await proposed.then(() => rejection(replica.requestSnapshot()));
        await settle();
        assertStrictEquals(replica.error, error);
        const failed = events.find(({ type }) => type === "failed");
        assertStrictEquals((failed as { error?: unknown }).error, error);
        if (thrown === undefined || thrown === null) {
          assertInstanceOf(error, TypeError);
          assertEquals(error.message, `Machine threw ${thrown}, not an error`);
        } else assertEquals(error, thrown);
        assertInstanceOf(
          await rejection(replica.propose(bytes("b"))),
          ErrClusterClosed,
        );
        await host.stop();
      }
    }
  }),
);

Deno.test(
  "case C10: an async onEvent that throws leaves no rejection unhandled [H21]",
  checked(async () => {
    let told = 0;
    const host = new NodeHost({
      // deno-lint-ignore require-await
      onEvent: async () => {
        told++;
        throw new Error("Mine");
      },
    });
    const replica = await host.startCluster(
      () => new RegularJournal({}, 1n, 1n),
      CONFIG,
    );
    await proposeAll(replica, "a");
    await replica.requestSnapshot();
    await settle();
    assert(told > 0);
    await host.stop();
  }),
);

Deno.test(
  "case C10: async listeners of a watch and of pending submissions that throw leave no rejection unhandled [H21]",
  checked(async () => {
    const outbox = new MemoryOutbox();
    const { host, replica } = await start({ outbox });
    let told = 0;
    // deno-lint-ignore require-await
    const wrongly = async (): Promise<void> => {
      told++;
      throw new Error("Mine");
    };
    const ends = [
      replica.onPending(wrongly),
      replica.watch("count").subscribe(wrongly),
    ];
    await (await replica.submit(bytes("a"))).result;
    await settle();
    assert(told >= 2, `${told}`);
    for (const end of ends) end();
    await host.stop();
    await outbox.close();
  }),
);

Deno.test(
  "case C8: a lost receiver of an export fails the machine's writes with ErrSnapshotStreaming [D9]",
  checked(async () => {
    for (const kind of ["concurrent", "hosted"] as const) {
      const errors: unknown[] = [];
      const telling = async (
        write: Promise<void>,
      ): Promise<void> => {
        try {
          await write;
        } catch (error) {
          errors.push(error);
          throw error;
        }
      };
      class Telling extends ConcurrentJournal {
        override write(
          w: WritableStream<Uint8Array>,
          list: readonly string[],
        ): Promise<void> {
          return telling(super.write(w, list));
        }
      }
      class TellingDisk extends HostedDiskJournal {
        override write(
          w: WritableStream<Uint8Array>,
          list: readonly string[],
        ): Promise<void> {
          return telling(super.write(w, list));
        }
      }
      const faults = { filling: 2_000_000 };
      const host = hostOf({});
      const replica = kind === "concurrent"
        ? await host.startConcurrentCluster(
          () => new Telling(faults, 1n, 1n),
          CONFIG,
        )
        : await host.startOnDiskCluster(
          () => new TellingDisk(new Disk(), faults, 1n, 1n),
          CONFIG,
        );
      await proposeAll(replica, "a");
      const reader = replica.exportSnapshot().getReader();
      await reader.read();
      await reader.cancel(new Error("Gone"));
      await settle(10);
      assertEquals(errors.length, 1);
      assertInstanceOf(errors[0], ErrSnapshotStreaming);
      await proposeAll(replica, "b");
      await host.stop();
    }
  }),
);

Deno.test(
  "case C7: a full disk during the recovery of a start rejects it with ErrStoreFull, without loss [U8]",
  checked(async () => {
    await using logDB = new MemoryLogDB();
    await using snapshots = new MemorySnapshotStore();
    await compactLog(logDB, snapshots);
    const full = new ErrStoreFull("Store is full (test)");
    let room = false;
    const disk = new Disk();
    const options = {
      logDB,
      snapshots,
      kind: "hosted",
      disk,
      faults: {
        before: (method: string): void => {
          if (method === "recoverFromSnapshot" && !room) throw full;
        },
      },
    } as const;
    assertStrictEquals(await rejection(start(options)), full);
    room = true;
    const { host, replica } = await start(options);
    assertEquals(await listOf(replica), ["a", "b", "c", "d"]);
    await host.stop();
  }),
);

Deno.test(
  "case C11: the machine of a factory is checked before anything is appended [R14]",
  checked(async () => {
    await using logDB = new MemoryLogDB();
    const host = hostOf({ logDB });
    const config = { clusterID: 9n, nodeID: 1n };
    const regular = new RegularJournal({}, 1n, 1n);
    const concurrent = new ConcurrentJournal({}, 1n, 1n);
    const disk = new HostedDiskJournal(new Disk(), {}, 1n, 1n);
    const without = (method: string): unknown => {
      const machine = new RegularJournal({}, 1n, 1n);
      Object.defineProperty(machine, method, { value: undefined });
      return machine;
    };
    const startings: [unknown, string, (create: never) => Promise<unknown>][] =
      [];
    const add = (
      made: unknown,
      words: string,
      type: "" | "Concurrent" | "OnDisk" = "",
    ): void => {
      startings.push([
        () => made,
        words,
        (create) => host[`start${type}Cluster`](create, config),
      ]);
    };
    add(undefined, "undefined");
    add(Promise.resolve(regular), "a promise");
    add(RegularJournal, "a function or class");
    add(concurrent, "startConcurrentCluster()");
    add(disk, "startOnDiskCluster()");
    add(regular, "prepareSnapshot", "Concurrent");
    add(disk, "startOnDiskCluster()", "Concurrent");
    add(concurrent, "ConcurrentJournal.open()", "OnDisk");
    for (
      const method of [
        "update",
        "lookup",
        "saveSnapshot",
        "recoverFromSnapshot",
        "close",
      ]
    ) add(without(method), `RegularJournal.${method}() is missing`);
    for (const [create, words, starting] of startings) {
      const error = await rejection(starting(create as never));
      assertInstanceOf(error, TypeError);
      assert(error.message.includes(words), error.message);
    }
    for (const create of [RegularJournal, regular, undefined]) {
      const error = await rejection(host.startCluster(wrong(create), config));
      assertInstanceOf(error, TypeError);
      assert(error.message.includes("() => new"), error.message);
    }
    assert(await isUntouched(logDB));
    await host.stop();
  }),
);

Deno.test(
  "case C11: an update() that awaits its own replica is reported after a while [H21]",
  checked(async () => {
    const env = new ManualEnv();
    const events: HostEvent[] = [];
    const host = new NodeHost({
      env,
      stopTimeoutMs: 100,
      onEvent: (event) => void events.push(event),
    });
    const own: { replica?: Replica } = {};
    class Waiting extends RegularJournal {
      override async update(cmd: Uint8Array): Promise<Result> {
        if (own.replica !== undefined) await own.replica.read(null);
        return this.apply(cmd);
      }
    }
    own.replica = await host.startCluster(
      () => new Waiting({}, 1n, 1n),
      CONFIG,
    );
    const proposed = rejection(own.replica.propose(bytes("a")));
    await settle();
    assertEquals(events, []);
    await env.advance(MACHINE_SLOW_MS);
    await settle();
    assertEquals(events, [{
      ...CONFIG,
      type: "slow",
      calls: ["update"],
      waitedMs: MACHINE_SLOW_MS,
    }]);
    const stopping = host.stop();
    await settle();
    await env.advance(100);
    await settle();
    await env.advance(100);
    await stopping;
    assertInstanceOf(await proposed, ErrClusterClosed);
  }),
);

Deno.test(
  "case C12: every option of a replica and of a host is checked, with an error that describes it [R14, H11]",
  checked(async () => {
    await using host = new NodeHost();
    const create = (): RegularJournal => new RegularJournal({}, 1n, 1n);
    for (
      const [config, name, words] of [
        [{ clusterID: 1 }, TypeError, "clusterID is a number; write 1n"],
        [{ nodeID: "1" }, TypeError, 'nodeID is "1"; give a bigint'],
        [{ nodeID: 0n }, RangeError, "nodeID is 0, outside of 1…2^64-1"],
        [{ trustedNode: 2 }, TypeError, "trustedNode is a number; write 2n"],
        [{ snapshotEntries: "10" }, TypeError, 'snapshotEntries is "10"; give'],
        [{ snapshotEntries: -1 }, RangeError, "snapshotEntries is -1"],
        [{ compactionOverhead: NaN }, RangeError, "compactionOverhead is NaN"],
        [{ fullSnapshotInterval: 1n }, TypeError, "fullSnapshotInterval is 1n"],
        [{ hashEntries: null }, TypeError, "hashEntries is null"],
        [{ sessionsMax: 0 }, RangeError, "sessionsMax is 0"],
        [{ replayMachine: {} }, TypeError, "replayMachine is an object"],
        [
          { pendingProposalsMax: 1.5 },
          RangeError,
          "pendingProposalsMax is 1.5",
        ],
        [{ pendingBytesMax: true }, TypeError, "pendingBytesMax is true"],
        [{ compression: 0 }, TypeError, "compression is 0"],
      ] as const
    ) {
      const error = await rejection(
        host.startCluster(create, wrong({ ...CONFIG, ...config })),
      );
      assertInstanceOf(error, name as typeof TypeError);
      assert(error.message.startsWith(words), error.message);
    }
    assertInstanceOf(
      await rejection(host.startCluster(create, wrong(undefined))),
      TypeError,
    );
    for (
      const [options, words] of [
        [{ onEvent: "log" }, 'onEvent is "log"; give a function'],
        [{ stopTimeoutMs: NaN }, "stopTimeoutMs is NaN"],
        [{ stopTimeoutMs: "5" }, 'stopTimeoutMs is "5"; give a number'],
        [{ stopTimeoutMs: Infinity }, "stopTimeoutMs is Infinity"],
        [{ logDB: "./log.db" }, 'logDB is "./log.db"; give a LogDB'],
        [{ logDB: {} }, "logDB has no open(); give a LogDB"],
        [{ snapshots: {} }, "snapshots has no create()"],
        [{ files: {} }, "files has no open()"],
        [{ outbox: [] }, "outbox has no"],
        [{ env: { now: () => 0 } }, "env has no random64()"],
      ] as const
    ) {
      const error = assertThrows(() => new NodeHost(wrong(options)), Error);
      assert(error.message.startsWith(words), error.message);
    }
  }),
);
