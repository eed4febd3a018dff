/**
 * The records a host writes into the log, and how they are read back. The kinds
 * are listed in `src/log/records.ts`; fixed-width numbers are little-endian.
 * Records carry no checksum: keeping bytes is the log's duty, and each log has
 * its own way.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ByteReader, ByteWriter, encodeShown, varintLength } from "../bytes.ts";
import { putVarint } from "../bytes.ts";
import { RecordKind } from "../log/records.ts";
import {
  COMMAND_BYTES_MAX,
  REFUSAL_BYTES_MAX,
  SESSION_OWNER_BYTES_MAX,
  SESSIONS_MAX,
} from "../limits.ts";

/** The record that sets the limits of a cluster. */
export function configRecord(sessionsMax: number): Uint8Array {
  return new ByteWriter(8).u8(RecordKind.Config).varint(sessionsMax).finish();
}

/** The record that opens a session. */
export function registerRecord(
  clientID: bigint,
  owner: Uint8Array,
): Uint8Array {
  return new ByteWriter(16).u8(RecordKind.Register).u64(clientID).bytes(owner)
    .finish();
}

/** The record that closes a session. */
export function unregisterRecord(session: number): Uint8Array {
  return new ByteWriter(8).u8(RecordKind.Unregister).varint(session).finish();
}

/** The record that takes a session over (H14). */
export function claimRecord(
  session: number,
  from: bigint,
  holder: bigint,
): Uint8Array {
  return new ByteWriter(24).u8(RecordKind.Claim).varint(session).u64(from)
    .u64(holder).finish();
}

/** A record that skips a series of a session because it was refused (H14). */
export function skipRecord(
  session: number,
  series: number,
  lag: number,
  reason: string,
): Uint8Array {
  const text = encodeShown(reason).subarray(0, REFUSAL_BYTES_MAX);
  return new ByteWriter(16 + text.length).u8(RecordKind.Skip).varint(session)
    .varint(series).varint(lag).raw(text).finish();
}

/** Record that has every replica skip the entry of that index, by an operator's decision (H17). */
export function skipEntryRecord(index: number, reason: string): Uint8Array {
  const text = encodeShown(reason).subarray(0, REFUSAL_BYTES_MAX);
  return new ByteWriter(16 + text.length).u8(RecordKind.SkipEntry)
    .varint(index).raw(text).finish();
}

/** Length of the head of a proposal outside of any session. */
export function proposalHeadLength(sequence: number): number {
  return 9 + varintLength(sequence);
}

/** Writes the head of a proposal outside of any session; returns the offset after it. */
export function putProposalHead(
  bytes: Uint8Array,
  at: number,
  originLow: number,
  originHigh: number,
  sequence: number,
): number {
  bytes[at] = RecordKind.Proposal;
  putU32(bytes, at + 1, originLow);
  putU32(bytes, at + 5, originHigh);
  return putVarint(bytes, at + 9, sequence);
}

function putU32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
  bytes[at + 2] = value >>> 16;
  bytes[at + 3] = value >>> 24;
}

/** Length of the head of a proposal of a session, or of a skip. */
export function sessionHeadLength(
  session: number,
  series: number,
  lag: number,
): number {
  return 1 + varintLength(session) + varintLength(series) + varintLength(lag);
}

/** Writes the head of a proposal of a session, or a whole skip; returns the offset after it. */
export function putSessionHead(
  bytes: Uint8Array,
  at: number,
  kind: typeof RecordKind.SessionProposal | typeof RecordKind.Skip,
  session: number,
  series: number,
  lag: number,
): number {
  bytes[at] = kind;
  at = putVarint(bytes, at + 1, session);
  at = putVarint(bytes, at, series);
  return putVarint(bytes, at, lag);
}

/**
 * Reads the records of a batch, one at a time, into its own fields: nothing is
 * allocated. `next()` throws a `RangeError` for what cannot be a record.
 */
export class RecordCursor {
  /** Kind of the record, from `RecordKind`. */
  kind = 0;
  /** Session, of the kinds that name one. */
  session = 0;
  /** Series in the session, or sequence number of the origin. */
  series = 0;
  /** Series before it that are not acknowledged. */
  lag = 0;
  /** Origin of a proposal outside of any session. */
  originLow = 0;
  /** Origin of a proposal outside of any session. */
  originHigh = 0;
  /** Index of the entry that a record skips by an operator's decision. */
  target = 0;
  /** Where the command starts; it ends with the record. */
  start = 0;
  #at = 0;
  #end = 0;
  #bytes: Uint8Array = new Uint8Array(0);

