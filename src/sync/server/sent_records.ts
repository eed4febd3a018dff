/**
 * Names of the records that a client has appended over its connection, so that
 * they are sent back to it as references.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SYNC_SENT_RECORDS_MAX } from "../../limits.ts";
import type { Records } from "../../log/log.ts";
import type { Reference } from "../messages.ts";
import { digestOf, visitReferable } from "../references.ts";

/**
 * Sessions and series of records received on one connection and not sent back
 * yet: at most `SYNC_SENT_RECORDS_MAX`, the newest. A record whose name is not
 * among them is sent in full. A name may be wrong, say because the record was
 * replaced: the digest is always that of the record in the log.
 */
export class SentRecords {
  readonly #names = new Set<string>();

  /** Notes the records of an append. */
  add(channel: number, records: Records): void {
    visitReferable(records, (_at, _record, session, series) => {
      this.#names.add(`${channel}/${session}/${series}`);
    });
    for (const name of this.#names) {
      if (this.#names.size <= SYNC_SENT_RECORDS_MAX) break;
      this.#names.delete(name);
    }
  }

  /** Removes the names of records of a batch, and returns references to them. */
  take(channel: number, records: Records): readonly Reference[] {
    if (this.#names.size === 0) return NO_REFERENCES;
    const references: Reference[] = [];
    visitReferable(records, (at, record, session, series) => {
      if (!this.#names.delete(`${channel}/${session}/${series}`)) return;
      references.push({ at, session, series, digest: digestOf(record) });
    });
    return references;
  }
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
  for (const { at } of references) {
    parts.push(bytes.subarray(from, at === 0 ? 0 : ends[at - 1]));
    from = ends[at]!;
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
