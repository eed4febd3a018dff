/**
 * Copies of the records that a client has appended and not read back yet, for
 * the references by which the server sends them back.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SYNC_OWN_RECORDS_BYTES_MAX } from "../../limits.ts";
import type { Records } from "../../log/log.ts";
import type { Entries, Reference } from "../messages.ts";
import { digestOf, runsOf } from "../references.ts";

/** Records of one session with consecutive series, in the order in which they were appended. */
interface OwnRun {
  readonly session: number;
  /** Series of the first. */
  readonly series: number;
  /** Bytes of all of them. */
  readonly bytes: Uint8Array;
  /** Offset after each. */
  readonly ends: readonly number[];
}

/**
 * Records appended over one connection, oldest first, of at most
 * `SYNC_OWN_RECORDS_BYTES_MAX` bytes: beyond that, the oldest are dropped, and the
 * server has to send them in full.
 */
export class OwnRecords {
  #runs: OwnRun[] = [];
  #bytes = 0;

  /** Copies the records of an append that is being sent. */
  add(records: Records): void {
    const { bytes, ends } = records;
    for (const { at, start, session, series, count, end } of runsOf(records)) {
      const own = bytes.slice(start, end);
      const from = ends.slice(at, at + count).map((one) => one - start);
      this.#runs.push({ session, series, bytes: own, ends: from });
      this.#bytes += own.length;
    }
    let over = 0;
    while (this.#bytes > SYNC_OWN_RECORDS_BYTES_MAX) {
      this.#bytes -= this.#runs[over++]!.bytes.length;
    }
    if (over > 0) this.#runs.splice(0, over);
  }

  /** Drops the runs before a position: the log has them in the same order, so the reader is past them. */
  #dropBefore(position: number): void {
    for (const { bytes } of this.#runs.splice(0, position)) {
      this.#bytes -= bytes.length;
    }
  }

  /** Copies the records of a reference to `target`, and drops those before the last run that has some of them; false if they are not here. */
  #resolve(
    { session, series, count, digest }: Reference,
    target: Uint8Array,
  ): boolean {
    for (let i = 0; i < this.#runs.length; i++) {
      // A series that was sent again is here twice.
      const last = this.#copy(i, session, series, count, target);
      if (last < 0 || digestOf(target) !== digest) continue;
      this.#dropBefore(last);
      return true;
    }
    return false;
  }

  /** Copies records that begin in the run at a position to `target`; returns the position of the run that has the last, -1 if they are not those. */
  #copy(
    position: number,
    session: number,
    series: number,
    count: number,
    target: Uint8Array,
  ): number {
    const end = series + count;
    let to = 0;
    for (; series < end; position++) {
      const run = this.#runs[position];
      if (run?.session !== session) return -1;
      const { bytes, ends } = run;
      const at = series - run.series;
      if (at < 0 || at >= ends.length) return -1;
      const until = Math.min(ends.length, at + end - series);
      const own = bytes.subarray(ends[at - 1] ?? 0, ends[until - 1]);
      if (own.length > target.length - to) return -1;
      target.set(own, to);
      to += own.length;
      series += until - at;
    }
    return to === target.length ? position - 1 : -1;
  }

  /**
   * Puts the referenced records of a message into its bytes. Returns "missing" if
   * some were dropped or are other records than the server's, and undefined if the
   * references are out of order or the lengths do not add up.
   */
  resolve(message: Entries): Records | "missing" | undefined {
    const { lengths, references, bytes } = message;
    let size = 0;
    const ends = lengths.map((length) => size += length);
    let ownBytes = 0;
    let before = 0;
    for (const { at, count } of references) {
      if (at < before || count < 1 || at + count > ends.length) {
        return undefined;
      }
      before = at + count;
      ownBytes += ends[before - 1]! - (ends[at - 1] ?? 0);
    }
    if (size - ownBytes !== bytes.length) return undefined;
    if (references.length === 0) {
      this.#drop({ bytes, ends });
      return { bytes, ends };
    }
    if (ownBytes > this.#bytes) return "missing";
    const whole = new Uint8Array(size);
    let from = 0;
    let to = 0;
    for (const reference of references) {
      const { at, count } = reference;
      const start = ends[at - 1] ?? 0;
      const end = ends[at + count - 1]!;
      whole.set(bytes.subarray(from, from + start - to), to);
      from += start - to;
      if (!this.#resolve(reference, whole.subarray(start, end))) {
        return "missing";
      }
      to = end;
    }
    whole.set(bytes.subarray(from), to);
    return { bytes: whole, ends };
  }

  /** Drops own records that were sent in full. */
  #drop(records: Records): void {
    if (this.#runs.length === 0) return;
    for (const { session, series, count } of runsOf(records)) {
      const last = series + count - 1;
      const at = this.#runs.findIndex((run) =>
        run.session === session && run.series <= last &&
        last < run.series + run.ends.length
      );
      if (at < 0) continue;
      const isWhole = last === this.#runs[at]!.series +
          this.#runs[at]!.ends.length - 1;
      this.#dropBefore(isWhole ? at + 1 : at);
    }
  }

  /** Drops all of them: the server refers to records of the same connection only. */
  clear(): void {
    this.#runs = [];
    this.#bytes = 0;
  }
}
