import {
  assert,
  assertEquals,
  assertFalse,
  assertNotEquals,
  assertRejects,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import {
  SESSION_RESULT_BYTES_MAX,
  UPDATE_BYTES_MAX,
  UPDATE_ENTRIES_MAX,
} from "../../src/limits.ts";
import {
  ErrDiverged,
  ErrLogCorrupted,
  type LogBatch,
} from "../../src/log/mod.ts";
import { epochRecord } from "../../src/log/records.ts";
import {
  claimRecord,
  configRecord,
  ErrInvalidResult,
  ErrSystemBusy,
  type HostState,
  type MachineFactory,
  registerRecord,
  saveSnapshot,
  SessionTable,
  skipRecord,
  StateMachine,
  type StateMetadata,
  unregisterRecord,
} from "../../src/rsm/mod.ts";
import { isPromise } from "../../src/async.ts";
import { MemoryFileStore } from "../../src/snapshot/mod.ts";
import {
  type Entry,
  ErrNotImplemented,
  type MaybePromise,
  type Result,
} from "../../src/statemachine/mod.ts";
import { ErrStoreFull } from "../../src/store/mod.ts";
import {
  Disk,
  DiskMachine,
  HostDiskMachine,
} from "../machines/hash_chain_on_disk.ts";
import {
  batchesOf,
  type IndexedRecord,
  Listener,
  type ListenerCall,
  makeStateMachine,
  OWN,
  place,
  proposal,
  randomLog,
  sessionProposal,
  skip,
} from "../support/log_records.ts";
import {
  type Behavior,
  Concurrent,
  Regular,
  type State,
} from "../machines/hash_chain.ts";
import { type Random, seeded } from "../support/random.ts";
import { ticks } from "../support/turns.ts";

const none = new Uint8Array(0);
const never = new AbortController().signal;

function cmd(...bytes: number[]): Uint8Array {
  return new Uint8Array(bytes);
}

/** A stateMachine of a regular machine that has applied records from index 1 on. */
function regular(...records: Uint8Array[]): {
  machine: Regular;
  stateMachine: StateMachine<string>;
  listener: Listener;
  next: (...records: Uint8Array[]) => void;
} {
  const machine = new Regular();
  const made = makeStateMachine({ type: 1, create: () => machine });
  const next = (...records: Uint8Array[]): void => {
    const { applied } = made.stateMachine;
    const batches = batchesOf(place(records, applied + 1), applied);
    assertStrictEquals(made.stateMachine.apply(batches), undefined);
  };
  next(...records);
  return { machine, ...made, next };
}

/** The machines of every kind and pace. */
function kinds(): [string, () => [MachineFactory, Disk | undefined]][] {
  const all: [string, () => [MachineFactory, Disk | undefined]][] = [];
  for (const pace of ["sync", "async", "mixed"] as const) {
    const behavior: Behavior = { pace };
    all.push(
      [`regular ${pace}`, () => [
        { type: 1, create: () => new Regular(behavior) },
        undefined,
      ]],
      [`concurrent ${pace}`, () => [
        { type: 2, create: () => new Concurrent(behavior) },
        undefined,
      ]],
    );
  }
  for (const slow of [false, true]) {
    for (const Machine of [DiskMachine, HostDiskMachine]) {
      all.push([`${Machine.name} ${slow ? "async" : "sync"}`, () => {
        const disk = new Disk();
        const create = (): DiskMachine => new Machine(disk, slow);
        return [{ type: 3, create }, disk];
      }]);
    }
  }
  return all;
}

/** Applies a log, cut at seeded, some batches at a time. */
async function applyCut(
  stateMachine: StateMachine<string>,
  placed: readonly IndexedRecord[],
  { chance, below }: Random,
  often = chance(0.5) ? 0.5 : 0.05,
): Promise<void> {
  const batches = batchesOf(placed, stateMachine.applied, () => chance(often));
  for (let i = 0; i < batches.length;) {
    const count = 1 + below(4);
    await stateMachine.apply(batches.slice(i, i += count));
  }
}

/** The bytes of a full snapshot. */
async function snapshotOf(
  stateMachine: StateMachine<string>,
): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  await saveSnapshot(stateMachine, {
    header: { clusterID: 7n, nodeID: 1n, kind: "full", compression: "none" },
    create: () =>
      new WritableStream({ write: (chunk) => void parts.push(chunk.slice()) }),
    files: new MemoryFileStore(),
    signal: never,
  });
  return new Uint8Array(await new Blob(parts as BlobPart[]).arrayBuffer());
}

/** Decodes the session table of a captured state, results included. */
function tableOf({ sessions }: StateMetadata): SessionTable<string> {
  const table = new SessionTable<string>();
  table.decode(sessions);
  return table;
}

/** Sorts listener calls, since their order within one batch is unspecified. */
function sorted(heard: readonly ListenerCall[]): string[] {
  return heard.map((one) =>
    one.map((part) =>
      typeof part === "object" ? `${part.value} ${part.data}` : `${part}`
    ).join(" ")
  ).sort();
}

Deno.test("R1 StateMachine.apply() applies each command once, in log order", async () => {
  for (const pace of ["sync", "async", "mixed"] as const) {
    const machine = new Regular({ pace });
    const { stateMachine, listener } = makeStateMachine({
      type: 1,
      create: () => machine,
    });
    const records = Array.from(
      { length: 3000 },
      (_, i) => proposal(i, cmd(i, i >> 8)),
    );
    await stateMachine.apply(batchesOf(place(records)));
    assertEquals(
      machine.commands,
      Array.from({ length: 3000 }, (_, i) => `${cmd(i, i >> 8)}`),
    );
    assertEquals(
      listener.heard.map((one) => one[1]),
      Array.from({ length: 3000 }, (_, i) => i),
    );
    assertEquals(stateMachine.applied, 3000);
    assertEquals(listener.applieds.at(-1), 3000);
  }
});

Deno.test("R1 StateMachine.apply() is synchronous if machine and log are", () => {
  for (const [name, make] of kinds()) {
    if (!name.endsWith(" sync")) continue;
    const { stateMachine } = makeStateMachine(make()[0], 2);
    const records = Array.from({ length: 1500 }, (_, i) => proposal(i, cmd(i)));
    assertStrictEquals(
      stateMachine.apply(batchesOf(place(records))),
      undefined,
      name,
    );
    assertEquals(stateMachine.applied, 1500);
    assert(!isPromise(stateMachine.lookup(null)), name);
    assert(!isPromise(stateMachine.getHash()), name);
    assert(!isPromise(stateMachine.sync()), name);
  }
});

Deno.test("T4 StateMachine calls the factory once, with cluster and node id", () => {
  const calls: bigint[][] = [];
  makeStateMachine({
    type: 1,
    create: (...ids) => {
      calls.push(ids);
      return new Regular();
    },
  });
  assertEquals(calls, [[7n, 1n]]);
});

