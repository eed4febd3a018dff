/**
 * Envelope of a typed command, as it is queued and logged: what was asked for,
 * by whom and when, with the seed of everything random about it.
 *
 * ```text
 * 1                                the format
 * string name, varint version     of the command; name "" and version 0: an activation
 * varint time                     milliseconds since 1970
 * 0, or 1 and string author
 * 16 bytes seed
 * value                           the arguments, or the name of the activated change
 * ```
 *
 * Strings and values are those of {@link ./plain.ts plain data}.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type Plain, PlainReader, PlainWriter } from "./plain.ts";

const FORMAT = 1;

/** Length of a seed, in bytes. */
export const SEED_BYTES = 16;

/** Command with what is stored beside its arguments. */
export interface Envelope {
  /** Name of the command; empty for the activation of a change. */
  readonly name: string;
  /** Version of the arguments. */
  readonly version: number;
  /** Time of submission, in milliseconds since 1970. */
  readonly at: number;
  /** Author; null for a command without one. */
  readonly by: string | null;
  /** Seed of the command's random numbers and ids. */
  readonly seed: Uint8Array;
  /** Arguments, of the version named; for an activation, the name of the change. */
  readonly args: Plain;
}

const writer = /* @__PURE__ */ new PlainWriter();

/**
 * Encodes a command.
 *
 * @throws ErrNotPlain if the arguments are not plain data
 */
export function encodeCommand(
  { name, version, at, by, seed, args }: Envelope,
): Uint8Array<ArrayBuffer> {
  writer.reset().u8(FORMAT).string(name).varint(version).varint(at);
  if (by === null) writer.u8(0);
  else writer.u8(1).string(by);
  writer.raw(seed).value(args, `arguments of ${name}`);
  return writer.finish();
}

/** Encodes the activation of a change: the same bytes each time, since a second one has no effect. */
export function encodeActivation(change: string): Uint8Array<ArrayBuffer> {
  return encodeCommand({
    name: "",
    version: 0,
    at: 0,
    by: null,
    seed: new Uint8Array(SEED_BYTES),
    args: change,
  });
}

/** Envelope in bytes. Few commands need their seed, and a view costs more than a short text. */
class EncodedEnvelope implements Envelope {
  readonly name: string;
  readonly version: number;
  readonly at: number;
  readonly by: string | null;
  args: Plain = null;
  readonly #bytes: Uint8Array;
  readonly #seedAt: number;

  constructor(reader: PlainReader, bytes: Uint8Array) {
    this.name = reader.name();
    this.version = reader.varint();
    this.at = reader.varint();
    const flag = reader.u8();
    if (flag > 1) throw new RangeError(`Flag of the author is ${flag}`);
    this.by = flag === 1 ? reader.name() : null;
    this.#seedAt = reader.skip(SEED_BYTES);
    this.#bytes = bytes;
  }

  get seed(): Uint8Array {
    return this.#bytes.subarray(this.#seedAt, this.#seedAt + SEED_BYTES);
  }
}

/** Decodes the beginning of a command, with null in the place of its arguments; undefined for bytes that are not a command. */
export function decodeHead(bytes: Uint8Array): Envelope | undefined {
  return decode(bytes, false);
}

/** Decodes a command; undefined for bytes that are not a command. */
export function decodeCommand(bytes: Uint8Array): Envelope | undefined {
  return decode(bytes, true);
}

function decode(
  bytes: Uint8Array,
  withArguments: boolean,
): Envelope | undefined {
  try {
    const reader = new PlainReader(bytes);
    if (reader.u8() !== FORMAT) return undefined;
    const envelope = new EncodedEnvelope(reader, bytes);
    if (!withArguments) return envelope;
    envelope.args = reader.value();
    return reader.remaining > 0 ? undefined : envelope;
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}
