/**
 * Apply loop: cost of an entry from the log's bytes to its result. Dragonboat's
 * figures are those of v3.3.8 (Go 1.19.8), taken on one pinned core of the same
 * kind of machine, where its entries are ready in memory and where it decodes
 * them from bytes.
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
import { type Bench, type Cases, convert, type Samples } from "./report.ts";

/** Records in a batch. */
export const BATCH = 512;
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
export async function measure(
  bench: Bench,
  factory: MachineFactory,
  prologue: LogBatch[],
  batches: LogBatch[],
): Promise<Samples> {
  const count = batches.length * BATCH;
  let driver: StateMachine<never>;
  const ms = await bench.rounds(() => {
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
  return convert(ms, (round) => round * 1e6 / count);
}

/**
 * Nanoseconds per entry when one replica applies batch after batch, so that code and
 * state are warm. `next` makes the batches of a round, which follow an index.
 */
export async function measureOne(
  bench: Bench,
  factory: MachineFactory,
  prologue: LogBatch[],
  next: (after: number) => LogBatch[],
): Promise<Samples> {
  const driver = newDriver(factory);
  driver.apply(prologue);
  let batches: LogBatch[] = [];
  const ms = await bench.rounds(() => {
    for (const batch of batches) driver.apply([batch]);
  }, () => {
    batches = next(driver.applied);
  });
  return convert(ms, (round) => round * 1e6 / (batches.length * BATCH));
}

/** Batches of proposals of one client, which follow an index. */
export function single(
  commands: (i: number) => Uint8Array,
  count: number,
  after = 1,
): LogBatch[] {
  return makeBatches(
    after,
    count,
    (i) => proposalHeadLength(i) + commands(i).length,
    (bytes, at, i) =>
      bytes.set(commands(i), putProposalHead(bytes, at, 1, 2, i)),
  );
}

/** First record of a log. */
export const begun: LogBatch = {
  follows: 0,
  first: 1,
  records: packRecords(configRecord(4096)),
};

/**
 * Cost of an entry whose session is one of many; each proposal acknowledges the
 * previous one.
 */
function inSessions(bench: Bench, sessions: number, cmd: Uint8Array): {
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
      BATCH * bench.count(400),
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
async function measureKV(bench: Bench, size: number): Promise<Samples> {
  const keys = 10_240;
  const puts = Array.from({ length: keys * 3 }, (_, i) => {
    const key = `key-${String(i % keys).padStart(12, "0")}`;
    return kv.put(key, new Uint8Array(size).map((_, j) => i * 31 + j * 7));
  });
  const fill = single((i) => puts[i]!, keys);
  const after = 1 + keys;
  const overwrite = makeBatches(
    after,
    BATCH * bench.count(400),
    (i) => proposalHeadLength(i) + puts[0]!.length,
    (bytes, at, i) =>
      bytes.set(
        puts[(i * 7919) % puts.length]!,
        putProposalHead(bytes, at, 1, 2, i),
      ),
  );
  return await measure(
    bench,
    { type: 2, create: () => new ConcurrentKVStateMachine() },
    [begun, ...fill],
    overwrite,
  );
}

const regular: MachineFactory = {
  type: 1,
  create: () => new NoOpStateMachine(),
};
const concurrent: MachineFactory = {
  type: 2,
  create: () => new ConcurrentNoOpStateMachine(),
};
const cmd16 = new Uint8Array(16).map((_, i) => i);

async function benchNoOp(
  bench: Bench,
  factory: MachineFactory,
  what: string,
  dragonboat: { readonly dragonboat: number; readonly decoding?: number },
): Promise<void> {
  const count = BATCH * bench.count(800);
  const ns = await measure(bench, factory, [begun], single(() => cmd16, count));
  bench.report(`apply, ${what} no-op, 16 B`, ns, "ns/entry", {
    ...dragonboat,
    note: "contains decoding",
  });
}

async function benchKV(
  bench: Bench,
  size: number,
  atMost: number,
  dragonboat: { readonly dragonboat: number; readonly decoding: number },
): Promise<void> {
  const ns = await measureKV(bench, size);
  const what = `apply, concurrent key-value, 10k keys, 16 + ${size} B`;
  bench.report(what, ns, "ns/entry", {
    atMost,
    ...dragonboat,
    note: "contains decoding, order, hash and copy-on-write",
  });
}

async function benchSessions(
  bench: Bench,
  sessions: number,
  what: string,
  atMost: number,
  dragonboat: number,
): Promise<void> {
  const { prologue, batches } = inSessions(bench, sessions, cmd16);
  const ns = await measure(bench, regular, prologue, batches);
  bench.report(`apply, regular no-op, exactly-once, ${what}`, ns, "ns/entry", {
    atMost,
    dragonboat,
    note: "contains decoding and stored results",
  });
}

/** Cases of the apply loop. */
export const cases: Cases = {
  "apply/no-op-concurrent": {
    run: (bench) =>
      benchNoOp(bench, concurrent, "concurrent", {
        dragonboat: 34,
        decoding: 110,
      }),
  },
  "apply/no-op-regular": {
    run: (bench) => benchNoOp(bench, regular, "regular", { dragonboat: 53 }),
  },
  "apply/kv-16": {
    run: (bench) => benchKV(bench, 16, 190, { dragonboat: 106, decoding: 229 }),
  },
  "apply/kv-128": {
    run: (bench) =>
      benchKV(bench, 128, 256, { dragonboat: 129, decoding: 256 }),
  },
  "apply/sessions-1": {
    run: (bench) => benchSessions(bench, 1, "1 session", 210, 210),
  },
  "apply/sessions-1000": {
    run: (bench) => benchSessions(bench, 1000, "1,000 sessions", 250, 250),
  },
};
