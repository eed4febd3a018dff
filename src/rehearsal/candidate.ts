/**
 * Record on its way into the log, as a rehearsal sees it.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Length of the beginning of a record by which it is found in the log, in bytes. */
const COMPARED_BYTES = 64;

/** Place of a record in a session: a series, 0 for the record that closes the session. */
export interface Place {
  /** Index of the session; `REGISTRATION` for the record that opens one. */
  readonly session: number;
  /** Series in the session. */
  readonly series: number;
  /** Number of series before it that are not acknowledged. */
  readonly lag: number;
}

/** Session of the place of a record that opens a session. */
export const REGISTRATION = -1;

/** Record that was admitted and is not applied yet. */
export class Candidate {
  /** Buffer that contains the record. */
  bytes: Uint8Array;
  /** Offset of the record in the buffer. */
  start: number;
  /** Offset after the last byte of the record. */
  end: number;
  /** Command in the record; undefined for a record that skips a series, or opens or closes a session. */
  readonly cmd: Uint8Array | undefined;
  /** Session of the record; 0 for none. */
  readonly session: number;
  /** Series in the session; 0 for a record that closes it. */
  readonly series: number;
  /** Number of series before it that are not acknowledged. */
  readonly lag: number;
  /** True if the command is refused when the machine throws at it; otherwise it is only left out of the fork. */
  readonly isRefusable: boolean;
  /** Index of the record or of a later one, once known; 0 before. */
  index = 0;
  /** Set once the record was passed to the log. */
  isAppended = false;
  /** Set once a fork has applied the command, or need not. */
  isPassed = false;
  /** Set once the machine threw at the command. */
  thrown: { readonly error: unknown } | undefined;
  /** Set if the record will not be in the log. */
  isDropped = false;

  /** Creates a candidate for an admitted record. */
  constructor(
    bytes: Uint8Array,
    start: number,
    end: number,
    cmd: Uint8Array | undefined,
    place: Place | undefined,
    isRefusable: boolean,
  ) {
    this.bytes = bytes;
    this.start = start;
    this.end = end;
    this.cmd = cmd;
    this.session = place?.session ?? 0;
    this.series = place?.series ?? 0;
    this.lag = place?.lag ?? 0;
    this.isRefusable = isRefusable;
  }

  /** Notes that another record goes into the log instead. */
  replace(record: Uint8Array): void {
    this.bytes = record;
    this.start = 0;
    this.end = record.length;
  }

  /** True if the record is, with high probability, the one in `bytes` from `start` to `end`. */
  isAt(bytes: Uint8Array, start: number, end: number): boolean {
    const length = end - start;
    if (this.end - this.start !== length) return false;
    const compared = Math.min(length, COMPARED_BYTES);
    const own = this.bytes;
    for (let i = 0; i < compared; i++) {
      if (own[this.start + i] !== bytes[start + i]) return false;
    }
    return true;
  }
}
