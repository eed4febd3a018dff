/**
 * References to a client's own records: in place of the bytes of a record that
 * the client has appended itself, the server may send its index, session, series
 * and a digest.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { hash64, hashKey, hashValue, lanes } from "../kv/hash.ts";
import { SYNC_REFERENCE_BYTES_MIN } from "../limits.ts";
import type { Records } from "../log/log.ts";
import { RecordKind } from "../log/records.ts";
import { RecordCursor } from "../rsm/record_codec.ts";

/** Digest of a record: the hash of a row of the key-value machines with an empty key and the record as its value. */
export function digestOf(record: Uint8Array): bigint {
  const view = new DataView(
    record.buffer,
    record.byteOffset,
    record.byteLength,
  );
  hashKey(view, 0, 0);
  hashValue(view, 0, record.length);
  return hash64(lanes[0]!, lanes[1]!);
}

const cursor = /* @__PURE__ */ new RecordCursor();

/**
 * Calls `visit` for each record that a reference can stand for: a proposal of a
 * session of `SYNC_REFERENCE_BYTES_MIN` bytes or more. `at` is its position in
 * `records`.
 */
export function visitReferable(
  { bytes, ends }: Records,
  visit: (
    at: number,
    record: Uint8Array,
    session: number,
    series: number,
  ) => void,
): void {
  let start = 0;
  for (const [at, end] of ends.entries()) {
    if (
      end - start >= SYNC_REFERENCE_BYTES_MIN &&
      bytes[start] === RecordKind.SessionProposal && isRecord(bytes, start, end)
    ) {
      const { session, series } = cursor;
      visit(at, bytes.subarray(start, end), session, series);
    }
    start = end;
  }
}

function isRecord(bytes: Uint8Array, start: number, end: number): boolean {
  try {
    cursor.read(bytes, start, end);
    return true;
  } catch {
    // The gate refuses it when it is appended.
    return false;
  }
}
