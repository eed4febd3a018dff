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
import { percentile, report } from "./report.ts";

const KEYS = 100_000;
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

/** Measures and prints. */
export async function packedBench(): Promise<void> {
  const random = xorshift(7);
  const store = new CountingStore();
  const machine = new OnDiskKVStateMachine(store);
  await machine.open(never);
  for (const batch of batches(KEYS / BATCH_ENTRIES, (i) => i, random)) {
    await machine.update(batch);
  }
  await machine.sync();
  const rounds: Entry[][] = [
    ...batches(200, () => random() % KEYS, random),
  ];
  const entryBytes = 144;
  const stalls: number[] = [];
  const entries = rounds.length * BATCH_ENTRIES;
  const bytesBefore = store.bytes;
  let ns = Infinity;
  for (let round = 0; round < 4; round++) {
    store.ms = 0;
    const start = performance.now();
    for (const batch of rounds) {
      const from = performance.now();
      const done = machine.update(batch);
      stalls.push(performance.now() - from);
      if (done instanceof Promise) await done;
    }
    const ms = performance.now() - start - store.ms;
    ns = Math.min(ns, ms * 1e6 / entries);
  }
  const bytes = (store.bytes - bytesBefore) / 4;
  report("On disk: random overwrite, 100k keys, 16 B + 128 B", ns, "ns", {
    atMost: 4000,
    of: "250k/s",
  });
  report(
    "  … bytes written for each byte",
    bytes / entries / entryBytes,
    "",
    {
      of: "log and pages",
    },
  );
  report("  … longest synchronous update of 1000", Math.max(...stalls), "ms", {
    atMost: 50,
    of: "aim",
  });
  report("  … 99th percentile", percentile(stalls, 0.99), "ms", { of: "" });
  const logs = store.list("kv/log/", "kv/log0");
  report(
    "  … log then",
    logs.reduce((sum, { bytes }) => sum + bytes.length, 0) / 2 ** 20,
    "MiB",
    { of: `${logs.length} records` },
  );
  await machine.sync();
  const [again, ms] = await reopened(store);
  report("  … reopened, until the first lookup is answered", ms, "ms", {
    atMost: 150,
    of: "aim, of a browser",
  });
  if (again.getHash() !== machine.getHash()) {
    throw new Error(
      `Reopened state has hash ${again.getHash()}, not ${machine.getHash()}`,
    );
  }
  await benchReads(store);
}

async function benchReads(store: MemoryBlockStore): Promise<void> {
  const machine = new OnDiskKVStateMachine(store, {
    memoryBudgetBytes: 2 ** 20,
  });
  await machine.open(never);
  const random = xorshift(3);
  for (let i = 0; i < 2000; i++) {
    await machine.lookup(kv.get(keyOf(random() % KEYS)));
  }
  let from = performance.now();
  for (let i = 0; i < 5000; i++) {
    await machine.lookup(kv.get(keyOf(random() % KEYS)));
  }
  const cold = (performance.now() - from) / 5;
  report("On disk: lookup, cold, budget a fifteenth of the state", cold, "µs", {
    of: "read, check, find",
  });
  const warm = new OnDiskKVStateMachine(store);
  await warm.open(never);
  await warm.lookup(kv.range());
  for (let i = 0; i < KEYS; i += 100) await warm.lookup(kv.get(keyOf(i)));
  const keys = Array.from(
    { length: 50_000 },
    () => kv.get(keyOf(random() % KEYS)),
  );
  from = performance.now();
  for (const key of keys) warm.lookup(key);
  report(
    "On disk: lookup, warm",
    (performance.now() - from) * 1e6 / keys.length,
    "ns",
    { of: "copy included" },
  );
}

if (import.meta.main) await packedBench();
