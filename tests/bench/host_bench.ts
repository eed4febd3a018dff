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
import {
  type Bench,
  type Cases,
  convert,
  percentile,
  type Samples,
  wallOnly,
} from "./report.ts";

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

async function benchPropose(
  bench: Bench,
  inFlight: number,
  inSession: boolean,
): Promise<Samples> {
  const count = bench.count(inFlight === 1 ? 50_000 : 300_000);
  await using host = new NodeHost();
  const replica = await host.startCluster(() => new NoOpStateMachine(), {
    ...config,
    // Keeps the log short, as a real one would be.
    snapshotEntries: 100_000,
  });
  const session = inSession ? await replica.openSession() : undefined;
  const ms = await bench.rounds(() =>
    propose(replica, count, inFlight, session)
  );
  return convert(wallOnly(ms), (round) => count / round / 1e3);
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

async function benchSnapshotRate(bench: Bench): Promise<void> {
  const [count, size] = [bench.count(100_000), 128];
  const megabytes = count * (16 + size) / 1e6;
  const machine = filled(count, size);
  const rate = (ms: number): number => megabytes / ms * 1e3;
  const saved = await bench.rounds(() => save(machine, new WritableStream()));
  bench.report(
    "snapshot of 100k × (16 + 128 B), save",
    convert(wallOnly(saved), rate),
    "MB/s",
    { atLeast: 330, dragonboat: 294, note: "Dragonboat: 253–334" },
  );
  await using store = new MemorySnapshotStore();
  const sink = await store.create(header);
  await save(machine, sink.writable);
  const info = await sink.commit({ files: 0 });
  const recovered = await bench.rounds(async () =>
    recover(await store.open(info))
  );
  bench.report("… recover", convert(wallOnly(recovered), rate), "MB/s", {
    atLeast: 230,
    dragonboat: 197,
    note: "Dragonboat: 165–229",
  });
}

/** The memory a process holds now, in MiB. */
function memory(): number {
  return Deno.memoryUsage().rss / 2 ** 20;
}

/** Extra memory of saving and recovering a 1 GiB state: resident memory, sampled with every block, beyond that of the states. */
async function benchMemory(bench: Bench): Promise<void> {
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
  const machine = filled(bench.count(16_384), 64 * 1024 - 64);
  collectGarbage();
  const before = memory();
  most = 0;
  await save(machine, new WritableStream({ write: look }));
  bench.report(
    "extra memory while saving a 1 GiB state",
    most - before,
    "MiB",
    { atMost: 16 },
  );
  most = 0;
  const other = await copy(machine);
  if (other.getHash() !== machine.getHash()) {
    throw new Error(
      `Recovered state has hash ${other.getHash()}, not ${machine.getHash()}`,
    );
  }
  bench.report("… and recovering it", most - memory(), "MiB", { atMost: 16 });
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

/** Measures proposals while snapshots are saved, and without. */
async function benchStall(bench: Bench): Promise<void> {
  await using host = new NodeHost();
  const replica = await host.startConcurrentCluster(
    () => filled(bench.count(100_000), 128),
    config,
  );
  const wait = (ms: number): Promise<void> =>
    new Promise((resolve) => setTimeout(resolve, ms));
  await latencies(replica, wait(bench.count(1000)));
  const without = await latencies(replica, wait(bench.count(2000)));
  const snapshots = (async (): Promise<void> => {
    for (
      const end = performance.now() + bench.count(2000);
      performance.now() < end;
    ) {
      await replica.requestSnapshot();
      await wait(0);
    }
  })();
  const during = await latencies(replica, snapshots);
  const p99 = percentile(without, 0.99);
  bench.report("p99 of a proposal, no snapshot", p99 * 1e3, "µs");
  const saving = percentile(during, 0.99);
  bench.report("… while a concurrent machine is saved", saving * 1e3, "µs");
  bench.report("… relative to without", saving / p99, "×", { atMost: 2 });
}

/** Cases of the host. */
export const cases: Cases = {
  "host/propose": {
    async run(bench): Promise<void> {
      bench.report(
        "propose → result, log in memory, 1,024 in flight, 16 B",
        await benchPropose(bench, 1024, false),
        "M/s",
        { atLeast: 1 },
      );
    },
  },
  "host/propose-session": {
    async run(bench): Promise<void> {
      bench.report(
        "… exactly-once, one session",
        await benchPropose(bench, 1024, true),
        "M/s",
      );
    },
  },
  "host/propose-one": {
    async run(bench): Promise<void> {
      bench.report(
        "… one at a time",
        await benchPropose(bench, 1, false),
        "M/s",
      );
    },
  },
  "host/snapshot": { run: benchSnapshotRate },
  "host/stall": { processes: 3, run: benchStall },
  "host/memory": { run: benchMemory },
};
