/**
 * An editing history as commands of the text machine.
 *
 * @module
 */

import { SLAB_BYTES } from "../../src/limits.ts";
import {
  encodeTransaction,
  type Patch,
  transactionBytesMax,
} from "./text_machine.ts";
import type { Trace } from "./trace.ts";

/**
 * Maximum length of an insertion of the initial text, in UTF-16 units; even in
 * UTF-8 a command may be larger.
 */
const START_UNITS = 64 * 1024;

/**
 * Transactions that insert the initial text of a history; none if it is empty.
 */
function startTransactions(text: string): Patch[][] {
  const txns: Patch[][] = [];
  // From the end, each before the previous one, so that no length needs to be
  // known.
  for (let end = text.length; end > 0;) {
    let start = Math.max(0, end - START_UNITS);
    // Does not split a surrogate pair.
    if (start > 0 && (text.charCodeAt(start) & 0xfc00) === 0xdc00) start--;
    txns.push([[0, 0, text.slice(start, end)]]);
    end = start;
  }
  return txns;
}

/** Transactions of a history, after those that insert its initial text. */
export function transactions(trace: Trace): readonly (readonly Patch[])[] {
  const { startContent, txns } = trace;
  return startContent === ""
    ? txns
    : [...startTransactions(startContent), ...txns];
}

/**
 * Transactions as commands, up to `count` at a time, to bound the memory in
 * use. They share buffers: a separate buffer costs a microsecond per command.
 */
export function* commandChunks(
  txns: readonly (readonly Patch[])[],
  count: number,
): Generator<Uint8Array[]> {
  let slab = new Uint8Array(0);
  let end = 0;
  let chunk: Uint8Array[] = [];
  for (const patches of txns) {
    const room = transactionBytesMax(patches);
    if (room > slab.length - end) {
      slab = new Uint8Array(Math.max(SLAB_BYTES, room));
      end = 0;
    }
    const start = end;
    end = encodeTransaction(patches, slab, start);
    chunk.push(slab.subarray(start, end));
    if (chunk.length === count) {
      yield chunk;
      chunk = [];
    }
  }
  if (chunk.length > 0) yield chunk;
}