  /** Reads the head of the record at `bytes[start..end)`. */
  read(bytes: Uint8Array, start: number, end: number): void {
    this.#bytes = bytes;
    this.#at = start;
    this.#end = end;
    const kind = this.kind = this.#u8();
    switch (kind) {
      case RecordKind.SessionProposal:
      case RecordKind.Skip:
        this.session = this.#varint();
        this.series = this.#varint();
        this.lag = this.#varint();
        if (this.lag >= this.series) {
          throw new RangeError(`Series ${this.series} lags by ${this.lag}`);
        }
        if (kind === RecordKind.Skip && end - this.#at > REFUSAL_BYTES_MAX) {
          throw new RangeError("Reason of a skip is too long");
        }
        break;
      case RecordKind.Proposal:
        this.originLow = this.#u32();
        this.originHigh = this.#u32();
        this.series = this.#varint();
        break;
      case RecordKind.Unregister:
        this.session = this.#varint();
        this.#expectEnd();
        break;
      case RecordKind.Claim:
        this.session = this.#varint();
        break;
      case RecordKind.SkipEntry:
        this.target = this.#varint();
        if (end - this.#at > REFUSAL_BYTES_MAX) {
          throw new RangeError("Reason of a skipped entry is too long");
        }
        break;
      case RecordKind.Epoch:
      case RecordKind.Config:
      case RecordKind.Register:
        break;
      default:
        throw new RangeError(
          `Record of unknown kind or version 0x${
            kind.toString(16).padStart(2, "0")
          }`,
        );
    }
    this.start = this.#at;
    if (end - this.start > COMMAND_BYTES_MAX) {
      throw new RangeError(`Command of ${end - this.start} bytes is too big`);
    }
  }

  /** The epoch of an epoch record. */
  epoch(): bigint {
    return this.#rest((reader) => reader.u64());
  }

  /** The session limit of a config record. */
  sessionsMax(): number {
    return this.#rest((reader) => {
      const max = reader.varint();
      if (max >= 1 && max <= SESSIONS_MAX) return max;
      throw new RangeError(`Session limit ${max} is out of range`);
    });
  }

  /** Reason for which a record skips a series or an entry, as text; of a series, empty unless it was refused. A view. */
  reason(): Uint8Array {
    return this.#bytes.subarray(this.start, this.#end);
  }

  /** From whom to whom a claim record takes the session. */
  claim(): { from: bigint; holder: bigint } {
    return this.#rest((reader) => ({
      from: reader.u64(),
      holder: reader.u64(),
    }));
  }

  /** Client id and owner of a register record. */
  registration(): { clientID: bigint; owner: Uint8Array } {
    return this.#rest((reader) => ({
      clientID: reader.u64(),
      owner: reader.bytes(SESSION_OWNER_BYTES_MAX),
    }));
  }

  #rest<T>(read: (reader: ByteReader) => T): T {
    const reader = new ByteReader(this.#bytes.subarray(this.#at, this.#end));
    const value = read(reader);
    this.#at += reader.offset;
    this.#expectEnd();
    return value;
  }

  #expectEnd(): void {
    if (this.#at !== this.#end) throw new RangeError("Record is too long");
  }

  #u8(): number {
    if (this.#at >= this.#end) throw new RangeError("Record ends too early");
    return this.#bytes[this.#at++]!;
  }

  #u32(): number {
    if (this.#end - this.#at < 4) throw new RangeError("Record ends too early");
    const b = this.#bytes;
    const at = this.#at;
    this.#at = at + 4;
    return (b[at]! | b[at + 1]! << 8 | b[at + 2]! << 16 | b[at + 3]! << 24) >>>
      0;
  }

  #varint(): number {
    const first = this.#u8();
    if (first < 0x80) return first;
    let value = first & 0x7f;
    let scale = 0x80;
    for (let i = 1; i < 8; i++) {
      const byte = this.#u8();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        if (!Number.isSafeInteger(value)) break;
        return value;
      }
      scale *= 0x80;
    }
    throw new RangeError("Varint is too large");
  }
}