Deno.test("H1 StateMachine.apply() reports only proposals of its own origin", () => {
  const { machine, listener } = regular(
    proposal(5, cmd(1)),
    proposal(6, cmd(2), [OWN[0], OWN[1] ^ 1]),
    proposal(7, cmd(3), [OWN[0] + 1, OWN[1]]),
    proposal(8, cmd(4)),
  );
  assertEquals(machine.commands, ["1", "2", "3", "4"]);
  assertEquals(listener.heard.map(([what, n]) => [what, n]), [
    ["proposal", 5],
    ["proposal", 8],
  ]);
  assertEquals((listener.heard[1]![2] as Result).value, machine.state.hash);
});

Deno.test("R5 StateMachine.apply() rejects with the error of update()", async () => {
  for (const pace of ["sync", "async"] as const) {
    const failure = new Error("Broken");
    class Failing extends Regular {
      override update(bytes: Uint8Array): ReturnType<Regular["update"]> {
        if (bytes[0] !== 3) return super.update(bytes);
        if (pace === "sync") throw failure;
        return Promise.reject(failure);
      }
    }
    const machine = new Failing({ pace });
    const { stateMachine, listener } = makeStateMachine({
      type: 1,
      create: () => machine,
    });
    const records = [1, 2, 3, 4].map((n) => proposal(n, cmd(n)));
    const batches = batchesOf(place(records));
    const error = pace === "sync"
      ? assertThrows(() => stateMachine.apply(batches))
      : await assertRejects(() => stateMachine.apply(batches) as Promise<void>);
    assertStrictEquals(error, failure);
    assertEquals(machine.commands, ["1", "2"]);
    assertEquals([stateMachine.applied, listener.heard], [0, []]);
    // The machine can still be closed.
    await stateMachine.close();
    assertEquals(machine.closed, 1);
  }
});

/** Drives a concurrent machine whose `update()` is this one. */
async function updateWith(
  update: (entries: Entry[]) => Entry[] | Promise<Entry[]>,
): Promise<unknown> {
  class Wrong extends Concurrent {
    override update(entries: Entry[]): ReturnType<Concurrent["update"]> {
      return update(entries);
    }
  }
  const { stateMachine, listener } = makeStateMachine({
    type: 2,
    create: () => new Wrong(),
  });
  const records = [1, 2, 3].map((n) => proposal(n, cmd(n)));
  try {
    await stateMachine.apply(batchesOf(place(records)));
  } catch (error) {
    assertEquals([stateMachine.applied, listener.heard], [0, []]);
    return error;
  }
  return listener.heard;
}

function answer(entries: Entry[]): Entry[] {
  for (const entry of entries) entry.result = { value: 1n };
  return entries;
}

Deno.test("C1 StateMachine.apply() rejects any return value but the batch with its results", async () => {
  const wrong: [string, (entries: Entry[]) => unknown][] = [
    ["too few", (e) => answer(e).slice(1)],
    ["too few in place", (e) => (answer(e).pop(), e)],
    ["too many", (e) => [...answer(e), e[0]]],
    ["none", () => []],
    ["nothing", () => undefined],
    ["no array", (e) => new Set(answer(e))],
    ["a hole", (e) => [answer(e)[0], undefined, e[2]]],
    ["another order", (e) => answer(e).reverse()],
    ["one twice", (e) => [answer(e)[0], e[0], e[2]]],
    ["another index", (e) => answer(e).map((x) => ({ ...x, index: 9 }))],
    ["an index changed in place", (e) => {
      (answer(e)[1] as { index: number }).index = 7;
      return e;
    }],
    ["no results", (e) => e],
    ["one without a result", (e) => {
      answer(e)[2]!.result = undefined;
      return e;
    }],
    ["a number for a value", (e) => {
      answer(e)[1]!.result = { value: 1 as never };
      return e;
    }],
    ["a result that is null", (e) => {
      answer(e)[1]!.result = null as never;
      return e;
    }],
    ["data that is text", (e) => {
      answer(e)[1]!.result = { value: 1n, data: "x" as never };
      return e;
    }],
  ];
  for (const [what, update] of wrong) {
    for (const later of [false, true]) {
      const error = await updateWith((entries) =>
        later
          ? ticks(2).then(() => update(entries) as Entry[])
          : update(entries) as Entry[]
      );
      assert(error instanceof ErrInvalidResult, `${what}: ${error}`);
      assert(/Wrong\.update\(\)/.test(error.message), error.message);
    }
  }
});

Deno.test("C1 StateMachine.apply() accepts entries created by the machine", async () => {
  const heard = await updateWith((entries) => {
    const copies = entries.map(({ index, cmd }) => ({
      index,
      cmd,
      result: { value: BigInt(index) },
    }));
    entries.length = 0;
    return copies;
  });
  assertEquals(heard, [
    ["proposal", 1, { value: 1n }],
    ["proposal", 2, { value: 2n }],
    ["proposal", 3, { value: 3n }],
  ]);
});

Deno.test("T3 a value outside of 0…2^64-1 is a RangeError that names the machine", async () => {
  for (const value of [-1n, 1n << 64n]) {
    class Wide extends Regular {
      override update(): Result {
        return { value };
      }
      override getHash(): bigint {
        return value;
      }
    }
    const { stateMachine } = makeStateMachine({
      type: 1,
      create: () => new Wide(),
    });
    const batches = batchesOf(place([proposal(1, none)]));
    const error = assertThrows(() => stateMachine.apply(batches), RangeError);
    assert(/Wide\.update\(\)/.test(error.message), error.message);
    const other = makeStateMachine({
      type: 1,
      create: () => new Wide(),
    }).stateMachine;
    assert(/Wide\.getHash\(\)/.test(
      assertThrows(() => other.getHash(), RangeError).message,
    ));
    const wide = await updateWith((entries) => {
      answer(entries)[1]!.result = { value };
      return entries;
    });
    assert(wide instanceof RangeError && /Wrong\.update/.test(wide.message));
  }
  for (const value of [0n, (1n << 64n) - 1n]) {
    const heard = await updateWith((entries) => {
      answer(entries)[1]!.result = { value };
      return entries;
    }) as ListenerCall[];
    assertEquals((heard[1]![2] as Result).value, value);
  }
});

