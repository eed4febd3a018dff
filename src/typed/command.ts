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

/** Decoded command. */
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

/** Command without its arguments, for a decision about it. */
export type EnvelopeHead = Pick<Envelope, "name" | "version" | "by">;

/** Decodes the beginning of a command; undefined for bytes that are not a command. */
export function decodeHead(bytes: Uint8Array): EnvelopeHead | undefined {
  return attempt(() => {
    const reader = new PlainReader(bytes);
    if (reader.u8() !== FORMAT) return undefined;
    const name = reader.string();
    const version = reader.varint();
    reader.varint();
    const flag = reader.u8();
    if (flag > 1) return undefined;
    return { name, version, by: flag === 1 ? reader.string() : null };
  });
}

/** Result of `read`; undefined if the bytes end early or break a bound. */
function attempt<T>(read: () => T | undefined): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

/** Decodes a command; undefined for bytes that are not a command. */
export function decodeCommand(bytes: Uint8Array): Envelope | undefined {
  return attempt(() => {
    const reader = new PlainReader(bytes);
    if (reader.u8() !== FORMAT) return undefined;
    const name = reader.string();
    const version = reader.varint();
    const at = reader.varint();
    const flag = reader.u8();
    if (flag > 1) return undefined;
    const by = flag === 1 ? reader.string() : null;
    const seed = reader.raw(SEED_BYTES);
    const args = reader.value();
    if (reader.remaining > 0) return undefined;
    return { name, version, at, by, seed, args };
  });
}
