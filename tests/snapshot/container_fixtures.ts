import { concat } from "../support/bytes.ts";
import { random } from "../support/random.ts";
import {
  type SnapshotHeader,
  type SnapshotTotals,
  SnapshotWriter,
} from "../../src/snapshot/mod.ts";

export function makeHeader(
  part: Partial<SnapshotHeader> = {},
): SnapshotHeader {
  return {
    clusterID: 7n,
    nodeID: (1n << 64n) - 1n,
    type: 2,
    kind: "full",
    index: 123_456_789_012,
    epoch: { index: 3, id: 0xfedcba9876543210n },
    compression: "none",
    ...part,
  };
}

/** Bytes that compress to about half. */
export function makeBytes(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  const next = random(seed);
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = next() * 16;
  return bytes;
}

/** Stream of copies of `bytes` in chunks of `size`. */
export function source(
  bytes: Uint8Array,
  size: number = 64 * 1024,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  let at = 0;
  return new ReadableStream({
    pull(controller): void {
      if (at >= bytes.length) return controller.close();
      controller.enqueue(new Uint8Array(bytes.slice(at, at += size)));
    },
  }, { highWaterMark: 0 });
}

export class Collector {
  readonly chunks: Uint8Array[] = [];
  closed = false;
  aborted: unknown;
  readonly stream: WritableStream<Uint8Array> = new WritableStream({
    write: (chunk) => {
      this.chunks.push(chunk.slice());
    },
    close: () => {
      this.closed = true;
    },
    abort: (reason) => {
      this.aborted = reason;
    },
  });

  get bytes(): Uint8Array<ArrayBuffer> {
    return concat(this.chunks);
  }
}

export interface Contents {
  readonly header?: SnapshotHeader;
  readonly sessions?: Uint8Array;
  readonly payload?: Uint8Array;
  readonly files?: readonly (readonly [bigint, Uint8Array, Uint8Array])[];
  readonly chunk?: number;
}

/** The container of some contents. */
export async function makeContainer(
  contents: Contents,
): Promise<{ bytes: Uint8Array<ArrayBuffer>; totals: SnapshotTotals }> {
  const { header = makeHeader(), chunk } = contents;
  const sink = new Collector();
  const writer = new SnapshotWriter(
    sink.stream,
    header,
    contents.sessions ?? new Uint8Array(),
  );
  await source(contents.payload ?? new Uint8Array(), chunk)
    .pipeTo(writer.payload);
  for (const [fileID, metadata, content] of contents.files ?? []) {
    await writer.addFile(fileID, metadata, source(content, chunk));
  }
  const totals = await writer.finish();
  return { bytes: sink.bytes, totals };
}
