/**
 * Throughput of the snapshot container alone: written into a sink that discards
 * the bytes, read and verified from memory.
 *
 * @module
 */

import {
  openSnapshot,
  type SnapshotHeader,
  SnapshotWriter,
  verifySnapshot,
} from "../../src/snapshot/mod.ts";
import { type Bench, type Cases, convert } from "./report.ts";

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

/** Measures the MiB of payload that go through the container in a second. */
async function benchContainer(
  bench: Bench,
  compression: "none" | "gzip",
  mib: number,
): Promise<void> {
  const header: SnapshotHeader = {
    clusterID: 1n,
    nodeID: 1n,
    type: 1,
    kind: "full",
    index: 1000,
    compression,
  };
  const size = bench.count(mib);
  const chunks = makeChunks(size * MIB);
  const container: Uint8Array[] = [];
  await save(header, chunks, container);
  const cut = recut(container);
  const measure = async (
    what: string,
    run: () => Promise<void>,
  ): Promise<void> =>
    bench.report(
      `snapshot container, ${compression}, ${what}`,
      convert(await bench.rounds(run, undefined, 5), (ms) => size / ms * 1000),
      "MiB/s",
    );
  await measure("save", () => save(header, chunks));
  await measure("recover", () => recover(container));
  await measure("recover, chunks across blocks", () => recover(cut));
  await measure("verify", () => verify(container));
}

/** Cases of the container. */
export const cases: Cases = {
  "container/none": { run: (bench) => benchContainer(bench, "none", 128) },
  "container/gzip": { run: (bench) => benchContainer(bench, "gzip", 8) },
};
