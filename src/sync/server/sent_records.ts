/**
 * Names of the records that a client has appended over its connection, so that
 * they are sent back to it as references.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  SYNC_REFERENCE_BYTES_MIN,
  SYNC_SENT_SESSIONS_MAX,
} from "../../limits.ts";
import type { Records } from "../../log/log.ts";
import type { Reference } from "../messages.ts";
import { digestOf, type Run, runsOf } from "../references.ts";

/** Series of a session that were received and not sent back: from `next` up to, but without, `end`. Those that are missing between were skipped. */
interface Received {
  next: number;
  end: number;
}

/**
 * Series of the sessions that one client has appended over its connection and not
 * been sent back, of at most `SYNC_SENT_SESSIONS_MAX` sessions, the newest. Other
 * records are sent in full. A name may be wrong, say because the record was
 * replaced: the digest is always that of the records in the log.
 */
export class SentRecords {
  readonly #received = new Map<string, Received>();

  /** True if all records that were received were sent back. */
  get isEmpty(): boolean {
    return this.#received.size === 0;
  }

  /** Notes the records of an append. */
  add(channel: number, records: Records): void {
    for (const { session, series, count } of runsOf(records)) {
      const name = `${channel}/${session}`;
      const known = this.#received.get(name);
      const end = series + count;
      if (known === undefined) this.#received.set(name, { next: series, end });
      else {
        // Some may have been sent again.
        known.next = Math.min(known.next, series);
        known.end = Math.max(known.end, end);
      }
    }
    for (const name of this.#received.keys()) {
      if (this.#received.size <= SYNC_SENT_SESSIONS_MAX) break;
      this.#received.delete(name);
    }
  }

  /** Notes that the records of a batch are sent, and returns references to those that the client has. */
  take(channel: number, records: Records): readonly Reference[] {
    if (this.#received.size === 0) return NO_REFERENCES;
    const references: Reference[] = [];
    for (const run of runsOf(records)) {
      const name = `${channel}/${run.session}`;
      const known = this.#received.get(name);
      if (known === undefined) continue;
      const reference = referenceTo(records, run, known);
      if (reference !== undefined) references.push(reference);
      known.next = Math.max(known.next, run.series + run.count);
      if (known.next >= known.end) this.#received.delete(name);
    }
    return references;
  }
}

/** Reference to the records of a run that were received; undefined if there are none, or they are small. */
function referenceTo(
  { bytes, ends }: Records,
  { at, series, count, session }: Run,
  { next, end }: Received,
): Reference | undefined {
  const first = Math.max(next, series);
  const length = Math.min(end, series + count) - first;
  if (length <= 0) return undefined;
  const position = at + first - series;
  const own = bytes.subarray(
    ends[position - 1] ?? 0,
    ends[position + length - 1],
  );
  if (own.length < SYNC_REFERENCE_BYTES_MIN) return undefined;
  return {
    at: position,
    count: length,
    session,
    series: first,
    digest: digestOf(own),
  };
}

/** References of a batch without records of its reader. */
export const NO_REFERENCES: readonly Reference[] = [];

/** Bytes of a batch without the records that are referred to. */
export function withoutReferenced(
  { bytes, ends }: Records,
  references: readonly Reference[],
): Uint8Array {
  if (references.length === 0) return bytes;
  const parts: Uint8Array[] = [];
  let from = 0;
  for (const { at, count } of references) {
    parts.push(bytes.subarray(from, ends[at - 1] ?? 0));
    from = ends[at + count - 1]!;
  }
  parts.push(bytes.subarray(from));
  const rest = new Uint8Array(
    parts.reduce((sum, part) => sum + part.length, 0),
  );
  let at = 0;
  for (const part of parts) {
    rest.set(part, at);
    at += part.length;
  }
  return rest;
}
