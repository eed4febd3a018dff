/**
 * Verification of a snapshot container that passes through a stream.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ByteReader } from "../bytes.ts";
import { withResolvers } from "../async.ts";
import { BlockType, decodeHeader, VERSION } from "./format.ts";
import { parseSnapshot } from "./parser.ts";
import type { SnapshotHeader, SnapshotTotals } from "./store.ts";

function noop(): void {}

/** Verifying stream and its results, created by {@linkcode verifySnapshot}. */
export interface SnapshotVerifier {
  /** Passes on the bytes of each block once it is verified; fails at the first damaged block. */
  readonly transform: TransformStream<Uint8Array, Uint8Array>;
  /** Header, once it is verified. Rejects if the stream fails; needs no handler. */
  readonly header: Promise<SnapshotHeader>;
  /** Totals, once the whole container is verified. Rejects if the stream fails; needs no handler. */
  readonly totals: Promise<SnapshotTotals>;
}

/**
 * Creates a stream that verifies the container passing through it, without
 * decompressing it. Bytes come out unchanged, none before it is verified. The
 * stream fails with `ErrSnapshotCorrupted` or `ErrSnapshotVersion` (H8).
 */
export function verifySnapshot(): SnapshotVerifier {
  const header = withResolvers<SnapshotHeader>();
  const totals = withResolvers<SnapshotTotals>();
  header.promise.catch(noop);
  totals.promise.catch(noop);
  const parser = parseSnapshot();
  parser.next();
  let version = VERSION;

  function fail(error: unknown): unknown {
    header.reject(error);
    totals.reject(error);
    return error;
  }

  function feed(
    chunk: Uint8Array | undefined,
    controller: TransformStreamDefaultController<Uint8Array>,
  ): void {
    try {
      let step = parser.next(chunk);
      for (; !step.done && step.value; step = parser.next()) {
        const { type, raw, data } = step.value;
        if (type === BlockType.Preamble) version = new ByteReader(data).u32();
        if (type === BlockType.Header) {
          header.resolve(decodeHeader(data, version));
        }
        controller.enqueue(raw);
      }
      if (step.done) totals.resolve(step.value);
    } catch (error) {
      throw fail(error);
    }
  }

  // The type lacks `cancel`, and so do browsers of 2023: there the promises stay
  // pending if the stream is cancelled.
  const transformer: Transformer<Uint8Array, Uint8Array> & {
    cancel(reason: unknown): void;
  } = {
    transform: feed,
    flush: (controller) => feed(undefined, controller),
    cancel: (reason) => {
      fail(reason);
    },
  };
  const transform = new TransformStream(transformer);
  return { transform, header: header.promise, totals: totals.promise };
}
