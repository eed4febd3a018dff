/**
 * Host: proposals end to end, snapshots, and the cost of a snapshot for
 * proposals.
 *
 * @module
 */

import {
  ConcurrentKVStateMachine,
  type IStateMachine,
  kv,
  MemorySnapshotStore,
  NodeHost,
  type Replica,
  type Result,
  type Session,
} from "../../mod.ts";
import { openSnapshot, type SnapshotHeader } from "../../src/ports/mod.ts";
import { SnapshotWriter } from "../../src/snapshot/mod.ts";
import { collectGarbage } from "../support/garbage.ts";
import { best, percentile, report } from "./report.ts";

class NoOpStateMachine implements IStateMachine {
  update(cmd: Uint8Array): Result {
    return { value: BigInt(cmd.length > 0) };
  }
  lookup(): undefined {}
  saveSnapshot(): void {}
  recoverFromSnapshot(): void {}
  close(): void {}
}

const config = { clusterID: 1n, nodeID: 1n };

/** Proposes `count` commands with `inFlight` of them in flight. */
async function propose(
  replica: Replica,
  count: number,
  inFlight: number,
  session?: Session,
): Promise<void> {
  const cmd = new Uint8Array(16);
  const options = session === undefined ? {} : { session };
  let left = count;
  const client = async (): Promise<void> => {
    while (left-- > 0) await replica.propose(cmd, options);
  };
  await Promise.all(Array.from({ length: inFlight }, client));
}

async function proposeBench(): Promise<void> {
  const count = 300_000;
  await using host = new NodeHost();
  const replica = await host.startCluster(() => new NoOpStateMachine(), {
    ...config,
    // Keeps the log short, as a real one would be.
    snapshotEntries: 100_000,
  });
  const inFlight = await best(5, () => propose(replica, count, 1024));
  report(
    "propose → result, in-memory log, 1024 in flight, 16 B",
    count / inFlight / 1000,
    "M/s",
    { atLeast: 1, of: "aim" },
  );
  const session = await replica.openSession();
  const once = await best(5, () => propose(replica, count, 1024, session));
  report("… exactly-once, one session", count / once / 1000, "M/s", {
    of: "",
  });
  const one = await best(5, () => propose(replica, 50_000, 1));
  report("… one at a time", one * 1e3 / 50_000, "µs", {
    of: "",
  });
}

/** A machine with `count` keys of 16 B and values of `size` bytes. */
function filled(count: number, size: number): ConcurrentKVStateMachine {
  const machine = new ConcurrentKVStateMachine();
  const value = new Uint8Array(size);
  for (let i = 0; i < count; i++) {
    value[0] = i;
    value[size - 1] = i >>> 8;
    const cmd = kv.put(`key-${String(i).padStart(12, "0")}`, value);
    machine.update([{ index: i + 1, cmd }]);
  }
  return machine;
}

const header: SnapshotHeader = {
  clusterID: 1n,
  nodeID: 1n,
  type: 2,
  kind: "full",
  index: 1,
  compression: "none",
};
const files = { addFile(): void {} };
const signal = new AbortController().signal;

/** Saves a machine into a container that goes to `sink`. */
async function save(
  machine: ConcurrentKVStateMachine,
  sink: WritableStream<Uint8Array>,
): Promise<void> {
  const writer = new SnapshotWriter(sink, header, new Uint8Array());
  await machine.saveSnapshot(
    machine.prepareSnapshot(),
    writer.payload,
    files,
    signal,
  );
  await writer.finish();
}

async function recover(
  source: ReadableStream<Uint8Array>,
): Promise<ConcurrentKVStateMachine> {
  const machine = new ConcurrentKVStateMachine();
  const reader = await openSnapshot(source);
  await machine.recoverFromSnapshot(reader.payload, [], signal);
  await reader.finish();
  return machine;
}

