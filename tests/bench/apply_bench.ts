/**
 * Apply loop: cost of an entry from the log's bytes to its result.
 *
 * @module
 */

import { StateMachine } from "../../src/rsm/state_machine.ts";
import type { MachineFactory } from "../../src/rsm/managed_machine.ts";
import {
  configRecord,
  proposalHeadLength,
  putProposalHead,
  putSessionHead,
  registerRecord,
  sessionHeadLength,
} from "../../src/rsm/record_codec.ts";
import { RecordKind } from "../../src/log/records.ts";
import type { LogBatch } from "../../src/log/log.ts";
import { packRecords } from "../../src/log/mod.ts";
import {
  ConcurrentKVStateMachine,
  type Entry,
  type IConcurrentStateMachine,
  type IStateMachine,
  kv,
  type Result,
} from "../../mod.ts";
import { best, report } from "./report.ts";

const BATCH = 512;
const DONE: Result = { value: 1n };

class NoOpStateMachine implements IStateMachine {
  update(_cmd: Uint8Array): Result {
    return DONE;
  }
  lookup(): undefined {}
  saveSnapshot(): void {}
  recoverFromSnapshot(): void {}
  close(): void {}
}

class ConcurrentNoOpStateMachine implements IConcurrentStateMachine {
  update(entries: Entry[]): Entry[] {
    for (let i = 0; i < entries.length; i++) entries[i]!.result = DONE;
    return entries;
  }
  lookup(): undefined {}
  prepareSnapshot(): undefined {}
  saveSnapshot(): void {}
  recoverFromSnapshot(): void {}
  close(): void {}
}

/**
 * State machine of a replica that applies the proposals of other replicas, the
 * most common case.
 */
function newDriver(factory: MachineFactory): StateMachine<never> {
  return new StateMachine<never>(factory, 1n, 1n, {
    originLow: 0,
    originHigh: 0,
    locals: new Map<number, never>(),
    proposalApplied(): void {},
    proposalSkipped(): void {},
    registered(): void {},
    unregistered(): void {},
    claimed(): void {},
    answered(): void {},
  }, { hashEntries: 0 });
}

/** Batches of `BATCH` records each, following `after`. */
function makeBatches(
  after: number,
  count: number,
  length: (i: number) => number,
  write: (bytes: Uint8Array, at: number, i: number) => void,
): LogBatch[] {
  const batches: LogBatch[] = [];
  for (let i = 0; i < count; i += BATCH) {
    const ends: number[] = [];
    let end = 0;
    for (let j = i; j < i + BATCH; j++) ends.push(end += length(j));
    const bytes = new Uint8Array(end);
    for (let j = 0; j < BATCH; j++) {
      write(bytes, j === 0 ? 0 : ends[j - 1]!, i + j);
    }
    batches.push({
      follows: after + i,
      first: after + i + 1,
      records: { bytes, ends },
    });
  }
  return batches;
}

/** Nanoseconds per entry when a new replica applies the batches. */
async function measure(
  factory: MachineFactory,
  prologue: LogBatch[],
  batches: LogBatch[],
): Promise<number> {
  const count = batches.length * BATCH;
  let driver: StateMachine<never>;
  const applied = await best(9, () => {
    for (const batch of batches) driver.apply([batch]);
    if (driver.applied !== batches.at(-1)!.first + BATCH - 1) {
      throw new Error(
        `Applied index is ${driver.applied} after ${count} entries`,
      );
    }
  }, () => {
    driver = newDriver(factory);
    driver.apply(prologue);
  });
  return applied * 1e6 / count;
}

function single(
  commands: (i: number) => Uint8Array,
  count: number,
): LogBatch[] {
  return makeBatches(
    1,
    count,
    (i) => proposalHeadLength(i) + commands(i).length,
    (bytes, at, i) =>
      bytes.set(commands(i), putProposalHead(bytes, at, 1, 2, i)),
  );
}

