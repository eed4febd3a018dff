/**
 * Copies of the records that a client has appended and not read back yet, for
 * the references by which the server sends them back.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { copyOf } from "../../bytes.ts";
import { SYNC_OWN_RECORDS_BYTES_MAX } from "../../limits.ts";
import type { Records } from "../../log/log.ts";
import type { Entries } from "../messages.ts";
import { digestOf, visitReferable } from "../references.ts";

function keyOf(session: number, series: number): string {
  return `${session}/${series}`;
}

/**
 * Records appended over one connection, oldest first, of at most
 * `SYNC_OWN_RECORDS_BYTES_MAX` bytes: beyond that, the oldest are dropped, and the
 * server has to send them in full.
 */
export class OwnRecords {
  readonly #records = new Map<string, Uint8Array>();
  #bytes = 0;

  /** Copies the records of an append that is being sent. */
  add(records: Records): void {
    visitReferable(records, (_at, record, session, series) => {
      const key = keyOf(session, series);
      this.#delete(key);
      this.#records.set(key, copyOf(record));
      this.#bytes += record.length;
    });
    for (const key of this.#records.keys()) {
      if (this.#bytes <= SYNC_OWN_RECORDS_BYTES_MAX) break;
      this.#delete(key);
    }
  }

  #delete(key: string): void {
    this.#bytes -= this.#records.get(key)?.length ?? 0;
    this.#records.delete(key);
  }

  /**
   * Removes and returns a record, and drops those appended before it: the log has
   * them in the same order, so the reader is past them.
   */
  #take(session: number, series: number): Uint8Array | undefined {
    const wanted = keyOf(session, series);
    const record = this.#records.get(wanted);
    if (record === undefined) return undefined;
    for (const key of this.#records.keys()) {
      this.#delete(key);
      if (key === wanted) break;
    }
    return record;
  }

  /**
   * Puts the referenced records of a message into its bytes. Returns "missing" if
   * one was dropped or is another record than the server's, and undefined if the
   * references are out of order or the lengths do not add up.
   */
  resolve(message: Entries): Records | "missing" | undefined {
    const { lengths, references, bytes } = message;
    const own = new Map<number, Uint8Array>();
    let isMissing = false;
    let ownBytes = 0;
    let size = 0;
    let before = -1;
    for (const { at, session, series, digest } of references) {
      const length = lengths[at];
      if (length === undefined || at <= before) return undefined;
      before = at;
      ownBytes += length;
      const record = this.#take(session, series);
      isMissing ||= record?.length !== length || digestOf(record) !== digest;
      own.set(at, record ?? NO_BYTES);
    }
    const ends = lengths.map((length) => size += length);
    if (size - ownBytes !== bytes.length) return undefined;
    if (isMissing) return "missing";
    if (own.size === 0) return { bytes, ends };
    const whole = new Uint8Array(size);
    let from = 0;
    let to = 0;
    for (const [at, length] of lengths.entries()) {
      const record = own.get(at);
      whole.set(record ?? bytes.subarray(from, from + length), to);
      if (record === undefined) from += length;
      to += length;
    }
    return { bytes: whole, ends };
  }

  /** Drops all of them: the server refers to records of the same connection only. */
  clear(): void {
    this.#records.clear();
    this.#bytes = 0;
  }
}

const NO_BYTES = /* @__PURE__ */ new Uint8Array();
