import {
  assert,
  assertEquals,
  assertFalse,
  assertInstanceOf,
  assertNotEquals,
  assertRejects,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import { epochRecord } from "../../src/log/records.ts";
import {
  ErrSystemBusy,
  type MachineFactory,
  MachineFailure,
  readSessions,
  type RecoverOptions,
  recoverSnapshot,
  registerRecord,
  type SaveOptions,
  saveSnapshot,
  type StateMachine,
} from "../../src/rsm/mod.ts";
import {
  ErrSnapshotCorrupted,
  ErrSnapshotFile,
  MemoryFileStore,
  openSnapshot,
  type SnapshotHeader,
  type SnapshotInfo,
} from "../../src/snapshot/mod.ts";
import {
  ErrNotImplemented,
  ErrSnapshotAborted,
  ErrSnapshotStopped,
  ErrSnapshotStreaming,
  type ISnapshotFileCollection,
  type SnapshotFile,
} from "../../src/statemachine/mod.ts";
import { concat } from "../support/bytes.ts";
import { source } from "../snapshot/container_fixtures.ts";
import {
  Disk,
  DiskMachine,
  HostDiskMachine,
} from "../machines/hash_chain_on_disk.ts";
import {
  batchesOf,
  makeStateMachine,
  place,
  proposal,
  randomLog,
  sessionProposal,
} from "../support/log_records.ts";
import { Concurrent, read, Regular, write } from "../machines/hash_chain.ts";
import { seeded } from "../support/random.ts";
import { ticks, turn } from "../support/turns.ts";

const never = new AbortController().signal;
const HEADER: SaveOptions["header"] = {
  clusterID: 7n,
  nodeID: 1n,
  kind: "full",
  compression: "none",
};

/** A snapshot that was taken, its container in memory. */
interface SavedSnapshot {
  readonly info: SnapshotInfo;
  readonly bytes: Uint8Array;
}

/** A sink in memory. */
function sink(): {
  writable: WritableStream<Uint8Array>;
  parts: Uint8Array[];
  state: { closed: boolean; aborted: unknown };
} {
  const parts: Uint8Array[] = [];
  const state = { closed: false, aborted: undefined as unknown };
  const writable = new WritableStream<Uint8Array>({
    write: (chunk) => void parts.push(chunk.slice()),
    close: () => void (state.closed = true),
    abort: (reason) => void (state.aborted = reason),
  });
  return { writable, parts, state };
}

async function save<L>(
  stateMachine: StateMachine<L>,
  options: Partial<SaveOptions> = {},
): Promise<SavedSnapshot> {
  const { writable, parts, state } = sink();
  let header: SnapshotHeader | undefined;
  const totals = await saveSnapshot(stateMachine, {
    header: HEADER,
    create: (one) => {
      header = one;
      return writable;
    },
    files: new MemoryFileStore(),
    signal: never,
    ...options,
  });
  assert(state.closed, "Sink was not closed");
  const bytes = concat(parts);
  const info = {
    ...header!,
    ...totals,
    id: "1",
    size: bytes.length,
    imported: false,
  };
  return { info, bytes };
}

async function recover<L>(
  stateMachine: StateMachine<L>,
  { info, bytes }: SavedSnapshot,
  options: Partial<RecoverOptions> = {},
): Promise<void> {
  await recoverSnapshot(stateMachine, {
    info,
    open: () => source(bytes, 50),
    files: new MemoryFileStore(),
    directory: "in",
    signal: never,
    ...options,
  });
}

const SESSION = [
  epochRecord(3n),
  registerRecord(9n, new Uint8Array([1])),
  sessionProposal(2, 1, 0, new Uint8Array([1, 2, 3])),
  proposal(1, new Uint8Array([4])),
];

/** A stateMachine that has applied a few records. */
function driven<M extends Regular | Concurrent | DiskMachine>(
  machine: M,
  type: 1 | 2 | 3,
): { machine: M; stateMachine: StateMachine<string> } {
  const create = (): never => machine as never;
  const { stateMachine } = makeStateMachine({ type, create } as MachineFactory);
  assertStrictEquals(stateMachine.apply(batchesOf(place(SESSION))), undefined);
  return { machine, stateMachine };
}

Deno.test("R9 C6 recoverSnapshot() restores what saveSnapshot() saved, also between kinds of machine", async () => {
  for (const compression of ["none", "gzip"] as const) {
    for (
      const from of [
        driven(new Regular(), 1),
        driven(new Concurrent(), 2),
      ]
    ) {
      const taken = await save(from.stateMachine, {
        header: { ...HEADER, compression },
      });
      assertEquals(taken.info.index, 4);
      assertEquals(taken.info.epoch, { index: 1, id: 3n });
      assertEquals(taken.info.type, from.stateMachine.machine.type);
      const disk = new Disk();
      for (
        const [type, machine] of [
          [1, new Regular()],
          [2, new Concurrent()],
          [3, new HostDiskMachine(disk)],
        ] as const
      ) {
        const factory = { type, create: () => machine } as MachineFactory;
        const { stateMachine, listener } = makeStateMachine(factory);
        await stateMachine.open(never);
        await recover(stateMachine, taken);
        assertEquals(stateMachine.capture(), from.stateMachine.capture());
        assertEquals(await stateMachine.lookup(null), from.machine.state);
        assertEquals(listener.applieds, [4]);
        assertFalse(stateMachine.dirty);
      }
      // What is on disk says where it is, though the payload did not (H6), and is
      // durable without another sync.
      disk.crash();
      const again = makeStateMachine({
        type: 3,
        create: () => new HostDiskMachine(disk),
      }).stateMachine;
      assertEquals(await again.open(never), 4);
      assertEquals(again.capture(), from.stateMachine.capture());
    }
  }
});

Deno.test("C4 D8 a snapshot is of one index, whatever is applied during the save", async () => {
  const dice = seeded();
  for (let round = 0; round < 30; round++) {
    const log = randomLog(dice, 60);
    const make: [1 | 2 | 3, () => Regular | Concurrent | DiskMachine][] = [
      [1, () => new Regular({ pace: "async" })],
      [2, () => new Concurrent({ pace: "async" })],
      [2, () => new Concurrent({ pace: "mixed" })],
      [3, () => new DiskMachine(new Disk(), true)],
      [3, () => new HostDiskMachine(new Disk(), true)],
    ];
    for (const [type, create] of make) {
      const factory = { type, create } as MachineFactory;
      const { stateMachine } = makeStateMachine(factory);
      await stateMachine.open(never);
      const saving: Promise<SavedSnapshot>[] = [];
      for (const batch of batchesOf(log, 0, () => dice.chance(0.3))) {
        const applying = stateMachine.apply([batch]);
        if (dice.chance(0.3)) {
          await ticks(dice.below(5));
          saving.push(save(stateMachine));
        }
        await applying;
      }
      const end = stateMachine.capture();
      for (const taken of await Promise.all(saving)) {
        const other = makeStateMachine(factory).stateMachine;
        await other.open(never);
        await recover(other, taken);
        assertEquals(other.applied, taken.info.index);
        const rest = batchesOf(
          log.filter(({ index }) => index > taken.info.index),
          taken.info.index,
        );
        await other.apply(rest);
        assertEquals(other.capture(), end, `type ${type}`);
        assertEquals(await other.lookup(null), await stateMachine.lookup(null));
      }
    }
  }
});

Deno.test("D8 two contexts without an update between them are saved as the same bytes", async () => {
  for (
    const { stateMachine } of [
      driven(new Regular(), 1),
      driven(new Concurrent(), 2),
      driven(new DiskMachine(new Disk()), 3),
      driven(new HostDiskMachine(new Disk()), 3),
    ]
  ) {
    const [one, two] = await Promise.all([
      save(stateMachine),
      save(stateMachine),
    ]);
    assertEquals(one, two);
  }
});

Deno.test("R2 no update overlaps the save of a regular machine", async () => {
  const held = Promise.withResolvers<void>();
  class Slow extends Regular {
    override async saveSnapshot(w: WritableStream<Uint8Array>): Promise<void> {
      const { state } = this;
      await held.promise;
      assertStrictEquals(this.state, state);
      await super.saveSnapshot(w);
    }
  }
  const { stateMachine, machine } = driven(new Slow(), 1);
  const saving = save(stateMachine);
  await ticks();
  const applying = stateMachine.apply(
    batchesOf(place([proposal(2, new Uint8Array(1))], 5), 4),
  );
  assert(applying instanceof Promise);
  assertEquals(machine.state.count, 2);
  held.resolve();
  assertEquals((await saving).info.index, 4);
  await applying;
  assertEquals([machine.state.count, stateMachine.applied], [3, 5]);
});

Deno.test("D10 a metadata snapshot contains index and sessions, and no state", async () => {
  const disk = new Disk();
  class Large extends DiskMachine {
    override saveSnapshot(): never {
      throw new Error("saveSnapshot() was not expected");
    }
    override prepareSnapshot(): never {
      throw new Error("saveSnapshot() was not expected");
    }
  }
  const machine = new Large(disk);
  const { stateMachine } = driven(machine, 3);
  const header = { ...HEADER, kind: "metadata" } as const;
  const { info, bytes } = await save(stateMachine, { header });
  assertEquals([info.kind, info.index, info.files], ["metadata", 4, 0]);
  assert(bytes.length < 1000);
  const { header: told, ...found } = await readSessions(source(bytes));
  assertEquals(found, stateMachine.capture());
  assertEquals(told.stateHash, undefined);
  const reader = await openSnapshot(source(bytes));
  assertEquals(await read(reader.payload), "");
  await reader.finish();
  // It is for the replica that made it, not for another.
  const other = makeStateMachine({
    type: 3,
    create: () => new DiskMachine(new Disk()),
  }).stateMachine;
  await assertRejects(
    () => recover(other, { info, bytes }),
    ErrSnapshotCorrupted,
  );
});

Deno.test("D6 D10 the index of a snapshot is durable in the machine", async () => {
  for (const kind of ["metadata", "full"] as const) {
    for (const Machine of [DiskMachine, HostDiskMachine]) {
      const disk = new Disk();
      const { stateMachine } = makeStateMachine({
        type: 3,
        create: () => new Machine(disk, true),
      });
      await stateMachine.open(never);
      const log = Array.from(
        { length: 20 },
        (_, i) => proposal(i, new Uint8Array([i])),
      );
      const saving: Promise<unknown>[] = [];
      for (const batch of batchesOf(place(log), 0, () => true)) {
        const applying = stateMachine.apply([batch]);
        await ticks(batch.first % 5);
        saving.push(saveSnapshot(stateMachine, {
          header: { ...HEADER, kind },
          create: ({ index }) => {
            const durable = disk.steps[0]!.index;
            assert(index <= durable, `Snapshot of ${index}, not ${durable}`);
            return sink().writable;
          },
          files: new MemoryFileStore(),
          signal: never,
        }));
        await applying;
      }
      await Promise.all(saving);
    }
  }
});

/** Creates a concurrent and an on-disk machine, whose contexts are tracked. */
function withContexts(): {
  stateMachine: StateMachine<string>;
  machine: Concurrent | DiskMachine;
}[] {
  return [
    driven(new Concurrent(), 2),
    driven(new DiskMachine(new Disk()), 3),
  ];
}

Deno.test("C5 a context is saved once even if its snapshot cannot be created", async () => {
  const failure = new Error("ENOSPC: no space left");
  const locked = (): WritableStream<Uint8Array> => {
    const { writable } = sink();
    writable.getWriter();
    return writable;
  };
  const failing = (): WritableStream<Uint8Array> =>
    new WritableStream({ start: (controller) => controller.error(failure) });
  const creates: [string, SaveOptions["create"], (e: unknown) => boolean][] = [
    ["create() throws", () => {
      throw failure;
    }, (e) => e === failure],
    ["create() rejects", () => Promise.reject(failure), (e) => e === failure],
    ["sink is locked", locked, (e) => e instanceof TypeError],
    ["sink is errored", failing, (e) => e === failure],
  ];
  for (const [what, create, is] of creates) {
    for (const { stateMachine, machine } of withContexts()) {
      const error = await assertRejects(() => save(stateMachine, { create }));
      assert(is(error), `${what}: ${error}`);
      assertEquals([machine.contexts.size, machine.saved], [0, 1], what);
      // The machine goes on.
      await save(stateMachine);
      assertEquals(machine.saved, 2);
    }
  }
});

Deno.test("C5 a machine that throws while it frees a dropped context does not fail", async () => {
  class Grumpy extends Concurrent {
    override saveSnapshot(context: unknown): Promise<void> {
      this.take(context);
      throw new Error("saveSnapshot() was aborted");
    }
  }
  const { stateMachine, machine } = driven(new Grumpy(), 2);
  const failure = new Error("ENOSPC: no space left");
  const error = await assertRejects(
    () => save(stateMachine, { create: () => Promise.reject(failure) }),
  );
  assertStrictEquals(error, failure);
  assertEquals(machine.saved, 1);
});

Deno.test("C5 no context is prepared for an aborted snapshot", async () => {
  const reason = new ErrSnapshotStopped();
  const signal = AbortSignal.abort(reason);
  for (const { stateMachine, machine } of withContexts()) {
    let created = 0;
    const create = (): WritableStream<Uint8Array> => {
      created++;
      return sink().writable;
    };
    for (
      const kind of stateMachine.machine.type === 3
        ? ["full", "metadata"] as const
        : ["full"] as const
    ) {
      const error = await assertRejects(
        () =>
          save(stateMachine, { header: { ...HEADER, kind }, signal, create }),
      );
      assertStrictEquals(error, reason, kind);
    }
    assertEquals([machine.contexts.size, machine.saved, created], [0, 0, 0]);
  }
  const { stateMachine } = driven(new Regular(), 1);
  const error = await assertRejects(() => save(stateMachine, { signal }));
  assertStrictEquals(error, reason);
});

Deno.test("C5 R8 an aborted snapshot ends at any point", async () => {
  for (const when of ["prepare", "create", "save", "finish"] as const) {
    for (const heeds of [true, false]) {
      const controller = new AbortController();
      const reason = new ErrSnapshotStopped();
      const at = (now: typeof when): void => {
        if (now === when) controller.abort(reason);
      };
      const signals: AbortSignal[] = [];
      class Slow extends Concurrent {
        override async prepareSnapshot(): Promise<unknown> {
          const context = await super.prepareSnapshot();
          at("prepare");
          return context;
        }
        override async saveSnapshot(
          context: unknown,
          w: WritableStream<Uint8Array>,
          _files: ISnapshotFileCollection,
          stopped: AbortSignal,
        ): Promise<void> {
          this.take(context);
          signals.push(stopped);
          if (when === "save") setTimeout(() => at("save"), 1);
          if (heeds) stopped.throwIfAborted();
          const writer = w.getWriter();
          // More than anybody takes: without the abort this never ends.
          for (let i = 0; i < 100; i++) {
            await writer.ready;
            await writer.write(new Uint8Array(50_000));
          }
          assertEquals(when, "finish");
        }
      }
      const { stateMachine, machine } = driven(new Slow(), 2);
      let aborted: unknown;
      let taken = 0;
      const writable = new WritableStream<Uint8Array>({
        async write(_chunk, { signal }): Promise<void> {
          // It takes nothing until it is told that nothing is wanted.
          if (when !== "finish" && !signal.aborted) {
            await new Promise((resolve) => {
              signal.addEventListener("abort", resolve);
            });
          }
          if (++taken === 5) at("finish");
        },
        abort: (error) => void (aborted = error),
      });
      const error = await assertRejects(() =>
        save(stateMachine, {
          signal: controller.signal,
          create: async () => {
            await ticks(2);
            at("create");
            return writable;
          },
        })
      );
      assertStrictEquals(error, reason, `${when} ${heeds}`);
      if (when === "finish") assertStrictEquals(aborted, reason);
      assertEquals([machine.contexts.size, machine.saved], [0, 1], when);
      assertEquals(signals.every(({ aborted }) => aborted), true);
      // It can be closed: nothing is under way.
      assertEquals(stateMachine.close(), undefined);
    }
  }
});

Deno.test("R10 close() waits for a save in progress", async () => {
  const held = Promise.withResolvers<void>();
  class Slow extends Concurrent {
    override async saveSnapshot(
      context: unknown,
      w: WritableStream<Uint8Array>,
    ): Promise<void> {
      await held.promise;
      assertEquals(this.closed, 0);
      await super.saveSnapshot(context, w);
    }
  }
  const { stateMachine, machine } = driven(new Slow(), 2);
  const saving = save(stateMachine);
  // The close is asked for while the context is prepared.
  const closing = stateMachine.close();
  await turn();
  assertEquals(machine.closed, 0);
  held.resolve();
  await Promise.all([saving, closing]);
  assertEquals([machine.closed, machine.saved], [1, 1]);
});

/** For machines that save or recover something else than their state. */
function hashless(): never {
  throw new ErrNotImplemented();
}

/** Saves with a machine whose `saveSnapshot()` is this one. */
async function saveWith(
  body: (
    w: WritableStream<Uint8Array>,
    files: ISnapshotFileCollection,
    stopped: AbortSignal,
  ) => Promise<void> | void,
  options: Partial<SaveOptions> = {},
): Promise<unknown[]> {
  class One extends Regular {
    override getHash = hashless;
    override async saveSnapshot(
      w: WritableStream<Uint8Array>,
      files: ISnapshotFileCollection,
      stopped: AbortSignal,
    ): Promise<void> {
      await body(w, files, stopped);
    }
  }
  class Two extends Concurrent {
    override getHash = hashless;
    override async saveSnapshot(
      context: unknown,
      w: WritableStream<Uint8Array>,
      files: ISnapshotFileCollection,
      stopped: AbortSignal,
    ): Promise<void> {
      this.take(context);
      await body(w, files, stopped);
    }
  }
  const seen: unknown[] = [];
  for (const { stateMachine } of [driven(new One(), 1), driven(new Two(), 2)]) {
    try {
      seen.push(await save(stateMachine, options));
    } catch (error) {
      seen.push(error);
    }
    // Whatever it was, nothing is left under way.
    assertEquals(
      stateMachine.apply(
        batchesOf(place([proposal(9, new Uint8Array(1))], 5), 4),
      ),
      undefined,
    );
  }
  return seen;
}

Deno.test("R6 a machine may close the stream or not, and write chunks of any size", async () => {
  const bytes = new Uint8Array(200_000).map((_, i) => i * 7);
  for (
    const body of [
      (w: WritableStream<Uint8Array>) => source(bytes, 1000).pipeTo(w),
      (w: WritableStream<Uint8Array>) => {
        const writer = w.getWriter();
        for (let at = 0; at < bytes.length; at += 70_001) {
          writer.write(bytes.subarray(at, at + 70_001));
        }
        writer.releaseLock();
      },
    ]
  ) {
    for (const taken of await saveWith(body)) {
      const reader = await openSnapshot(source((taken as SavedSnapshot).bytes));
      const found = new Uint8Array(
        await new Response(
          reader.payload as ReadableStream<Uint8Array<ArrayBuffer>>,
        ).arrayBuffer(),
      );
      assertEquals(found.length, bytes.length);
      assert(found.every((byte, i) => byte === bytes[i]));
      await reader.finish();
    }
  }
});

Deno.test("R7 ErrSnapshotAborted drops the snapshot only", async () => {
  const aborted = new ErrSnapshotAborted();
  let reasons = 0;
  const errors = await saveWith(() => {
    throw aborted;
  }, {
    create: () =>
      new WritableStream({
        abort: (reason) => {
          if (reason === aborted) reasons++;
        },
      }),
  });
  assertEquals(errors, [aborted, aborted]);
  assertEquals(reasons, 2);
});

Deno.test("R8 an error of the machine itself is fatal", async () => {
  const failure = new Error("Broken");
  for (const late of [false, true]) {
    const errors = await saveWith(async (w) => {
      if (late) await write(w, "some");
      throw failure;
    });
    for (const error of errors) {
      assertInstanceOf(error, MachineFailure);
      assertStrictEquals(error.cause, failure);
    }
  }
  // What it writes is its own doing too.
  for (
    const error of await saveWith((w) =>
      write(w as never, "x").then(() => {
        return w.getWriter().write("text" as never);
      })
    )
  ) assertInstanceOf(error, MachineFailure);
});

Deno.test("R8 ErrSnapshotStopped is not a failure, requested or not", async () => {
  const stopped = new ErrSnapshotStopped();
  assertEquals(
    await saveWith(() => {
      throw stopped;
    }),
    [stopped, stopped],
  );
});

Deno.test("R8 an error of the sink that the machine rethrows drops only the snapshot", async () => {
  const failure = new Error("Quota");
  for (const wrapped of [false, true]) {
    const errors = await saveWith(async (w) => {
      const writer = w.getWriter();
      try {
        for (let i = 0; i < 100; i++) {
          await writer.write(new Uint8Array(70_000));
        }
      } catch (cause) {
        throw wrapped ? new Error("write() failed", { cause }) : cause;
      }
    }, {
      create: () =>
        new WritableStream({
          write: (chunk) => {
            if (chunk.length > 1000) throw failure;
          },
        }),
    });
    assertEquals(errors, [failure, failure]);
  }
});

Deno.test("R8 errors of prepareSnapshot() and sync() are fatal", async () => {
  const failure = new Error("Broken");
  class NoPrepare extends Concurrent {
    override prepareSnapshot(): never {
      throw failure;
    }
  }
  class NoSync extends DiskMachine {
    override sync(): never {
      throw failure;
    }
  }
  for (
    const [stateMachine, kind] of [
      [driven(new NoPrepare(), 2).stateMachine, "full"],
      [driven(new NoSync(new Disk()), 3).stateMachine, "full"],
      [driven(new NoSync(new Disk()), 3).stateMachine, "metadata"],
    ] as const
  ) {
    const error = await assertRejects(
      () => save(stateMachine, { header: { ...HEADER, kind } }),
      MachineFailure,
    );
    assertStrictEquals(error.cause, failure);
  }
});

Deno.test("D9 a lost receiver ends only its transfer", async () => {
  const lost = new Error("ECONNRESET: connection lost");
  for (const passes of ["on", "wrapped", "nothing"]) {
    const seen: unknown[] = [];
    class Writing extends DiskMachine {
      override async saveSnapshot(
        context: unknown,
        w: WritableStream<Uint8Array>,
      ): Promise<void> {
        this.contexts.delete(context as never);
        this.saved++;
        const writer = w.getWriter();
        try {
          for (let i = 0; i < 100; i++) {
            await writer.write(new Uint8Array(70_000));
          }
        } catch (error) {
          seen.push(error);
          if (passes === "on") throw error;
          if (passes === "wrapped") throw new Error("x", { cause: error });
        }
      }
    }
    const { stateMachine, machine } = driven(new Writing(new Disk()), 3);
    const error = await assertRejects(() =>
      save(stateMachine, {
        streaming: true,
        create: () =>
          new WritableStream({
            write: (chunk) => {
              if (chunk.length > 1000) throw lost;
            },
          }),
      })
    );
    assertInstanceOf(seen[0], ErrSnapshotStreaming);
    assertFalse(error instanceof MachineFailure, `${error}`);
    assert(error instanceof ErrSnapshotStreaming || error === lost);
    assertEquals([machine.saved, machine.contexts.size], [1, 0]);
  }
});

/** A store with two files and a directory. */
async function fileStore(): Promise<MemoryFileStore> {
  const files = new MemoryFileStore();
  for (const [path, text] of [["a/one", "first"], ["b", "second"]] as const) {
    const writer = files.create(path).getWriter();
    await writer.write(new TextEncoder().encode(text));
    await writer.close();
  }
  return files;
}

Deno.test("F1 F3 files are saved into the snapshot and recovered with their metadata", async () => {
  const files = await fileStore();
  const [one, two] = await saveWith(async (w, collection) => {
    await write(w, "1 2");
    collection.addFile(5n, "b", new Uint8Array([5]));
    collection.addFile((1n << 64n) - 1n, "/a/one", new Uint8Array(0));
  }, { files }) as SavedSnapshot[];
  for (const taken of [one!, two!]) {
    assertEquals(taken.info.files, 2);
    const target = new MemoryFileStore();
    const seen: unknown[] = [];
    class Reading extends Regular {
      override async recoverFromSnapshot(
        r: ReadableStream<Uint8Array>,
        found: readonly SnapshotFile[],
      ): Promise<void> {
        for (const { fileID, filepath, metadata } of found) {
          const { content } = target.open(filepath);
          seen.push([fileID, await read(content), metadata]);
        }
        await super.recoverFromSnapshot(r);
      }
    }
    const machine = new Reading();
    const { stateMachine } = makeStateMachine({
      type: 1,
      create: () => machine,
    });
    await recover(stateMachine, taken, { files: target });
    assertEquals(seen, [
      [5n, "second", new Uint8Array([5])],
      [(1n << 64n) - 1n, "first", new Uint8Array(0)],
    ]);
    assertEquals(machine.state, { count: 1, hash: 2n });
    // What it did not copy is gone.
    assertEquals(target.list(""), []);
  }
});

Deno.test("F2 a file that cannot be read fails the snapshot with its name", async () => {
  const files = await fileStore();
  for (
    const [path, ids, swallow] of [
      ["nowhere", [1n], false],
      ["a", [1n], false],
      ["b", [1n, 1n], false],
      ["b", [1n, 1n], true],
    ] as const
  ) {
    const errors = await saveWith((_w, collection) => {
      for (const id of ids) {
        try {
          collection.addFile(id, path, new Uint8Array(0));
        } catch (error) {
          if (!swallow) throw error;
        }
      }
    }, { files });
    for (const error of errors) {
      assertInstanceOf(error, ErrSnapshotFile);
      assertEquals([error.fileID, error.path], [1n, path]);
    }
  }
  for (
    const error of await saveWith((_w, collection) => {
      collection.addFile(-1n, "b", new Uint8Array(0));
    }, { files })
  ) assertInstanceOf(error, RangeError);
});

Deno.test("F1 a file added after saveSnapshot() has returned is rejected", async () => {
  const kept: ISnapshotFileCollection[] = [];
  await saveWith((_w, collection) => {
    kept.push(collection);
  });
  assertEquals(kept.length, 2);
  for (const collection of kept) {
    assertThrows(
      () => collection.addFile(1n, "b", new Uint8Array(0)),
      ErrSnapshotFile,
      "returned already",
    );
  }
});

Deno.test("H12 after a recovery to an older index the entries after it are applied again", async () => {
  const from = driven(new DiskMachine(new Disk()), 3);
  const taken = await save(from.stateMachine);
  const more = [5, 6].map((n) => proposal(n, new Uint8Array([n])));
  from.stateMachine.apply(batchesOf(place(more, 5), 4));
  const disk = new Disk();
  disk.commit({ count: 9, hash: 9n, index: 6, rows: new Map() });
  const machine = new DiskMachine(disk);
  const { stateMachine } = makeStateMachine({ type: 3, create: () => machine });
  assertEquals(await stateMachine.open(never), 6);
  await recover(stateMachine, taken);
  assertEquals([stateMachine.applied, disk.last.index], [4, 4]);
  stateMachine.apply(batchesOf(place(more, 5), 4));
  assertEquals(machine.batches, [[5, 6]]);
  assertEquals(stateMachine.capture(), from.stateMachine.capture());
  assertEquals(machine.lookup(), from.machine.lookup());
});

/** Recovers a machine with previous state by `body` and returns the error. */
async function recoverWith(
  taken: SavedSnapshot,
  body: (
    r: ReadableStream<Uint8Array>,
    stopped: AbortSignal,
  ) => Promise<void> | void,
  options: Partial<RecoverOptions> = {},
): Promise<unknown> {
  class Reading extends Regular {
    override getHash = hashless;
    override async recoverFromSnapshot(
      r: ReadableStream<Uint8Array>,
      _files: readonly SnapshotFile[],
      stopped: AbortSignal,
    ): Promise<void> {
      await body(r, stopped);
    }
  }
  const { stateMachine } = driven(new Reading(), 1);
  const before = stateMachine.capture();
  try {
    await recover(stateMachine, taken, options);
  } catch (error) {
    assertEquals(stateMachine.capture(), before);
    // It can be closed.
    await stateMachine.close();
    return error;
  }
  assertNotEquals(stateMachine.capture(), before);
  return undefined;
}

/** A snapshot with a payload of several blocks. */
async function largeSnapshot(): Promise<SavedSnapshot> {
  const machine = new Regular();
  machine.saveSnapshot = (w) =>
    source(new Uint8Array(300_000).map((_, i) => i)).pipeTo(w);
  const { stateMachine } = makeStateMachine({ type: 1, create: () => machine });
  stateMachine.apply(batchesOf(place([...SESSION, ...SESSION])));
  return await save(stateMachine);
}

async function readSome(r: ReadableStream<Uint8Array>): Promise<void> {
  const reader = r.getReader();
  await reader.read();
  reader.releaseLock();
}

Deno.test("R9 recoverSnapshot() replaces the state of an instance that has one", async () => {
  const taken = await largeSnapshot();
  let length = 0;
  const error = await recoverWith(taken, async (r) => {
    for await (const chunk of r as unknown as AsyncIterable<Uint8Array>) {
      length += chunk.length;
    }
  });
  assertEquals([error, length], [undefined, 300_000]);
});

Deno.test("R9 H8 bytes that the machine leaves unread are verified too", async () => {
  const taken = await largeSnapshot();
  for (const body of [() => {}, readSome]) {
    assertEquals(await recoverWith(taken, body), undefined);
    for (const at of [0.5, 0.99]) {
      const bytes = taken.bytes.slice();
      bytes[Math.floor(bytes.length * at)]! ^= 1;
      assertInstanceOf(
        await recoverWith({ ...taken, bytes }, body),
        ErrSnapshotCorrupted,
      );
    }
    const bytes = taken.bytes.subarray(0, -3);
    assertInstanceOf(
      await recoverWith({ ...taken, bytes }, body),
      ErrSnapshotCorrupted,
    );
  }
});

Deno.test("H8 R8 damage and errors of the source do not fail the machine", async () => {
  const taken = await largeSnapshot();
  const bytes = taken.bytes.slice();
  bytes[Math.floor(bytes.length / 2)]! ^= 1;
  for (const wrapped of [false, true]) {
    const body = async (r: ReadableStream<Uint8Array>): Promise<void> => {
      try {
        await read(r);
      } catch (cause) {
        throw wrapped ? new Error("read() failed", { cause }) : cause;
      }
    };
    assertInstanceOf(
      await recoverWith({ ...taken, bytes }, body),
      ErrSnapshotCorrupted,
    );
    // Also one of a class that means something else here.
    for (const failure of [new Error("Disk"), new RangeError("Offset")]) {
      for (const reading of [body, (): void => {}]) {
        let pulls = 0;
        const open = (): ReadableStream<Uint8Array> =>
          new ReadableStream({
            pull: (controller) => {
              const at = pulls++ * 50_000;
              if (at > 200_000) throw failure;
              controller.enqueue(taken.bytes.slice(at, at + 50_000));
            },
          });
        assertStrictEquals(
          await recoverWith(taken, reading, { open }),
          failure,
        );
      }
    }
  }
  const failure = new Error("Store");
  const open = (): never => {
    throw failure;
  };
  assertStrictEquals(await recoverWith(taken, () => {}, { open }), failure);
});

Deno.test("R8 a failed recovery of the machine is fatal", async () => {
  const taken = await largeSnapshot();
  for (
    const failure of [
      new Error("Broken"),
      new RangeError("Broken"),
      // Unasked, it is critical here.
      new ErrSnapshotStopped(),
    ]
  ) {
    const error = await recoverWith(taken, () => {
      throw failure;
    });
    assertInstanceOf(error, MachineFailure);
    assertStrictEquals(error.cause, failure);
  }
});

Deno.test("R8 a stopped recovery is not a failure", async () => {
  const taken = await largeSnapshot();
  const reason = new ErrSnapshotStopped();
  for (const own of [true, false]) {
    const controller = new AbortController();
    const error = await recoverWith(taken, (_r, stopped) => {
      controller.abort(reason);
      if (own) throw new ErrSnapshotStopped();
      stopped.throwIfAborted();
    }, { signal: controller.signal });
    assertStrictEquals(error, reason);
  }
});

Deno.test("H9 H11 a container that differs from its description is rejected before the machine reads it", async () => {
  const taken = await largeSnapshot();
  for (
    const part of [{ clusterID: 8n }, { index: 9 }]
  ) {
    let asked = false;
    const info = { ...taken.info, ...part };
    const error = await recoverWith({ ...taken, info }, () => {
      asked = true;
    });
    assertInstanceOf(error, ErrSnapshotCorrupted);
    assertFalse(asked);
  }
});

Deno.test("H8 malformed sessions are damage, and the machine does not read the payload", async () => {
  const { stateMachine } = driven(new Regular(), 1);
  const capture = stateMachine.capture();
  stateMachine.capture = () => ({
    ...capture,
    sessions: new Uint8Array([1, 7]),
  });
  const taken = await save(stateMachine);
  let asked = false;
  const error = await recoverWith(taken, () => {
    asked = true;
  });
  assertInstanceOf(error, ErrSnapshotCorrupted);
  assertFalse(asked);
});

Deno.test("H6 C4 the state of a machine that is ahead of its sessions is not saved at their index", async () => {
  const disk = new Disk();
  const create = (): DiskMachine => new DiskMachine(disk);
  const log = place(
    Array.from({ length: 9 }, (_, i) => proposal(i, new Uint8Array([i]))),
  );
  const one = makeStateMachine({ type: 3, create }).stateMachine;
  await one.open(never);
  await one.apply(batchesOf(log));
  const { stateMachine } = makeStateMachine({ type: 3, create });
  await stateMachine.open(never);
  assert(stateMachine.behind);
  await stateMachine.apply(batchesOf(log.slice(0, 5)));
  assert(stateMachine.behind);
  await assertRejects(() => save(stateMachine), ErrSystemBusy);
  // One without state may be: it holds the sessions of its index.
  await save(stateMachine, { header: { ...HEADER, kind: "metadata" } });
  await stateMachine.apply(batchesOf(log, 5));
  assertFalse(stateMachine.behind);
  assertEquals((await save(stateMachine)).info.index, 9);
});