async function snapshotRateBench(): Promise<void> {
  const [count, size] = [100_000, 128];
  const megabytes = count * (16 + size) / 1e6;
  const machine = filled(count, size);
  const saved = await best(9, () => save(machine, new WritableStream()));
  report(
    "snapshot of 100k × (16 B + 128 B), save",
    megabytes / saved * 1e3,
    "MB/s",
    {
      atLeast: 330,
      of: "Dragonboat 253–334",
    },
  );
  await using store = new MemorySnapshotStore();
  const sink = await store.create(header);
  await save(machine, sink.writable);
  const info = await sink.commit({ files: 0 });
  const recovered = await best(9, async () => recover(await store.open(info)));
  report("… recover", megabytes / recovered * 1e3, "MB/s", {
    atLeast: 230,
    of: "Dragonboat 165–229",
  });
}

/** The memory a process holds now, in MiB. */
function memory(): number {
  return Deno.memoryUsage().rss / 2 ** 20;
}

/** Extra memory of saving and recovering a 1 GiB state: resident memory, sampled with every block, beyond that of the states. */
async function memoryBench(): Promise<void> {
  let most = 0;
  const look = (): void => void (most = Math.max(most, memory()));
  // A first run loads the code without large buffers.
  const small = filled(1000, 128);
  const copy = async (
    machine: ConcurrentKVStateMachine,
  ): Promise<ConcurrentKVStateMachine> => {
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>({
      transform(block, controller): void {
        look();
        controller.enqueue(block);
      },
    });
    const [recovered] = await Promise.all([
      recover(readable),
      save(machine, writable),
    ]);
    return recovered;
  };
  await copy(small);
  const machine = filled(16_384, 64 * 1024 - 64);
  collectGarbage();
  const before = memory();
  most = 0;
  await save(machine, new WritableStream({ write: look }));
  report("extra memory while saving a 1 GiB state", most - before, "MiB", {
    atMost: 16,
    of: "aim",
  });
  most = 0;
  const other = await copy(machine);
  if (other.getHash() !== machine.getHash()) {
    throw new Error(
      `Recovered state has hash ${other.getHash()}, not ${machine.getHash()}`,
    );
  }
  report(
    "extra memory while saving and recovering it",
    most - memory(),
    "MiB",
    {
      atMost: 16,
      of: "aim",
    },
  );
}

/** Latencies of proposals, one every turn of the event loop. */
async function latencies(
  replica: Replica,
  until: Promise<unknown>,
): Promise<number[]> {
  const samples: number[] = [];
  let over = false;
  until.finally(() => over = true);
  for (let i = 0; !over; i++) {
    const from = performance.now();
    const cmd = kv.put(`key-${String(i % 100_000).padStart(12, "0")}`, `v${i}`);
    await replica.propose(cmd);
    samples.push(performance.now() - from);
    if (i % 16 === 0) await new Promise((resolve) => setTimeout(resolve, 0));
  }
  return samples;
}

export async function stallBench(): Promise<void> {
  await using host = new NodeHost();
  const replica = await host.startConcurrentCluster(
    () => filled(100_000, 128),
    config,
  );
  const wait = (ms: number): Promise<void> =>
    new Promise((resolve) => setTimeout(resolve, ms));
  await latencies(replica, wait(500));
  const without = await latencies(replica, wait(2000));
  const snapshots = (async (): Promise<void> => {
    for (const end = performance.now() + 2000; performance.now() < end;) {
      await replica.requestSnapshot();
      await wait(0);
    }
  })();
  const during = await latencies(replica, snapshots);
  const p99 = percentile(without, 0.99);
  report("p99 of a proposal, no snapshot", p99 * 1e3, "µs", { of: "" });
  report(
    "p99 of a proposal while a concurrent machine is saved",
    percentile(during, 0.99) * 1e3,
    "µs",
    { atMost: Math.round(2 * p99 * 1e3), of: "2 × that without" },
  );
}

/** Measures the host. */
export async function hostBench(): Promise<void> {
  await proposeBench();
  await snapshotRateBench();
  await stallBench();
  await memoryBench();
}

if (import.meta.main) await hostBench();
