/**
 * Encoding and decoding of the records that a host writes into the log. Their
 * kinds are listed in `src/log/records.ts`; fixed-width numbers are little-endian.
 * Records carry no checksum: each log guards its own bytes.
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

/** Encodes the record that sets the session limit of a cluster. */
export function configRecord(sessionsMax: number): Uint8Array {
  return new ByteWriter(8).u8(RecordKind.Config).varint(sessionsMax).finish();
}

/** Encodes the record that registers a session. */
export function registerRecord(
  clientID: bigint,
  owner: Uint8Array,
): Uint8Array {
  return new ByteWriter(16).u8(RecordKind.Register).u64(clientID).bytes(owner)
    .finish();
}

/** Encodes the record that closes a session. */
export function unregisterRecord(session: number): Uint8Array {
  return new ByteWriter(8).u8(RecordKind.Unregister).varint(session).finish();
}

/** Encodes the record that moves a session from holder `from` to `holder` (H14). */
export function claimRecord(
  session: number,
  from: bigint,
  holder: bigint,
): Uint8Array {
  return new ByteWriter(24).u8(RecordKind.Claim).varint(session).u64(from)
    .u64(holder).finish();
}

/** Encodes the record that skips a series whose proposal the server rejected (H14). */
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

/** Encodes the record by which an operator has every replica skip an entry (H17). */
export function skipEntryRecord(index: number, reason: string): Uint8Array {
  const text = encodeShown(reason).subarray(0, REFUSAL_BYTES_MAX);
  return new ByteWriter(16 + text.length).u8(RecordKind.SkipEntry)
    .varint(index).raw(text).finish();
}

/** Length of the head of a sessionless proposal, in bytes. */
export function proposalHeadLength(sequence: number): number {
  return 9 + varintLength(sequence);
}

/** Writes the head of a sessionless proposal; returns the offset after it. */
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

/** Length of the head of a session's proposal, or of a skip, in bytes. */
export function sessionHeadLength(
  session: number,
  series: number,
  lag: number,
): number {
  return 1 + varintLength(session) + varintLength(series) + varintLength(lag);
}

/** Writes the head of a session's proposal, or a skip without a reason; returns the offset after it. */
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
 * Decodes one record at a time into its own fields, without allocating. `read()`
 * and the getters throw a `RangeError` for a malformed record.
 */
export class RecordCursor {
  /** Kind of the record, one of `RecordKind`. */
  kind = 0;
  /** Session index, of the kinds that name a session. */
  session = 0;
  /** Series in the session; of a sessionless proposal, its sequence number at the origin. */
  series = 0;
  /** Number of unacknowledged series before this one. */
  lag = 0;
  /** Low half of the origin of a sessionless proposal. */
  originLow = 0;
  /** High half of the origin of a sessionless proposal. */
  originHigh = 0;
  /** Index of the entry that an operator skips. */
  target = 0;
  /** Offset of the command, which extends to the end of the record. */
  start = 0;
  #at = 0;
  #end = 0;
  #bytes: Uint8Array = new Uint8Array(0);

  /** Decodes the head of the record at `bytes[start..end)`. */
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
          throw new RangeError(
            `Series ${this.series} cannot have ${this.lag} unacknowledged series before it`,
          );
        }
        if (kind === RecordKind.Skip) this.#checkReason();
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
        this.#checkReason();
        break;
      case RecordKind.Epoch:
      case RecordKind.Config:
      case RecordKind.Register:
        break;
      default:
        throw new RangeError(
          `Record has unknown kind or version 0x${
            kind.toString(16).padStart(2, "0")
          }`,
        );
    }
    this.start = this.#at;
    if (end - this.start > COMMAND_BYTES_MAX) {
      throw new RangeError(
        `Command has ${
          end - this.start
        } bytes; the limit is ${COMMAND_BYTES_MAX}`,
      );
    }
  }

  /** Decodes the id of an epoch record. */
  epoch(): bigint {
    return this.#rest((reader) => reader.u64());
  }

  /** Decodes the session limit of a configuration record. */
  sessionsMax(): number {
    return this.#rest((reader) => {
      const max = reader.varint();
      if (max >= 1 && max <= SESSIONS_MAX) return max;
      throw new RangeError(
        `Session limit ${max} is out of the range 1…${SESSIONS_MAX}`,
      );
    });
  }

  /** Reason of a skipped series or entry, as text; empty for a series that was not rejected. A view. */
  reason(): Uint8Array {
    return this.#bytes.subarray(this.start, this.#end);
  }

  /** Decodes the previous and the new holder of a claim record. */
  claim(): { from: bigint; holder: bigint } {
    return this.#rest((reader) => ({
      from: reader.u64(),
      holder: reader.u64(),
    }));
  }

  /** Decodes client id and owner of a register record. */
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
    if (this.#at !== this.#end) {
      throw new RangeError(
        `Record of kind ${this.kind} has ${
          this.#end - this.#at
        } bytes too many`,
      );
    }
  }

  #checkReason(): void {
    const length = this.#end - this.#at;
    if (length > REFUSAL_BYTES_MAX) {
      throw new RangeError(
        `Reason of a skip has ${length} bytes; the limit is ${REFUSAL_BYTES_MAX}`,
      );
    }
  }

  #endsEarly(): RangeError {
    return new RangeError(`Record of kind ${this.kind} ends too early`);
  }

  #u8(): number {
    if (this.#at >= this.#end) throw this.#endsEarly();
    return this.#bytes[this.#at++]!;
  }

  #u32(): number {
    if (this.#end - this.#at < 4) throw this.#endsEarly();
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
    throw new RangeError(
      `Varint in a record of kind ${this.kind} exceeds ${Number.MAX_SAFE_INTEGER}`,
    );
  }
}
