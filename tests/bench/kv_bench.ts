/**
 * Throughput of the concurrent key-value machine alone: no host, no log, no
 * snapshot container.
 *
 * @module
 */

import { ConcurrentKVStateMachine, kv } from "../../src/kv/mod.ts";
import type { Entry } from "../../src/statemachine/mod.ts";
import { type Bench, type Cases, convert, wallOnly } from "./report.ts";

const BATCH_ENTRIES = 512;
const never: AbortSignal = new AbortController().signal;
const noFiles = { addFile(): void {} };

/** A generator of pseudo-random numbers in 0…2^32-1. */
function xorshift(seed: number): () => number {
  let x = seed | 1;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return x >>> 0;
  };
}

/** A key of 16 bytes. */
function keyOf(i: number): string {
  return `key-${String(i).padStart(12, "0")}`;
}

/** Batches of puts of random keys, each cut from one buffer as in a host. */
function putBatches(
  batches: number,
  keys: number,
  valueBytes: number,
): Entry[][] {
  const random = xorshift(7);
  let index = 0;
  return Array.from({ length: batches }, () => {
    const buffer = new Uint8Array(BATCH_ENTRIES * (valueBytes + 32));
    let at = 0;
    return Array.from({ length: BATCH_ENTRIES }, () => {
      const value = new Uint8Array(valueBytes);
      for (let i = 0; i < 4; i++) value[i] = random();
      const cmd = kv.put(keyOf(random() % keys), value);
      buffer.set(cmd, at);
      const view = buffer.subarray(at, at += cmd.length);
      return { index: ++index, cmd: view, result: undefined };
    });
  });
}

/** A machine with this many keys. */
function filled(keys: number, valueBytes: number): ConcurrentKVStateMachine {
  const machine = new ConcurrentKVStateMachine();
  const value = new Uint8Array(valueBytes);
  for (let i = 0; i < keys; i += BATCH_ENTRIES) {
    machine.update(
      Array.from({ length: Math.min(BATCH_ENTRIES, keys - i) }, (_, j) => {
        value[0] = i + j;
        return { index: i + j + 1, cmd: kv.put(keyOf(i + j), value) };
      }),
    );
  }
  return machine;
}

/** Measures overwrites of values of this size, in a machine and in its clone. */
async function benchOverwrites(
  bench: Bench,
  valueBytes: number,
): Promise<void> {
  const machine = filled(bench.count(10_000), valueBytes);
  // Few enough to fit into the cache, like entries that a host has just read.
  const batches = putBatches(6, bench.count(10_000), valueBytes);
  const repeats = bench.count(40);
  const entries = batches.length * BATCH_ENTRIES * repeats;
  const overwrite = (target: ConcurrentKVStateMachine) => (): void => {
    for (let i = 0; i < repeats; i++) {
      for (const batch of batches) target.update(batch);
    }
  };
  const perEntry = (ms: number): number => ms * 1e6 / entries;
  bench.report(
    `key-value machine alone: overwrite, 10k keys, 16 + ${valueBytes} B`,
    convert(await bench.rounds(overwrite(machine)), perEntry),
    "ns",
  );
  bench.report(
    `… of a clone, 16 + ${valueBytes} B`,
    convert(await bench.rounds(overwrite(machine.clone())), perEntry),
    "ns",
  );
  const worst: number[] = [];
  const withSnapshots = await bench.rounds(() => {
    for (const batch of batches) {
      machine.prepareSnapshot();
      const from = performance.now();
      machine.update(batch);
      worst.push(performance.now() - from);
    }
  });
  bench.report(
    `… with a snapshot before each batch, 16 + ${valueBytes} B`,
    convert(
      withSnapshots,
      (ms) => ms * 1e6 / (batches.length * BATCH_ENTRIES),
    ),
    "ns",
  );
  bench.report(
    `… longest of these batches of 512, 16 + ${valueBytes} B`,
    Math.max(...worst),
    "ms",
  );
}

/** Measures inserts into an empty machine, in random order. */
async function benchInserts(bench: Bench): Promise<void> {
  const batches = putBatches(bench.count(400), 2 ** 31, 16);
  const worst: number[] = [];
  const ms = await bench.rounds(() => {
    const machine = new ConcurrentKVStateMachine();
    let longest = 0;
    for (const batch of batches) {
      const from = performance.now();
      machine.update(batch);
      longest = Math.max(longest, performance.now() - from);
    }
    worst.push(longest);
  });
  bench.report(
    "key-value machine alone: insert of 205k keys, 16 + 16 B",
    convert(ms, (round) => round * 1e6 / (batches.length * BATCH_ENTRIES)),
    "ns",
  );
  bench.report("… longest batch of 512", { wall: worst, processor: [] }, "ms");
}

/** Measures lookups in random order, the copy of the value included. */
async function benchLookups(bench: Bench): Promise<void> {
  const keys = bench.count(10_000);
  const machine = filled(keys, 16);
  const random = xorshift(3);
  const queries = Array.from(
    { length: bench.count(200_000) },
    () => kv.get(keyOf(random() % keys)),
  );
  const ms = await bench.rounds(() => {
    for (const query of queries) machine.lookup(query);
  });
  bench.report(
    "key-value machine alone: lookup, 10k keys, 16 + 16 B",
    convert(ms, (round) => round * 1e6 / queries.length),
    "ns",
    { atMost: 300 },
  );
}

/** Measures a snapshot of the machine, without a container. */
async function benchSnapshot(bench: Bench): Promise<void> {
  const machine = filled(bench.count(100_000), 128);
  let chunks: Uint8Array[] = [];
  const save = await bench.rounds(
    () =>
      machine.saveSnapshot(
        machine.prepareSnapshot(),
        new WritableStream({ write: (chunk) => void chunks.push(chunk) }),
        noFiles,
        never,
      ),
    () => chunks = [],
  );
  const megabytes = chunks.reduce((sum, { length }) => sum + length, 0) / 1e6;
  const recover = await bench.rounds(async () => {
    const target = new ConcurrentKVStateMachine();
    const from = chunks.values();
    await target.recoverFromSnapshot(
      new ReadableStream({
        pull(controller): void {
          const { done, value } = from.next();
          if (done) controller.close();
          else controller.enqueue(value);
        },
      }),
      [],
      never,
    );
    if (target.getHash() !== machine.getHash()) {
      throw new Error(
        `Recovered state has hash ${target.getHash()}, not ${machine.getHash()}`,
      );
    }
  });
  const rate = (ms: number): number => megabytes / ms * 1000;
  bench.report(
    "key-value machine alone: save, 100k × (16 + 128 B)",
    convert(wallOnly(save), rate),
    "MB/s",
  );
  bench.report("… recover", convert(wallOnly(recover), rate), "MB/s");
}

/** Cases of the machine alone. */
export const cases: Cases = {
  "kv/overwrite-16": { run: (bench) => benchOverwrites(bench, 16) },
  "kv/overwrite-128": { run: (bench) => benchOverwrites(bench, 128) },
  "kv/insert": { run: benchInserts },
  "kv/lookup": { run: benchLookups },
  "kv/snapshot": { run: benchSnapshot },
};
