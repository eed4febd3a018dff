/**
 * Copy of a snapshot from a stream into a store, verified on the way.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type {
  SnapshotHeader,
  SnapshotInfo,
  SnapshotSink,
  SnapshotStore,
} from "./store.ts";
import { verifySnapshot } from "./verifier.ts";

/** Additional consumer of the bytes of a snapshot while it is copied. */
interface Inspection {
  /** Passes the next bytes on; rejects if they are invalid. */
  write(bytes: Uint8Array): Promise<void>;
  /** Resolves once all was read; rejects if the snapshot is invalid. */
  close(): Promise<void>;
  /** Ends the inspection because the copy has failed. */
  abort(reason: unknown): void;
}

/** Starts an inspection; without `inspect`, one that accepts everything. */
function startInspection(
  inspect: ((source: ReadableStream<Uint8Array>) => Promise<void>) | undefined,
): Inspection {
  if (inspect === undefined) {
    const write = (): Promise<void> => Promise.resolve();
    return { write, close: write, abort: () => {} };
  }
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const writer = writable.getWriter();
  writer.closed.catch(() => {});
  let failure: { readonly error: unknown } | undefined;
  const done = inspect(readable).catch((error) => {
    failure = { error };
  });
  const check = (): void => {
    if (failure !== undefined) throw failure.error;
  };
  return {
    async write(bytes): Promise<void> {
      check();
      // If the inspection has failed, the write fails too, and `check()` throws the cause.
      await Promise.race([writer.write(bytes).catch(() => {}), done]);
      check();
    },
    async close(): Promise<void> {
      writer.close().catch(() => {});
      await done;
      check();
    },
    abort(reason): void {
      writer.abort(reason).catch(() => {});
    },
  };
}

/** Copies a snapshot into a store and verifies it; `check` may refuse it by its header. */
export async function copySnapshot(
  source: ReadableStream<Uint8Array>,
  store: SnapshotStore,
  check: (header: SnapshotHeader) => void,
  options: {
    readonly imported?: boolean;
    readonly signal?: AbortSignal;
    /** Called once all bytes are written and verified; the copy is dropped if this rejects. */
    readonly beforeCommit?: (header: SnapshotHeader) => unknown;
    /** Reads the same bytes; the copy is dropped if this rejects. */
    readonly inspect?: (source: ReadableStream<Uint8Array>) => Promise<void>;
  } = {},
): Promise<SnapshotInfo> {
  const { transform, header, totals } = verifySnapshot();
  const { signal } = options;
  const verified = source.pipeThrough(transform, signal ? { signal } : {});
  const reader = verified.getReader();
  let sink: SnapshotSink | undefined;
  let inspection: Inspection | undefined;
  try {
    // Chunks are buffered until the header is complete.
    const buffered: Uint8Array[] = [];
    let known: SnapshotHeader | undefined;
    header.then((header) => known = header, () => {});
    let chunk = await reader.read();
    for (; known === undefined && !chunk.done; chunk = await reader.read()) {
      buffered.push(chunk.value);
    }
    known = await header;
    check(known);
    sink = await store.create(known, { imported: options.imported ?? false });
    const writer = sink.writable.getWriter();
    inspection = startInspection(options.inspect);
    for (const bytes of buffered) {
      await writer.write(bytes);
      await inspection.write(bytes);
    }
    for (; !chunk.done; chunk = await reader.read()) {
      await writer.write(chunk.value);
      await inspection.write(chunk.value);
    }
    await inspection.close();
    await writer.close();
    await options.beforeCommit?.(known);
    return await sink.commit(await totals);
  } catch (error) {
    inspection?.abort(error);
    await reader.cancel(error).catch(() => {});
    await sink?.abort(error);
    throw error;
  }
}
