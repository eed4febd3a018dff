/**
 * Throughput of the snapshot container alone: written into a sink that discards
 * the bytes, read and verified from memory.
 *
 * @module
 */

// deno-lint-ignore-file no-console
import {
  openSnapshot,
  type SnapshotHeader,
  SnapshotWriter,
  verifySnapshot,
} from "../../src/snapshot/mod.ts";

const MIB = 1024 * 1024;
const CHUNK_BYTES = 64 * 1024;

/** Rows of 16 bytes of key and 128 of value, as a machine would pack them into chunks. */
function makeChunks(bytes: number): Uint8Array[] {
  const rows = new Uint8Array(Math.floor(bytes / 144) * 144);
  for (let i = 0; i < rows.length; i++) rows[i] = (i * 31 + (i >> 7)) & 0x7f;
  const chunks: Uint8Array[] = [];
  for (let at = 0; at < rows.length; at += CHUNK_BYTES) {
    chunks.push(rows.subarray(at, at + CHUNK_BYTES));
  }
  return chunks;
}

function source(chunks: readonly Uint8Array[]): ReadableStream<Uint8Array> {
  let next = 0;
  return new ReadableStream<Uint8Array>({
    pull(controller): void {
      const chunk = chunks[next++];
      if (chunk) controller.enqueue(chunk);
      else controller.close();
    },
  }, { highWaterMark: 0 });
}

async function save(
  header: SnapshotHeader,
  chunks: readonly Uint8Array[],
  keep?: Uint8Array[],
): Promise<void> {
  const sink = new WritableStream<Uint8Array>({
    write(chunk): void {
      keep?.push(chunk);
    },
  });
  const writer = new SnapshotWriter(sink, header, new Uint8Array(100));
  const machine = writer.payload.getWriter();
  for (const chunk of chunks) await machine.write(chunk);
  machine.releaseLock();
  await writer.finish();
}

async function recover(container: readonly Uint8Array[]): Promise<void> {
  const reader = await openSnapshot(source(container));
  const machine = reader.payload.getReader();
  while (!(await machine.read()).done);
  await reader.finish();
}

async function verify(container: readonly Uint8Array[]): Promise<void> {
  const verifier = verifySnapshot();
  await source(container).pipeThrough(verifier.transform)
    .pipeTo(new WritableStream());
  await verifier.totals;
}

/**
 * Cuts a container into chunks that do not align with its blocks, as reads of a
 * file do.
 */
function recut(container: readonly Uint8Array[]): Uint8Array[] {
  const bytes = new Uint8Array(
    container.reduce((sum, { length }) => sum + length, 0),
  );
  let at = 0;
  for (const chunk of container) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  const chunks: Uint8Array[] = [];
  for (at = 0; at < bytes.length; at += CHUNK_BYTES) {
    chunks.push(bytes.slice(at, at + CHUNK_BYTES));
  }
  return chunks;
}

/** The median of some runs of `run` over `mib` MiB, in MiB/s, after one to warm up. */
async function rate(
  mib: number,
  runs: number,
  run: () => Promise<void>,
): Promise<number> {
  const rates: number[] = [];
  for (let i = 0; i <= runs; i++) {
    const start = performance.now();
    await run();
    if (i) rates.push(mib / ((performance.now() - start) / 1000));
  }
  rates.sort((a, b) => a - b);
  return rates[rates.length >> 1] as number;
}

/** Prints how many MiB of payload go through the container in a second. */
export async function snapshotBench(): Promise<void> {
  for (
    const [compression, mib, runs] of [
      ["none", 128, 5],
      ["gzip", 8, 3],
    ] as const
  ) {
    const header: SnapshotHeader = {
      clusterID: 1n,
      nodeID: 1n,
      type: 1,
      kind: "full",
      index: 1000,
      compression,
    };
    const chunks = makeChunks(mib * MIB);
    const container: Uint8Array[] = [];
    await save(header, chunks, container);
    const cut = recut(container);
    const print = async (
      what: string,
      run: () => Promise<void>,
    ): Promise<void> =>
      console.log(
        `snapshot container, ${compression}, ${what}: ${
          (await rate(mib, runs, run)).toFixed(0)
        } MiB/s`,
      );
    await print("save", () => save(header, chunks));
    await print("recover", () => recover(container));
    await print("recover, chunks across blocks", () => recover(cut));
    await print("verify", () => verify(container));
  }
}

if (import.meta.main) await snapshotBench();
