/**
 * Throughput of the concurrent key-value machine alone: no host, no log, no
 * snapshot container.
 *
 * @module
 */

import { ConcurrentKVStateMachine, kv } from "../../src/kv/mod.ts";
import type { Entry } from "../../src/statemachine/mod.ts";

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

/** Nanoseconds per entry of the median and of the fastest of many rounds. */
function time(
  machine: ConcurrentKVStateMachine,
  batches: Entry[][],
  rounds: number,
): [median: number, fastest: number] {
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const start = performance.now();
    for (const batch of batches) machine.update(batch);
    times.push(performance.now() - start);
  }
  times.sort((a, b) => a - b);
  const scale = 1e6 / (batches.length * BATCH_ENTRIES);
  return [times[rounds >> 1]! * scale, times[0]! * scale];
}

function report(name: string, figure: number, unit: string): void {
  // deno-lint-ignore no-console
  console.log(`${name.padEnd(60)} ${figure.toFixed(1).padStart(8)} ${unit}`);
}

function benchUpdates(): void {
  for (const valueBytes of [16, 128]) {
    const machine = filled(10_000, valueBytes);
    // Few enough to fit into the cache, like entries that a host has just read.
    const batches = putBatches(6, 10_000, valueBytes);
    const [median, fastest] = time(machine, batches, 400);
    report(`update: overwrite, 10k keys, 16 B + ${valueBytes} B`, median, "ns");
    report("  … fastest of 400 rounds", fastest, "ns");
    report("  … of a clone", time(machine.clone(), batches, 100)[0], "ns");
    let worst = 0;
    const start = performance.now();
    for (const batch of batches) {
      machine.prepareSnapshot();
      const before = performance.now();
      machine.update(batch);
      worst = Math.max(worst, performance.now() - before);
    }
    const each = (performance.now() - start) * 1e6 /
      (batches.length * BATCH_ENTRIES);
    report("  … with a snapshot before every batch", each, "ns");
    report("  … and the slowest such batch", worst, "ms");
  }
  const batches = putBatches(400, 2 ** 31, 16);
  for (let i = 0; i < 3; i++) {
    new ConcurrentKVStateMachine().update(batches[i]!);
  }
  const start = performance.now();
  const machine = new ConcurrentKVStateMachine();
  let worst = 0;
  for (const batch of batches) {
    const before = performance.now();
    machine.update(batch);
    worst = Math.max(worst, performance.now() - before);
  }
  const ns = (performance.now() - start) * 1e6 /
    (batches.length * BATCH_ENTRIES);
  report("update: insert of 205k keys in random order, 16 B + 16 B", ns, "ns");
  report("  … slowest batch", worst, "ms");
  const key = kv.get(keyOf(77));
  const reads = filled(10_000, 16);
  const began = performance.now();
  for (let i = 0; i < 200_000; i++) reads.lookup(key);
  report("lookup", (performance.now() - began) * 1e6 / 200_000, "ns");
}

async function benchSnapshot(): Promise<void> {
  const machine = filled(100_000, 128);
  let save = Infinity;
  let recover = Infinity;
  let chunks: Uint8Array[] = [];
  for (let round = 0; round < 10; round++) {
    chunks = [];
    const start = performance.now();
    await machine.saveSnapshot(
      machine.prepareSnapshot(),
      new WritableStream({ write: (chunk) => void chunks.push(chunk) }),
      noFiles,
      never,
    );
    save = Math.min(save, performance.now() - start);
  }
  for (let round = 0; round < 10; round++) {
    const target = new ConcurrentKVStateMachine();
    const from = chunks.values();
    const start = performance.now();
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
    recover = Math.min(recover, performance.now() - start);
    if (target.getHash() !== machine.getHash()) {
      throw new Error(
        `Recovered state has hash ${target.getHash()}, not ${machine.getHash()}`,
      );
    }
  }
  const megabytes = chunks.reduce((sum, { length }) => sum + length, 0) / 1e6;
  report("save, 100k × (16 B + 128 B)", megabytes / save * 1000, "MB/s");
  report("recover", megabytes / recover * 1000, "MB/s");
}

/** Measures and prints. */
export async function kvBench(): Promise<void> {
  benchUpdates();
  await benchSnapshot();
}

if (import.meta.main) await kvBench();
