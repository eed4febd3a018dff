/**
 * Cost of the on-disk key-value machine alone, over blocks in memory: no disk,
 * no host, no log.
 *
 * @module
 */

import { kv, OnDiskKVStateMachine } from "../../src/kv/mod.ts";
import type { Entry } from "../../src/statemachine/mod.ts";
import type { Changes, Durability } from "../../src/store/mod.ts";
import { MemoryBlockStore } from "../../src/store/mod.ts";
import { type Bench, type Cases, convert, percentile } from "./report.ts";

const BATCH_ENTRIES = 1000;
const never: AbortSignal = new AbortController().signal;

/** Counts the bytes written, and the time that takes. */
class CountingStore extends MemoryBlockStore {
  bytes = 0;
  writes = 0;
  ms = 0;

  override write(changes: Changes, durability: Durability): void {
    const from = performance.now();
    super.write(changes, durability);
    this.ms += performance.now() - from;
    this.writes++;
    for (const { bytes } of changes.put ?? []) this.bytes += bytes.length;
  }
}

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

/** Batches of puts, each cut from one buffer as in a host. */
function* batches(
  count: number,
  key: (n: number) => number,
  random: () => number,
): Generator<Entry[]> {
  const value = new Uint8Array(128);
  for (let n = 0; n < count; n++) {
    const buffer = new Uint8Array(BATCH_ENTRIES * 160);
    let at = 0;
    yield Array.from({ length: BATCH_ENTRIES }, (_, j) => {
      for (let i = 0; i < 4; i++) value[i] = random();
      const i = n * BATCH_ENTRIES + j;
      const cmd = kv.put(keyOf(key(i)), value);
      buffer.set(cmd, at);
      return { index: i + 1, cmd: buffer.subarray(at, at += cmd.length) };
    });
  }
}

async function reopened(
  store: MemoryBlockStore,
): Promise<[OnDiskKVStateMachine, number]> {
  let least = Infinity;
  let machine!: OnDiskKVStateMachine;
  for (let i = 0; i < 5; i++) {
    const from = performance.now();
    machine = new OnDiskKVStateMachine(store);
    await machine.open(never);
    await machine.lookup(kv.get(keyOf(i * 777)));
    least = Math.min(least, performance.now() - from);
  }
  return [machine, least];
}

/** Measures updates, a reopen and lookups of one store. */
async function benchPacked(bench: Bench): Promise<void> {
  const keys = Math.ceil(bench.count(100_000) / BATCH_ENTRIES) * BATCH_ENTRIES;
  const random = xorshift(7);
  const store = new CountingStore();
  const machine = new OnDiskKVStateMachine(store);
  await machine.open(never);
  for (const batch of batches(keys / BATCH_ENTRIES, (i) => i, random)) {
    await machine.update(batch);
  }
  await machine.sync();
  const updates: Entry[][] = [
    ...batches(bench.count(200), () => random() % keys, random),
  ];
  const entryBytes = 144;
  const stalls: number[] = [];
  const entries = updates.length * BATCH_ENTRIES;
  const bytesBefore = store.bytes;
  const rounds = bench.count(4);
  const ns: number[] = [];
  for (let round = 0; round < rounds; round++) {
    store.ms = 0;
    const start = performance.now();
    for (const batch of updates) {
      const from = performance.now();
      const done = machine.update(batch);
      stalls.push(performance.now() - from);
      if (done instanceof Promise) await done;
    }
    const ms = performance.now() - start - store.ms;
    ns.push(ms * 1e6 / entries);
  }
  const bytes = (store.bytes - bytesBefore) / rounds;
  bench.report(
    "on disk: random overwrite, 100k keys, 16 + 128 B",
    { wall: ns, processor: [] },
    "ns",
    { atMost: 4000, note: "250k/s, without the store's writes" },
  );
  bench.report(
    "… bytes written for each byte",
    bytes / entries / entryBytes,
    "×",
    { note: "log and pages" },
  );
  bench.report(
    "… longest synchronous update of 1,000",
    Math.max(...stalls),
    "ms",
    { atMost: 50 },
  );
  bench.report("… 99th percentile", percentile(stalls, 0.99), "ms");
  const logs = store.list("kv/log/", "kv/log0");
  bench.report(
    "… size of its log",
    logs.reduce((sum, { bytes }) => sum + bytes.length, 0) / 2 ** 20,
    "MiB",
    { note: `${logs.length} records` },
  );
  await machine.sync();
  const [again, ms] = await reopened(store);
  bench.report("… reopened, until the first lookup is answered", ms, "ms", {
    atMost: 150,
    note: "aim of a browser",
  });
  if (again.getHash() !== machine.getHash()) {
    throw new Error(
      `Reopened state has hash ${again.getHash()}, not ${machine.getHash()}`,
    );
  }
  await benchReads(bench, store, keys);
}

async function benchReads(
  bench: Bench,
  store: MemoryBlockStore,
  keys: number,
): Promise<void> {
  const random = xorshift(3);
  const queries = Array.from(
    { length: bench.count(50_000, 10) },
    () => kv.get(keyOf(random() % keys)),
  );
  const small = new OnDiskKVStateMachine(store, {
    memoryBudgetBytes: 2 ** 20,
  });
  await small.open(never);
  const some = queries.slice(0, queries.length / 10);
  const cold = await bench.rounds(async () => {
    for (const query of some) await small.lookup(query);
  });
  bench.report(
    "on disk: lookup, memory for a fifteenth of the state",
    convert(cold, (round) => round * 1e3 / some.length),
    "µs",
    { note: "read, check, find" },
  );
  const large = new OnDiskKVStateMachine(store);
  await large.open(never);
  for (const query of queries) await large.lookup(query);
  const warm = await bench.rounds(() => {
    for (const query of queries) large.lookup(query);
  });
  bench.report(
    "on disk: lookup, state in memory",
    convert(warm, (round) => round * 1e6 / queries.length),
    "ns",
    { note: "contains the copy of the value" },
  );
}

/** The case of the packed machine. */
export const cases: Cases = { "packed": { run: benchPacked } };