const begun: LogBatch = {
  follows: 0,
  first: 1,
  records: packRecords(configRecord(4096)),
};

/**
 * Cost of an entry whose session is one of many; each proposal acknowledges the
 * previous one.
 */
function inSessions(sessions: number, cmd: Uint8Array): {
  prologue: LogBatch[];
  batches: LogBatch[];
} {
  const registers = Array.from(
    { length: sessions },
    (_, i) => registerRecord(BigInt(i), new Uint8Array()),
  );
  const register: LogBatch = {
    follows: 1,
    first: 2,
    records: packRecords(...registers),
  };
  const series = (i: number): number => Math.floor(i / sessions) + 1;
  const session = (i: number): number => 2 + i % sessions;
  // A client with a hundred proposals in flight acknowledges that far back.
  const lag = (i: number): number =>
    Math.min(series(i) - 1, sessions === 1 ? 100 : 1);
  return {
    prologue: [begun, register],
    batches: makeBatches(
      1 + sessions,
      BATCH * 400,
      (i) => sessionHeadLength(session(i), series(i), lag(i)) + cmd.length,
      (bytes, at, i) =>
        bytes.set(
          cmd,
          putSessionHead(
            bytes,
            at,
            RecordKind.SessionProposal,
            session(i),
            series(i),
            lag(i),
          ),
        ),
    ),
  };
}

/** Cost of overwriting one of 10,000 values, each time with another value. */
async function measureKV(size: number): Promise<number> {
  const keys = 10_240;
  const puts = Array.from({ length: keys * 3 }, (_, i) => {
    const key = `key-${String(i % keys).padStart(12, "0")}`;
    return kv.put(key, new Uint8Array(size).map((_, j) => i * 31 + j * 7));
  });
  const fill = single((i) => puts[i]!, keys);
  const after = 1 + keys;
  const overwrite = makeBatches(
    after,
    BATCH * 400,
    (i) => proposalHeadLength(i) + puts[0]!.length,
    (bytes, at, i) =>
      bytes.set(
        puts[(i * 7919) % puts.length]!,
        putProposalHead(bytes, at, 1, 2, i),
      ),
  );
  return await measure(
    { type: 2, create: () => new ConcurrentKVStateMachine() },
    [begun, ...fill],
    overwrite,
  );
}

/** Measures the apply loop. */
export async function applyBench(): Promise<void> {
  const count = BATCH * 800;
  const cmd16 = new Uint8Array(16).map((_, i) => i);
  const concurrent: MachineFactory = {
    type: 2,
    create: () => new ConcurrentNoOpStateMachine(),
  };
  const regular: MachineFactory = {
    type: 1,
    create: () => new NoOpStateMachine(),
  };
  report(
    "apply, concurrent no-op, 16 B",
    await measure(concurrent, [begun], single(() => cmd16, count)),
    "ns/entry",
    { atMost: 82, of: "Dragonboat" },
  );
  report(
    "apply, regular no-op, 16 B",
    await measure(regular, [begun], single(() => cmd16, count)),
    "ns/entry",
    { atMost: 144, of: "Dragonboat" },
  );
  for (const [size, atMost] of [[16, 149], [128, 147]] as const) {
    report(
      `apply, concurrent key-value, 10k keys, 16 B + ${size} B`,
      await measureKV(size),
      "ns/entry",
      { atMost, of: "Dragonboat" },
    );
  }
  for (const [sessions, atMost] of [[1, 335], [1000, 496]] as const) {
    const { prologue, batches } = inSessions(sessions, cmd16);
    report(
      `apply, regular no-op, exactly-once, ${sessions} session${
        sessions > 1 ? "s" : ""
      }, 16 B`,
      await measure(regular, prologue, batches),
      "ns/entry",
      { atMost, of: "Dragonboat" },
    );
  }
}

if (import.meta.main) await applyBench();