Deno.test("R5 a machine that threw within a batch is neither read nor saved: it may contain a part of the batch [H16]", async () => {
  class Half extends Regular {
    #count = 0;
    override update(cmd: Uint8Array): MaybePromise<Result> {
      if (++this.#count === 3) throw new TypeError("update() failed at call 3");
      return super.update(cmd);
    }
  }
  const { stateMachine } = makeStateMachine({
    type: 1,
    create: () => new Half(),
  });
  stateMachine.apply(batchesOf(place([proposal(1, cmd(1))])));
  const later = batchesOf(
    place([proposal(2, cmd(2)), proposal(3, cmd(3))], 2),
    1,
  );
  assertThrows(() => stateMachine.apply(later), TypeError);
  assertEquals([stateMachine.applied, stateMachine.closed], [1, true]);
  assertThrows(() => stateMachine.lookup(null), ErrSystemBusy);
  await assertRejects(
    () =>
      saveSnapshot(stateMachine, {
        header: {
          clusterID: 1n,
          nodeID: 1n,
          kind: "full",
          compression: "none",
        },
        create: () => new WritableStream(),
        files: new MemoryFileStore(),
        signal: never,
      }),
    ErrSystemBusy,
  );
  await stateMachine.close();
});

Deno.test("T2 a result belongs to the caller: a regular machine may reuse one object", () => {
  const result: Result = { value: 0n };
  class Thrifty extends Regular {
    override update(): Result {
      result.value++;
      return result;
    }
  }
  const { stateMachine, listener } = makeStateMachine({
    type: 1,
    create: () => new Thrifty(),
  });
  stateMachine.apply(
    batchesOf(place([1, 2].map((n) => proposal(n, cmd(n))))),
  );
  assertEquals(listener.heard, [
    ["proposal", 1, { value: 1n }],
    ["proposal", 2, { value: 2n }],
  ]);
});

Deno.test("E1 E2 a missing optional method is ErrNotImplemented", () => {
  const bare = new Regular() as Partial<Regular>;
  (bare as { getHash?: unknown }).getHash = undefined;
  const { stateMachine, listener } = makeStateMachine(
    { type: 1, create: () => bare as Regular },
    1,
  );
  assertThrows(() => stateMachine.getHash(), ErrNotImplemented);
  assertThrows(() => stateMachine.naLookup(none), ErrNotImplemented);
  stateMachine.apply(batchesOf(place([proposal(1, none)])));
  assertEquals(listener.checkpoints.map(({ state }) => state), [undefined]);
});

Deno.test("C7 StateMachine.apply() bounds its batches in entries and bytes", () => {
  const machine = new Concurrent();
  const { stateMachine } = makeStateMachine({ type: 2, create: () => machine });
  const many = Array.from(
    { length: 2 * UPDATE_ENTRIES_MAX + 5 },
    (_, i) => proposal(i, none),
  );
  stateMachine.apply(batchesOf(place(many), 0, () => Math.random() < 0.1));
  assertEquals(machine.batches, [UPDATE_ENTRIES_MAX, UPDATE_ENTRIES_MAX, 5]);
  machine.batches.length = 0;
  const large = Array.from(
    { length: 11 },
    (_, i) => proposal(i, new Uint8Array(UPDATE_BYTES_MAX / 4)),
  );
  stateMachine.apply(batchesOf(place(large, many.length + 1), many.length));
  assertEquals(machine.batches, [4, 4, 3]);
});

Deno.test("C7 the division of the log into batches does not show", async () => {
  const dice = seeded();
  for (let round = 0; round < 12; round++) {
    const log = randomLog(dice, 150);
    let first: unknown;
    for (const [name, make] of kinds()) {
      for (let i = 0; i < 2; i++) {
        const [factory, disk] = make();
        const { stateMachine, listener } = makeStateMachine(factory, 7);
        for (const { index } of log) listener.locals.set(index, `${index}`);
        await stateMachine.open(never);
        await applyCut(stateMachine, log, dice);
        const { index, epoch, sessions } = stateMachine.capture();
        const bytes = await snapshotOf(stateMachine);
        const seen = {
          index,
          epoch,
          sessions,
          sessionsHash: stateMachine.sessionsHash(),
          hash: (await stateMachine.getHash()).hash,
          state: await stateMachine.lookup(null),
          heard: sorted(listener.heard),
          checkpoints: listener.checkpoints,
        };
        first ??= seen;
        assertEquals(seen, first, `${name} in round ${round}`);
        // Of one kind the whole container is the same.
        const again = makeStateMachine(make()[0], 7);
        await again.stateMachine.open(never);
        await applyCut(again.stateMachine, log, dice);
        assertEquals(await snapshotOf(again.stateMachine), bytes, name);
        if (disk) assertEquals(disk.last.index <= index, true);
      }
    }
  }
});

Deno.test("H3 a retry is not applied again, and gets the first result", () => {
  for (const together of [true, false]) {
    const { machine, listener, stateMachine, next } = regular(
      registerRecord(9n, none),
    );
    listener.locals.set(1, "a");
    const one = sessionProposal(1, 1, 0, cmd(1));
    const two = sessionProposal(1, 2, 1, cmd(2, 2));
    const records = [one, one, two, one, two];
    if (together) next(...records);
    else for (const record of records) next(record);
    assertEquals(machine.commands, ["1", "2,2"]);
    assertEquals(stateMachine.applied, 6);
    const results = new Map<number, unknown>();
    assertEquals(listener.heard.filter((o) => o[0] === "answered").length, 5);
    for (const one of listener.heard) {
      if (one[0] !== "answered") continue;
      const [, local, series, outcome, result] = one;
      assertEquals([local, outcome], ["a", "applied"]);
      assertEquals(results.get(series) ?? result, result);
      results.set(series, result);
    }
    assertEquals(listener.heard[0], ["registered", 9n, 1]);
  }
});

Deno.test("H3 each answer has its own copy of the data", () => {
  const { listener, next } = regular(registerRecord(9n, none));
  listener.locals.set(1, "a");
  const one = sessionProposal(1, 1, 0, cmd(1));
  next(one, one);
  const data = (): Uint8Array => {
    const last = listener.heard.at(-1)!;
    return (last[4] as Result).data!;
  };
  assertEquals(data(), cmd(1, 9));
  for (let i = 0; i < 3; i++) {
    for (const heard of listener.heard) {
      (heard[4] as Result | undefined)?.data?.fill(0);
    }
    next(one);
    assertEquals(data(), cmd(1, 9));
  }
});

Deno.test("H3 a retry followed by its acknowledgement in one batch is answered", () => {
  const records = [
    registerRecord(9n, none),
    sessionProposal(1, 1, 0, cmd(1)),
    sessionProposal(1, 1, 0, cmd(1)),
    sessionProposal(1, 2, 0, cmd(2)),
    sessionProposal(1, 1, 0, cmd(1)),
  ];
  for (const together of [true, false]) {
    const { listener, next } = regular();
    listener.locals.set(1, "a");
    if (together) next(...records);
    else for (const record of records) next(record);
    assertEquals(listener.outcomes.sort(), [
      "a 1 acknowledged",
      "a 1 applied",
      "a 1 applied",
      "a 2 applied",
    ]);
  }
});

Deno.test("H3 a gap is not skipped, and filling it continues the series", () => {
  const { machine, listener, next } = regular(registerRecord(9n, none));
  listener.locals.set(1, "a");
  next(
    sessionProposal(1, 2, 1, cmd(2)),
    sessionProposal(1, 1, 0, cmd(1)),
    sessionProposal(1, 3, 2, cmd(3)),
    sessionProposal(1, 2, 1, cmd(2)),
  );
  assertEquals(machine.commands, ["1", "2"]);
  assertEquals(listener.outcomes.sort(), [
    "a 1 applied",
    "a 2 applied",
    "a 2 gap",
    "a 3 gap",
  ]);
});

Deno.test("H4 an unknown session is rejected", () => {
  const { machine, listener, next } = regular(
    configRecord(1),
    registerRecord(9n, none),
  );
  listener.locals.set(2, "a").set(99, "b");
  next(
    sessionProposal(2, 1, 0, cmd(1)),
    sessionProposal(99, 1, 0, cmd(9)),
    skip(99, 2, 0),
    unregisterRecord(99),
    registerRecord(10n, none),
    sessionProposal(2, 1, 0, cmd(1)),
    sessionProposal(7, 1, 0, cmd(7)),
    unregisterRecord(7),
    sessionProposal(7, 2, 0, cmd(8)),
  );
  assertEquals(machine.commands, ["1", "7"]);
  assertEquals(listener.outcomes, [
    "a 1 applied",
    "b 1 unknown",
    "b 2 unknown",
    "a 1 unknown",
  ]);
  assertEquals(
    listener.heard.filter(([what]) => what.endsWith("registered")),
    [
      ["registered", 9n, 2],
      ["unregistered", 99],
      ["registered", 10n, 7],
      ["unregistered", 7],
    ],
  );
});

Deno.test("H4 H14 a repeated registration finds the session while it exists, and does not revive it", () => {
  const register = registerRecord(9n, cmd(1, 2));
  const { machine, stateMachine, listener, next } = regular(register);
  next(sessionProposal(1, 1, 0, cmd(1)), register);
  // Registration by another client with the same number.
  next(registerRecord(9n, cmd(3)));
  const table = tableOf(stateMachine.capture());
  assertEquals([table.get(1)?.next, table.get(3), table.size], [
    2,
    undefined,
    2,
  ]);
  assertEquals(table.get(4)?.owner, cmd(3));
  next(unregisterRecord(4), unregisterRecord(1), register);
  next(sessionProposal(1, 2, 0, cmd(1)), sessionProposal(7, 1, 0, cmd(1)));
  assertEquals(machine.commands, ["1", "1"]);
  assertEquals<unknown>(
    listener.heard.filter(([kind]) => kind === "registered"),
    [1, 1, 4, 7].map((session) => ["registered", 9n, session]),
  );
});

Deno.test("H4 only the first record sets limits", () => {
  const max = (...records: Uint8Array[]): [number, boolean] => {
    const { stateMachine } = regular(...records);
    const table = tableOf(stateMachine.capture());
    return [table.max, stateMachine.begun];
  };
  assertEquals(max(), [4096, false]);
  assertEquals(max(epochRecord(1n)), [4096, false]);
  assertEquals(max(configRecord(5)), [5, true]);
  assertEquals(max(epochRecord(1n), epochRecord(2n), configRecord(5)), [
    5,
    true,
  ]);
  assertEquals(max(configRecord(5), configRecord(6)), [5, true]);
  for (
    const other of [
      proposal(1, none),
      sessionProposal(9, 1, 0, none),
      skip(9, 1, 0),
      registerRecord(1n, none),
      unregisterRecord(1),
    ]
  ) assertEquals(max(other, configRecord(5)), [4096, true]);
});

Deno.test("H13 StateMachine reports the last epoch at or before the applied index", () => {
  const { stateMachine, next } = regular();
  assertEquals(stateMachine.epoch, undefined);
  next(epochRecord(5n), proposal(1, none));
  assertEquals(stateMachine.epoch, { index: 1, id: 5n });
  next(proposal(2, none));
  assertEquals(stateMachine.capture().epoch, { index: 1, id: 5n });
  next(epochRecord(6n), epochRecord((1n << 64n) - 1n), proposal(3, none));
  assertEquals(stateMachine.epoch, { index: 5, id: (1n << 64n) - 1n });
});

Deno.test("H14 of a skip and a command of one series, the first in the log counts", () => {
  const { machine, listener, next } = regular(registerRecord(9n, none));
  listener.locals.set(1, "a");
  for (
    const records of [
      [sessionProposal(1, 1, 0, cmd(1)), skip(1, 1, 0)],
      [skip(1, 2, 1), sessionProposal(1, 2, 1, cmd(2)), skip(1, 2, 1)],
      [sessionProposal(1, 3, 2, cmd(3))],
      // Another client with the same session.
      [sessionProposal(1, 3, 2, cmd(4))],
      // Too early, and therefore without effect.
      [skip(1, 5, 4)],
      [sessionProposal(1, 4, 3, cmd(5))],
    ]
  ) next(...records);
  assertEquals(machine.commands, ["1", "3", "5"]);
  assertEquals(listener.outcomes, [
    "a 1 applied",
    "a 1 applied",
    "a 2 skipped",
    "a 2 skipped",
    "a 2 skipped",
    "a 3 applied",
    "a 3 conflict",
    "a 5 gap",
    "a 4 applied",
  ]);
});

Deno.test("H14 the skip of a rejected series has a reason, which a late retry receives too", () => {
  const { stateMachine, listener, next } = regular(registerRecord(9n, none));
  listener.locals.set(1, "a");
  next(skipRecord(1, 1, 0, "too rude"));
  next(sessionProposal(1, 1, 0, cmd(1)));
  const data = new TextEncoder().encode("too rude");
  const answer = ["answered", "a", 1, "skipped", { value: 0n, data }];
  assertEquals<unknown>(
    listener.heard.filter(([kind]) => kind === "answered"),
    [answer, answer],
  );
  assertEquals(stateMachine.outcomeOf(1, 1)?.outcome, "skipped");
  assertEquals(stateMachine.outcomeOf(1, 2), undefined);
  // In a snapshot too.
  const other = makeStateMachine({ type: 1, create: () => new Regular() });
  other.stateMachine.loadSessions(stateMachine.capture());
  assertEquals(other.stateMachine.outcomeOf(1, 1)?.result, { value: 0n, data });
});

Deno.test("H14 a session is claimed from its holder, and the previous holder is rejected", () => {
  const { stateMachine, listener, next } = regular(registerRecord(9n, none));
  assertEquals(stateMachine.sessionInfo(1)?.holder, 9n);
  next(claimRecord(1, 9n, 10n));
  // A late copy of it changes nothing.
  next(claimRecord(1, 9n, 10n));
  next(claimRecord(1, 9n, 11n));
  next(claimRecord(1, 10n, 12n), claimRecord(1, 9n, 10n));
  next(claimRecord(5, 9n, 13n));
  assertEquals<unknown>(listener.heard.slice(1), [
    ["claimed", 1, 10n, "claimed"],
    ["claimed", 1, 10n, "claimed"],
    ["claimed", 1, 11n, "conflict"],
    ["claimed", 1, 12n, "claimed"],
    ["claimed", 1, 10n, "conflict"],
    ["claimed", 5, 13n, "unknown"],
  ]);
  const other = makeStateMachine({ type: 1, create: () => new Regular() });
  other.stateMachine.loadSessions(stateMachine.capture());
  assertEquals(other.stateMachine.sessionInfo(1)?.holder, 12n);
});

Deno.test("H5 detach() ends notifications of a session", () => {
  const { stateMachine, listener, next } = regular(registerRecord(9n, none));
  listener.locals.set(1, "a");
  next(sessionProposal(1, 1, 0, cmd(1)));
  listener.locals.delete(1);
  stateMachine.detach(1);
  stateMachine.detach(77);
  next(sessionProposal(1, 2, 1, cmd(2)), sessionProposal(1, 1, 0, cmd(1)));
  assertEquals(listener.outcomes, ["a 1 applied"]);
  // And it may be attached again.
  listener.locals.set(1, "b");
  next(sessionProposal(1, 2, 1, cmd(2)));
  assertEquals(listener.outcomes, ["a 1 applied", "b 2 applied"]);
});

for (const end of ["applied", "failed"] as const) {
  Deno.test(`H3 H4 readers see the sessions of the applied index while a batch is being applied, until it has ${end}`, async () => {
    const gates: Promise<void>[] = [];
    class Held extends Concurrent {
      override update(entries: Entry[]): MaybePromise<Entry[]> {
        return gates[0]?.then(() => super.update(entries)) ??
          super.update(entries);
      }
    }
    const { stateMachine } = makeStateMachine({
      type: 2,
      create: () => new Held(),
    });
    await stateMachine.apply(batchesOf(place([
      configRecord(2),
      registerRecord(2n, none),
      registerRecord(3n, none),
      sessionProposal(2, 1, 0, cmd(1)),
      sessionProposal(3, 1, 0, cmd(1)),
    ])));
    const shown = (): unknown => ({
      next: [2, 3, 9, 11].map((session) =>
        stateMachine.sessionInfo(session)?.next
      ),
      outcomes: [1, 2, 3, 4].map((series) =>
        stateMachine.outcomeOf(2, series)?.outcome
      ),
      clients: [2n, 3n, 9n, 11n].map((client) =>
        stateMachine.sessionOf(client, 0, undefined)
      ),
    });
    const before = {
      next: [2, 2, undefined, undefined],
      outcomes: ["applied", undefined, undefined, undefined],
      clients: [2, 3, undefined, undefined],
    };
    assertEquals(shown(), before);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    gates.push(promise);
    const applied = stateMachine.apply(batchesOf(
      place([
        sessionProposal(3, 2, 0, cmd(2)),
        sessionProposal(2, 2, 1, cmd(2)),
        skip(2, 3, 2),
        // Evicts session 3.
        registerRecord(9n, none),
        unregisterRecord(9),
        registerRecord(11n, none),
      ], 6),
      5,
    ));
    assertEquals(shown(), before);
    assert(stateMachine.mayEvict(3, 1));
    if (end === "failed") {
      reject(new TypeError("Broken"));
      await assertRejects(async () => await applied, TypeError, "Broken");
      assertEquals(shown(), before);
      return;
    }
    resolve();
    await applied;
    assertEquals(shown(), {
      next: [4, undefined, undefined, 1],
      outcomes: ["applied", "applied", "skipped", undefined],
      clients: [2, undefined, undefined, 11],
    });
  });
}

Deno.test("H6 a result beyond the limit is lost, but not the fact that it was applied", () => {
  const half = SESSION_RESULT_BYTES_MAX / 2 + 1;
  class Wordy extends Regular {
    override update(bytes: Uint8Array): Result {
      super.update(bytes);
      return { value: 1n, data: new Uint8Array(half) };
    }
  }
  const machine = new Wordy();
  const { stateMachine, listener } = makeStateMachine({
    type: 1,
    create: () => machine,
  });
  listener.locals.set(1, "a");
  const one = sessionProposal(1, 1, 0, cmd(1));
  stateMachine.apply(batchesOf(place([
    registerRecord(9n, none),
    one,
    sessionProposal(1, 2, 1, cmd(2)),
  ])));
  stateMachine.apply(batchesOf(place([one], 4), 3));
  assertEquals(listener.outcomes, ["a 1 applied", "a 2 applied", "a 1 lost"]);
  assertEquals(machine.commands, ["1", "2"]);
});

Deno.test("H15 StateMachine.apply() rejects a batch that does not follow the last one", () => {
  const batch = (follows: number, first: number, count: number): LogBatch => {
    const records = Array.from({ length: count }, (_, i) => proposal(i, none));
    return { ...batchesOf(place(records, first), first - 1)[0]!, follows };
  };
  const good = batch(0, 1, 3);
  for (
    const wrong of [
      batch(4, 5, 1),
      good,
      batch(2, 3, 3),
      batch(3, 3, 3),
      batch(3, 2, 3),
      batch(0, 1, 3),
    ]
  ) {
    for (const together of [true, false]) {
      const machine = new Regular();
      const { stateMachine } = makeStateMachine({
        type: 1,
        create: () => machine,
      });
      if (!together) {
        stateMachine.apply([good]);
        assertThrows(() => stateMachine.apply([wrong]), ErrLogCorrupted);
        assertEquals(machine.commands.length, 3);
      } else {
        assertThrows(() => stateMachine.apply([good, wrong]), ErrLogCorrupted);
      }
    }
  }
  // Indexes may have gaps.
  const { stateMachine } = regular();
  stateMachine.apply([good, batch(3, 10, 2)]);
  stateMachine.apply([batch(11, 50, 1)]);
  assertEquals(stateMachine.applied, 50);
});

Deno.test("H12 checkpoints are at the same indexes however the log is divided", () => {
  const records = Array.from({ length: 40 }, (_, i) => proposal(i, cmd(i)));
  const placed = [
    ...place(records.slice(0, 20)),
    ...place(records.slice(20), 58),
  ];
  const taken: unknown[] = [];
  for (const often of [0, 0.5, 1]) {
    const machine = new Concurrent();
    const { stateMachine, listener } = makeStateMachine(
      { type: 2, create: () => machine },
      10,
    );
    stateMachine.apply(batchesOf(placed, 0, () => Math.random() < often));
    assertEquals(
      listener.checkpoints.map(({ index }) => index),
      [10, 20, 58, 60, 70],
    );
    assertEquals(listener.checkpoints.at(-1)!.index, 70);
    taken.push(listener.checkpoints);
  }
  assertEquals(taken[1], taken[0]);
  assertEquals(taken[2], taken[0]);
});

/** Computes the replicated state at each index of a log. */
async function reference(log: readonly IndexedRecord[]): Promise<
  Map<number, { captured: StateMetadata; state: State; hash: bigint }>
> {
  const { stateMachine } = makeStateMachine({
    type: 1,
    create: () => new Regular(),
  });
  const at = new Map();
  const note = async (): Promise<void> => {
    at.set(stateMachine.applied, {
      captured: stateMachine.capture(),
      state: await stateMachine.lookup(null),
      hash: stateMachine.sessionsHash(),
    });
  };
  await note();
  for (const one of log) {
    stateMachine.apply(batchesOf([one], stateMachine.applied));
    await note();
  }
  return at;
}

Deno.test("H6 with host rows, state, sessions and index agree after every crash", async () => {
  const dice = seeded();
  for (let round = 0; round < 40; round++) {
    const log = randomLog(dice, 120);
    const expected = await reference(log);
    const disk = new Disk();
    const slow = dice.chance(0.3);
    const factory: MachineFactory = {
      type: 3,
      create: () => new HostDiskMachine(disk, slow),
    };
    const checkpoints = new Map<number, string>();
    for (let crashes = 0;; crashes++) {
      const { stateMachine, listener } = makeStateMachine(factory, 13);
      const opened = await stateMachine.open(never);
      assertEquals(opened, stateMachine.applied);
      assertEquals(opened, disk.last.index);
      const { captured, state } = expected.get(opened)!;
      assertEquals(
        stateMachine.capture(),
        captured,
        `after ${crashes} crashes`,
      );
      assertEquals(disk.last.count, state.count);
      assertEquals(disk.last.hash, state.hash);
      const batches = batchesOf(log, opened, () => dice.chance(0.3));
      const count = crashes < 12 ? dice.below(8) : batches.length;
      for (const batch of batches.slice(0, count)) {
        await stateMachine.apply([batch]);
        if (dice.chance(0.2)) await stateMachine.sync();
      }
      for (const { index, state, sessions } of listener.checkpoints) {
        const found = `${state} ${sessions}`;
        assertEquals(checkpoints.get(index) ?? found, found);
        checkpoints.set(index, found);
      }
      if (count >= batches.length) {
        const end = expected.get(stateMachine.applied)!;
        assertEquals(stateMachine.capture(), end.captured);
        assertEquals(await stateMachine.lookup(null), end.state);
        assertEquals(stateMachine.applied, log.at(-1)!.index);
        break;
      }
      // A crash keeps what was synced, and of the rest a prefix.
      disk.crash(dice.below(disk.steps.length));
    }
  }
});

Deno.test("H6 without host rows, nothing is applied twice and the sessions are rebuilt", async () => {
  const dice = seeded();
  for (let round = 0; round < 40; round++) {
    const log = randomLog(dice, 120);
    const expected = await reference(log);
    const disk = new Disk();
    const factory: MachineFactory = {
      type: 3,
      create: () => new DiskMachine(disk),
    };
    /** The last metadata record: the log is kept from there. */
    let metadata = expected.get(0)!.captured;
    const checkpoints = new Map<number, string>();
    for (let crashes = 0;; crashes++) {
      const { stateMachine, listener } = makeStateMachine(factory, 13);
      const opened = await stateMachine.open(never);
      assertEquals(opened, disk.last.index);
      stateMachine.loadSessions(metadata);
      assertEquals(stateMachine.capture(), metadata);
      const upTo = log.filter(({ index }) => index <= opened);
      await applyCut(stateMachine, upTo, dice);
      const { hash, state } = expected.get(opened)!;
      assertEquals(stateMachine.applied, Math.max(opened, metadata.index));
      assertEquals(stateMachine.sessionsHash(), hash);
      assertEquals(await stateMachine.lookup(null), state);
      const batches = batchesOf(log, opened, () => dice.chance(0.3));
      const count = crashes < 12 ? dice.below(8) : batches.length;
      for (const batch of batches.slice(0, count)) {
        await stateMachine.apply([batch]);
        if (dice.chance(0.1)) {
          await stateMachine.sync();
          metadata = stateMachine.capture();
        }
      }
      for (const { index, state, sessions } of listener.checkpoints) {
        assertEquals(state, expected.get(index)!.state.hash, `at ${index}`);
        assertEquals(sessions, expected.get(index)!.hash);
        checkpoints.set(index, `${state}`);
      }
      if (count >= batches.length) {
        const end = expected.get(stateMachine.applied)!;
        assertEquals(stateMachine.sessionsHash(), end.hash);
        assertEquals(await stateMachine.lookup(null), end.state);
        break;
      }
      // Only entries move the index of such a machine, so it is one of theirs.
      disk.crash(dice.below(disk.steps.length));
      if (disk.last.index < metadata.index) {
        const last = log.filter(({ index }) => index <= metadata.index);
        assert(last.every(({ index }) => index <= metadata.index));
        metadata = expected.get(disk.last.index)!.captured;
      }
    }
  }
});

Deno.test("D3 entries that the machine contains are not applied again; their results are lost", () => {
  const disk = new Disk();
  const records = [
    registerRecord(9n, none),
    proposal(1, cmd(1)),
    sessionProposal(1, 1, 0, cmd(2)),
    sessionProposal(1, 2, 1, cmd(3)),
    skip(1, 3, 2),
    sessionProposal(1, 4, 3, cmd(4)),
  ];
  const start = (): ReturnType<typeof makeStateMachine> & {
    machine: DiskMachine;
  } => {
    const machine = new DiskMachine(disk);
    return { machine, ...makeStateMachine({ type: 3, create: () => machine }) };
  };
  return (async () => {
    const one = start();
    await one.stateMachine.open(never);
    await one.stateMachine.apply(batchesOf(place(records.slice(0, 3))));
    const two = start();
    two.listener.locals.set(1, "a");
    assertEquals(await two.stateMachine.open(never), 3);
    assertEquals(two.stateMachine.applied, 0);
    await two.stateMachine.apply(batchesOf(place(records)));
    assertEquals(two.machine.batches, [[4, 6]]);
    assertEquals(two.listener.outcomes.sort(), [
      "a 1 lost",
      "a 2 applied",
      "a 3 skipped",
      "a 4 applied",
    ]);
    // A proposal outside of a session is not answered: who made it is gone.
    assertEquals(
      two.listener.heard.filter(([what]) => what === "proposal"),
      [],
    );
    const copies = [3, 4].map((at) => records[at - 1]!);
    await two.stateMachine.apply(batchesOf(place([copies[0]!], 7), 6));
    assertEquals(two.listener.outcomes.at(-1), "a 1 lost");
    assertEquals(disk.last.count, 4);
  })();
});

Deno.test("H12 no checkpoint is taken while the machine is ahead of its sessions", async () => {
  const disk = new Disk();
  const log = place(
    Array.from({ length: 30 }, (_, i) => proposal(i, cmd(i))),
  );
  const start = async (): Promise<ReturnType<typeof makeStateMachine>> => {
    const made = makeStateMachine(
      { type: 3, create: () => new DiskMachine(disk) },
      5,
    );
    await made.stateMachine.open(never);
    return made;
  };
  const one = await start();
  await one.stateMachine.apply(batchesOf(log.slice(0, 15)));
  const two = await start();
  await two.stateMachine.apply(batchesOf(log));
  const whole = new Map(
    [...one.listener.checkpoints, ...two.listener.checkpoints].map((c) => [
      c.index,
      c.state,
    ]),
  );
  const expected = await reference(log);
  for (const [index, state] of whole) {
    assertEquals(state, expected.get(index)!.state.hash, `at ${index}`);
  }
  for (const { index, state } of two.listener.checkpoints) {
    assertEquals(state, expected.get(index)!.state.hash, `at ${index}`);
  }
  assertEquals(
    two.listener.checkpoints.map(({ index }) => index),
    [15, 20, 25, 30],
  );
});

Deno.test("H6 a machine that starts to store host rows is not rolled back to their index", async () => {
  const disk = new Disk();
  const log = randomLog(seeded(), 100);
  const half = log.slice(0, 50);
  const one = makeStateMachine({
    type: 3,
    create: () => new DiskMachine(disk),
  });
  await one.stateMachine.open(never);
  await one.stateMachine.apply(batchesOf(half));
  disk.sync();
  const { index, count } = disk.last;
  assert(index > 20);
  const expected = await reference(log);
  for (const often of [1, 0.1]) {
    for (let i = 4; i > 0; i--) {
      const two = makeStateMachine({
        type: 3,
        create: () => new HostDiskMachine(disk),
      });
      assertEquals(await two.stateMachine.open(never), index);
      await two.stateMachine.apply(
        batchesOf(
          log.filter((one) => one.index <= index - i),
          two.stateMachine.applied,
          () => Math.random() < often,
        ),
      );
      // A crash while the sessions are still behind.
      assertEquals([disk.last.index, disk.last.count], [index, count]);
      disk.crash(9);
    }
  }
  const three = makeStateMachine({
    type: 3,
    create: () => new HostDiskMachine(disk),
  });
  await three.stateMachine.open(never);
  await three.stateMachine.apply(batchesOf(log, three.stateMachine.applied));
  const end = expected.get(log.at(-1)!.index)!;
  assertEquals(await three.stateMachine.lookup(null), end.state);
  assertEquals(three.stateMachine.sessionsHash(), end.hash);
  disk.sync();
  const four = makeStateMachine({
    type: 3,
    create: () => new HostDiskMachine(disk),
  });
  assertEquals(await four.stateMachine.open(never), log.at(-1)!.index);
  assertEquals(four.stateMachine.sessionsHash(), end.hash);
});

for (const slow of [false, true]) {
  const kind = slow ? "asynchronous" : "synchronous";

  Deno.test(`H6 U8 a batch that a ${kind} machine had no room for is given again with the same rows of the host`, async () => {
    const disk = new Disk();
    let full = 3;
    const seen: string[][] = [];
    class Full extends HostDiskMachine {
      override updateWithHost(
        entries: Entry[],
        host: () => HostState,
      ): ReturnType<HostDiskMachine["updateWithHost"]> {
        if (--full < 0) return super.updateWithHost(entries, host);
        answer(entries);
        seen.push(host().rows.map(({ key }) => key).sort());
        const error = new ErrStoreFull("ENOSPC: no space left");
        if (slow) return Promise.reject(error);
        throw error;
      }
    }
    const options = { hashEntries: 0, room: () => Promise.resolve() };
    const make = (): StateMachine<string> =>
      new StateMachine(
        { type: 3, create: () => new Full(disk, slow) },
        7n,
        1n,
        new Listener(),
        options,
      );
    const one = make();
    await one.open(never);
    await one.apply(batchesOf(place([
      registerRecord(1n, none),
      sessionProposal(1, 1, 0, cmd(1)),
      sessionProposal(1, 2, 0, cmd(2)),
    ])));
    assertEquals(seen, [0, 1, 2].map(() => ["meta", "s0", "s1"]));
    const two = make();
    assertEquals(await two.open(never), 3);
    assertEquals(two.sessionsHash(), one.sessionsHash());
    // What comes next has rows of its own.
    const next = place([sessionProposal(1, 3, 0, cmd(3))], 4);
    await one.apply(batchesOf(next, 3));
    const three = make();
    assertEquals(await three.open(never), 4);
    assertEquals(three.sessionsHash(), one.sessionsHash());
    assertEquals(three.outcomeOf(1, 3)?.outcome, "applied");
  });
}

/** Drives a machine with the host's rows whose update is this one; what apply() fails with. */
async function updateHostWith(
  update: (
    entries: Entry[],
    host: () => HostState,
  ) => Entry[] | Promise<Entry[]>,
): Promise<{ error: unknown; asked: HostState[] }> {
  const asked: HostState[] = [];
  class Wrong extends HostDiskMachine {
    override updateWithHost(
      entries: Entry[],
      host: () => HostState,
    ): Entry[] | Promise<Entry[]> {
      return update(entries, () => {
        const given = host();
        asked.push(given);
        return given;
      });
    }
  }
  const { stateMachine, listener } = makeStateMachine({
    type: 3,
    create: () => new Wrong(new Disk()),
  });
  await stateMachine.open(never);
  const records = [
    registerRecord(1n, none),
    sessionProposal(1, 1, 0, cmd(1)),
    proposal(2, cmd(2)),
  ];
  try {
    await stateMachine.apply(batchesOf(place(records)));
  } catch (error) {
    assertEquals([stateMachine.applied, listener.heard], [0, []]);
    return { error, asked };
  }
  assertEquals(stateMachine.applied, 3);
  return { error: undefined, asked };
}

Deno.test("H6 host() must be called once, after the results are set", async () => {
  const good = await updateHostWith((entries, host) => {
    answer(entries);
    host();
    return entries;
  });
  assertEquals(good.error, undefined);
  assertEquals(good.asked.map(({ index }) => index), [3]);
  assertEquals(
    good.asked[0]!.rows.map(({ key }) => key).sort(),
    ["meta", "s0", "s1"],
  );
  const later = await updateHostWith(async (entries, host) => {
    await ticks(2);
    answer(entries);
    host();
    return entries;
  });
  assertEquals(later, good);
  const wrong: [
    string,
    number,
    (e: Entry[], host: () => HostState) => Entry[],
  ][] = [
    ["never", 0, (e) => answer(e)],
    ["twice", 1, (e, host) => (answer(e), host(), host(), e)],
    ["too early", 0, (e, host) => (host(), answer(e))],
    ["with one result missing", 0, (e, host) => {
      answer(e)[1]!.result = undefined;
      host();
      return e;
    }],
    ["with entries of its own", 0, (e, host) => {
      for (let i = 0; i < e.length; i++) {
        e[i] = { ...e[i]!, result: { value: 1n } };
      }
      host();
      return e;
    }],
    ["with entries taken away", 0, (e, host) => {
      const [one, two] = e as [Entry, Entry];
      one.result = { value: 1n };
      e.pop();
      host();
      two.result = { value: 1n };
      return [one, two];
    }],
  ];
  for (const [what, times, update] of wrong) {
    const { error, asked } = await updateHostWith(update);
    assert(error instanceof ErrInvalidResult, `${what}: ${error}`);
    assertEquals(asked.length, times, what);
  }
});

Deno.test("H6 host rows restore index and epoch, also without a session", async () => {
  const disk = new Disk();
  const factory: MachineFactory = {
    type: 3,
    create: () => new HostDiskMachine(disk),
  };
  const one = makeStateMachine(factory).stateMachine;
  assertEquals(await one.open(never), 0);
  one.apply(batchesOf(place([epochRecord(U64)])));
  const two = makeStateMachine(factory).stateMachine;
  assertEquals(await two.open(never), 1);
  assertEquals([two.applied, two.epoch, two.begun], [
    1,
    { index: 1, id: U64 },
    false,
  ]);
  two.apply(batchesOf(place([configRecord(9)], 2), 1));
  const three = makeStateMachine(factory).stateMachine;
  await three.open(never);
  assertEquals([three.begun, three.applied], [true, 2]);
  assertEquals(tableOf(three.capture()).max, 9);
});

const U64 = (1n << 64n) - 1n;

Deno.test("H6 open() rejects host rows that are older than the machine, or damaged", async () => {
  const disk = new Disk();
  const factory: MachineFactory = {
    type: 3,
    create: () => new HostDiskMachine(disk),
  };
  const one = makeStateMachine(factory).stateMachine;
  await one.open(never);
  one.apply(batchesOf(place([
    registerRecord(1n, none),
    sessionProposal(1, 1, 0, cmd(1)),
  ])));
  const good = disk.last;
  disk.commit({ ...good, index: 3 });
  await assertRejects(
    () => makeStateMachine(factory).stateMachine.open(never),
    ErrDiverged,
  );
  for (const key of good.rows.keys()) {
    const rows = new Map(good.rows);
    rows.set(key, rows.get(key)!.subarray(1, 1));
    disk.commit({ ...good, rows });
    await assertRejects(
      () => makeStateMachine(factory).stateMachine.open(never),
      ErrLogCorrupted,
    );
  }
});

Deno.test("D1 open() rejects a value that is not an index", async () => {
  for (const index of [-1, 0.5, NaN, 2 ** 53, "3", undefined]) {
    class Odd extends DiskMachine {
      override open(): number {
        return index as number;
      }
    }
    const { stateMachine } = makeStateMachine({
      type: 3,
      create: () => new Odd(new Disk()),
    });
    const error = await assertRejects(
      () => stateMachine.open(never),
      RangeError,
    );
    assert(/Odd\.open\(\)/.test(error.message));
  }
});

Deno.test("H8 a failed loadSessions() leaves the sessions unchanged", () => {
  const { stateMachine } = regular(
    registerRecord(1n, none),
    registerRecord(2n, none),
  );
  const before = stateMachine.capture();
  const bytes = before.sessions;
  for (const length of [0, 1, 5, bytes.length - 1]) {
    const sessions = bytes.subarray(0, length);
    assertThrows(
      () => stateMachine.loadSessions({ index: 1, epoch: undefined, sessions }),
    );
    assertEquals(stateMachine.capture(), before);
  }
});

Deno.test("D6 dirty is set while there is something to sync", async () => {
  const disk = new Disk();
  const machine = new DiskMachine(disk, true);
  const { stateMachine } = makeStateMachine({ type: 3, create: () => machine });
  await stateMachine.open(never);
  assertFalse(stateMachine.dirty);
  const applying = stateMachine.apply(batchesOf(place([proposal(1, cmd(1))])));
  await ticks(10);
  assert(stateMachine.dirty);
  const syncing = stateMachine.sync();
  const more = stateMachine.apply(
    batchesOf(place([proposal(2, cmd(2))], 2), 1),
  );
  await Promise.all([applying, syncing]);
  await more;
  assert(stateMachine.dirty);
  assertEquals(disk.steps.map(({ index }) => index), [1, 2]);
  await stateMachine.sync();
  assertFalse(stateMachine.dirty);
  assertEquals(disk.steps.length, 1);
});

Deno.test("R2 a lookup sees the state between two batches of a slow machine", async () => {
  const machine = new Regular({ pace: "async" });
  const { stateMachine } = makeStateMachine({ type: 1, create: () => machine });
  const records = Array.from({ length: 20 }, (_, i) => proposal(i, cmd(i)));
  const one = stateMachine.apply(batchesOf(place(records)));
  const seen = stateMachine.lookup(null);
  const hash = stateMachine.getHash();
  const two = stateMachine.apply(batchesOf(place(records, 21), 20));
  assertEquals((await seen as State).count, 20);
  assertEquals((await hash).index, 20);
  assertNotEquals(stateMachine.applied, 40);
  await Promise.all([one, two]);
  assertEquals(stateMachine.applied, 40);
});

Deno.test("R10 close() is called once, after calls in progress", async () => {
  const order: string[] = [];
  class Slow extends Concurrent {
    override async update(entries: Entry[]): Promise<Entry[]> {
      await ticks(5);
      order.push("update");
      return answer(entries);
    }
    override close(): void {
      order.push("close");
    }
  }
  const { stateMachine } = makeStateMachine({
    type: 2,
    create: () => new Slow(),
  });
  const applying = stateMachine.apply(batchesOf(place([proposal(1, none)])));
  const closing = stateMachine.close();
  assert(stateMachine.closed);
  await stateMachine.close();
  await Promise.all([applying, closing]);
  assertEquals(order, ["update", "close"]);
});

Deno.test("R11 changes of a result by its caller affect neither the table nor other callers", () => {
  const shared: Result = Object.freeze({ value: 5n });
  class Frozen extends Regular {
    override update(): Result {
      return shared;
    }
  }
  const { stateMachine, listener } = makeStateMachine({
    type: 1,
    create: () => new Frozen(),
  });
  listener.locals.set(1, "a");
  const one = sessionProposal(1, 1, 0, cmd(1));
  const records = [registerRecord(9n, none), one, one, one, proposal(1, none)];
  for (const batch of batchesOf(place(records), 0, () => true)) {
    stateMachine.apply([batch]);
    const result = listener.heard.at(-1)!.at(-1);
    if (batch.first === 1) continue;
    assertEquals(result, { value: 5n });
    (result as Result).value = 0xDEADn;
  }
  assertEquals(shared, { value: 5n });
  const table = new SessionTable<never>();
  table.decode(stateMachine.capture().sessions);
  assertEquals(table.get(1)!.slots[0]!.result, { value: 5n });
});
