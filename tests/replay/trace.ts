/**
 * Recorded editing histories: reading one from a file, and making one.
 *
 * A file holds JSON, gzipped or not, of the shape used by the `editing-traces`
 * collection: `{ startContent, endContent, txns: [{ patches: [[position,
 * deleted, inserted], …] }] }`. Positions count Unicode code points; the patches
 * of a transaction apply one after the other.
 *
 * @module
 */

import { COMMAND_BYTES_MAX } from "../../src/limits.ts";
import { seeded } from "../support/random.ts";
import {
  encodeCommand,
  type Patch,
  TEXT_LENGTH_MAX,
  transactionBytesMax,
} from "./text_machine.ts";

/** Maximum size of a history, in bytes of JSON. */
export const TRACE_BYTES_MAX: number = 256 * 1024 * 1024;

/** Recorded history of edits. */
export interface Trace {
  /** Source of the history, for display. */
  readonly name: string;
  /** Text before the first transaction. */
  readonly startContent: string;
  /** Text after the last transaction. */
  readonly endContent: string;
  /** Transactions, each a list of patches that were made at once. */
  readonly txns: readonly (readonly Patch[])[];
}

/**
 * File that contains no replayable history; the message names it and is one
 * line.
 */
export class TraceError extends Error {
  /** Always `TraceError`. */
  override readonly name = "TraceError";
  /** Path of the file. */
  readonly file: string;

  /** Creates an error with the file and its problem. */
  constructor(file: string, problem: string, options?: ErrorOptions) {
    super(oneLine(`${file}: ${problem}`), options);
    this.file = file;
  }
}

/** Replaces characters that would break a line or control a terminal. */
export function oneLine(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, " ");
}

/**
 * Reads a history from a file and checks that it can be replayed.
 *
 * @throws TraceError if the file is missing, unreadable, damaged or something else
 */
export async function loadTrace(from: string | URL): Promise<Trace> {
  const file = typeof from === "string" ? from : decodeURIComponent(
    from.pathname.slice(from.pathname.lastIndexOf("/") + 1),
  );
  const json = await readText(file, from);
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (cause) {
    throw new TraceError(file, "damaged, or not an editing history (no JSON)", {
      cause,
    });
  }
  return checkTrace(file, value);
}

/** The text of a file, unpacked if it is gzipped. */
async function readText(file: string, from: string | URL): Promise<string> {
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    // Checked first, so that no device or enormous file is read.
    const { isFile, size } = await Deno.stat(from);
    if (!isFile) throw new TraceError(file, "not a file");
    if (size > TRACE_BYTES_MAX) throw tooLarge(file);
    bytes = await Deno.readFile(from);
  } catch (error) {
    if (error instanceof TraceError) throw error;
    const problem = error instanceof Deno.errors.NotFound
      ? "no such file"
      : error instanceof Deno.errors.PermissionDenied ||
          error instanceof Deno.errors.NotCapable
      ? "may not be read"
      : "cannot be read";
    throw new TraceError(file, problem, { cause: error });
  }
  if (bytes.length === 0) throw new TraceError(file, "empty");
  const packed = bytes[0] === 0x1f && bytes[1] === 0x8b;
  const pieces = packed ? await unpack(file, bytes) : [bytes];
  try {
    const decoder = new TextDecoder("utf-8", { fatal: true });
    let text = "";
    for (const piece of pieces) text += decoder.decode(piece, { stream: true });
    return text + decoder.decode();
  } catch (cause) {
    throw new TraceError(
      file,
      "damaged, or not an editing history (not UTF-8)",
      { cause },
    );
  }
}

async function unpack(
  file: string,
  bytes: Uint8Array<ArrayBuffer>,
): Promise<Uint8Array<ArrayBuffer>[]> {
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  let size = 0;
  try {
    const stream = ReadableStream.from([bytes]).pipeThrough(
      new DecompressionStream("gzip"),
    );
    for await (const piece of stream) {
      size += piece.length;
      if (size > TRACE_BYTES_MAX) throw tooLarge(file);
      pieces.push(piece);
    }
  } catch (cause) {
    if (cause instanceof TraceError) throw cause;
    throw new TraceError(file, "damaged (the gzip data is broken or cut off)", {
      cause,
    });
  }
  return pieces;
}

function tooLarge(file: string): TraceError {
  return new TraceError(
    file,
    `larger than ${TRACE_BYTES_MAX / 1024 / 1024} MiB`,
  );
}

