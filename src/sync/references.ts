/**
 * References to a client's own records: in place of the bytes of records that the
 * client has appended itself, the server may send their session, their series and
 * a digest.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { hash64, hashKey, hashValue, lanes } from "../kv/hash.ts";
import type { Records } from "../log/log.ts";
import { RecordKind } from "../log/records.ts";
import { RecordCursor } from "../rsm/record_codec.ts";

/** Digest of records: the hash of a row of the key-value machines with an empty key and the bytes of the records as its value. */
export function digestOf(records: Uint8Array): bigint {
  const view = new DataView(
    records.buffer,
    records.byteOffset,
    records.byteLength,
  );
  hashKey(view, 0, 0);
  hashValue(view, 0, records.length);
  return hash64(lanes[0]!, lanes[1]!);
}

/** Records of one session whose series are consecutive, beside each other in a batch. */
export interface Run {
  /** Position of the first in the batch. */
  readonly at: number;
  /** Offset of the first byte. */
  readonly start: number;
  /** Session of the records. */
  readonly session: number;
  /** Series of the first. */
  readonly series: number;
  /** Number of records. */
  count: number;
  /** Offset after the last byte. */
  end: number;
}

const cursor = /* @__PURE__ */ new RecordCursor();

/** Finds the runs of session proposals in a batch, from position `from` on. */
export function runsOf({ bytes, ends }: Records, from = 0): Run[] {
  const runs: Run[] = [];
  let run: Run | undefined;
  let start = ends[from - 1] ?? 0;
  for (let at = from; at < ends.length; at++) {
    const end = ends[at]!;
    if (!isProposal(bytes, start, end)) run = undefined;
    else {
      const { session, series } = cursor;
      if (run?.session === session && run.series + run.count === series) {
        run.count++;
        run.end = end;
      } else {
        run = { at, start, session, series, count: 1, end };
        runs.push(run);
      }
    }
    start = end;
  }
  return runs;
}

function isProposal(bytes: Uint8Array, start: number, end: number): boolean {
  if (bytes[start] !== RecordKind.SessionProposal) return false;
  try {
    cursor.read(bytes, start, end);
    return true;
  } catch {
    // The gate refuses it when it is appended.
    return false;
  }
}