/** Code points in a string. */
function codePoints(text: string): number {
  if (text.length === 1) return 1;
  let count = text.length;
  for (let at = 0; at + 1 < text.length; at++) {
    if ((text.charCodeAt(at) & 0xfc00) === 0xd800) {
      at++;
      count--;
    }
  }
  return count;
}

/**
 * Validates parsed JSON as a history; throws a `TraceError` that names the
 * first problem.
 */
function checkTrace(file: string, value: unknown): Trace {
  const foreign = (what: string): TraceError =>
    new TraceError(file, `not an editing history (${what})`);
  if (typeof value !== "object" || value === null) throw foreign("no object");
  const { startContent, endContent, txns } = value as Record<string, unknown>;
  for (const [name, text] of Object.entries({ startContent, endContent })) {
    if (typeof text !== "string") throw foreign(`no ${name}`);
    // A lone surrogate has no UTF-8 encoding and would not survive the round
    // trip.
    if (!text.isWellFormed()) throw foreign(`${name} is not Unicode`);
  }
  if (!Array.isArray(txns)) throw foreign("no txns");

  let length = codePoints(startContent as string);
  if (length > TEXT_LENGTH_MAX) throw foreign("startContent is too long");
  const checked = txns.map((txn: unknown, at): readonly Patch[] => {
    const patches = (txn as { patches?: unknown } | null)?.patches;
    if (!Array.isArray(patches)) throw foreign(`no patches in txns[${at}]`);
    for (let i = 0; i < patches.length; i++) {
      const patch: unknown = patches[i];
      if (!isPatch(patch)) {
        throw foreign(`txns[${at}].patches[${i}] is not a patch`);
      }
      const [position, deleted, inserted] = patch;
      if (position + deleted > length) {
        throw foreign(`txns[${at}].patches[${i}] is out of range`);
      }
      length += codePoints(inserted) - deleted;
      if (length > TEXT_LENGTH_MAX) throw foreign("its text grows too long");
    }
    if (
      transactionBytesMax(patches) > COMMAND_BYTES_MAX &&
      encodeCommand(patches).length > COMMAND_BYTES_MAX
    ) throw foreign(`txns[${at}] is too large for a command`);
    return patches;
  });
  return {
    name: oneLine(file),
    startContent: startContent as string,
    endContent: endContent as string,
    txns: checked,
  };
}

function isPatch(value: unknown): value is Patch {
  if (!Array.isArray(value) || value.length !== 3) return false;
  const [position, deleted, inserted] = value as unknown[];
  return Number.isSafeInteger(position) && position as number >= 0 &&
    Number.isSafeInteger(deleted) && deleted as number >= 0 &&
    typeof inserted === "string" && inserted.isWellFormed();
}

/**
 * Characters of typing errors; one of them is one code point and two UTF-16
 * units.
 */
const TYPOS = [..."etaoinshrdlu ;🐉"];

/**
 * The history of `text` being typed: a keystroke is a transaction. Now and then
 * something wrong is typed and deleted again, or a few words are left out, and
 * put in later with a jump back. The same text and seed give the same history.
 */
export function recordTyping(
  text: string,
  options: { readonly name?: string; readonly seed?: number } = {},
): Trace {
  const { name = "typing", seed = 1 } = options;
  const random = seeded(seed);
  const characters = [...text];
  const txns: Patch[][] = [];

  /** Types `characters[from..to)` one by one at `position`. */
  function type(position: number, from: number, to: number): void {
    for (let at = from; at < to; at++, position++) {
      if (random.oneIn(25)) mistype(position);
      txns.push([[position, 0, characters[at] as string]]);
    }
  }
  function mistype(position: number): void {
    const count = 1 + random.below(3);
    for (let i = 0; i < count; i++) {
      txns.push([[position + i, 0, random.pick(TYPOS)]]);
    }
    for (let i = count; i-- > 0;) txns.push([[position + i, 1, ""]]);
  }

  // Omitted words, and their position in the text typed so far.
  let from = 0;
  let to = 0;
  for (let at = 0; at < characters.length;) {
    const end = Math.min(characters.length, at + 20 + random.below(200));
    if (from === to && end < characters.length && random.oneIn(3)) {
      from = at;
      to = end;
    } else {
      type(at - (to - from), at, end);
      if (from < to && random.oneIn(2)) {
        type(from, from, to);
        from = to;
      }
    }
    at = end;
  }
  type(from, from, to);
  return { name, startContent: "", endContent: text, txns };
}
