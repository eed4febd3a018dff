/**
 * Batches of commands and of their results, each packed into few buffers that move
 * from thread to thread.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { isU64 } from "../bytes.ts";
import type { Entry, Result } from "../statemachine/types.ts";

/** Commands of a batch. */
export interface PackedCommands {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Offset after each command. */
  readonly ends: Uint32Array<ArrayBuffer>;
  /** Log index of each command; undefined for a regular machine. */
  readonly indexes: Float64Array<ArrayBuffer> | undefined;
}

/** Packs commands. */
export function packCommands(
  commands: readonly Uint8Array[],
  indexes: Float64Array<ArrayBuffer> | undefined,
): PackedCommands {
  const ends = new Uint32Array(commands.length);
  let end = 0;
  for (const [i, { length }] of commands.entries()) ends[i] = end += length;
  const bytes = new Uint8Array(end);
  let at = 0;
  for (const cmd of commands) {
    bytes.set(cmd, at);
    at += cmd.length;
  }
  return { bytes, ends, indexes };
}

/** Buffers of packed commands. */
export function buffersOf(
  { bytes, ends, indexes }: PackedCommands,
): ArrayBuffer[] {
  const buffers = [bytes.buffer, ends.buffer];
  if (indexes !== undefined) buffers.push(indexes.buffer);
  return buffers;
}

/** Command at a position. */
export function commandAt(
  { bytes, ends }: PackedCommands,
  at: number,
): Uint8Array {
  return bytes.subarray(at === 0 ? 0 : ends[at - 1]!, ends[at]!);
}

/** Entries of packed commands. */
export function entriesOf(packed: PackedCommands): Entry[] {
  const entries: Entry[] = [];
  for (let i = 0; i < packed.ends.length; i++) {
    entries.push({ index: packed.indexes![i]!, cmd: commandAt(packed, i) });
  }
  return entries;
}

/** Results of a batch. */
export interface PackedResults {
  readonly values: BigUint64Array<ArrayBuffer>;
  /** Size of the data of each result, -1 for one without. */
  readonly sizes: Int32Array<ArrayBuffer>;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** True for a result as the contract wants it. */
export function isResult(result: Result | undefined): result is Result {
  return typeof result?.value === "bigint" && isU64(result.value) &&
    (result.data === undefined || result.data instanceof Uint8Array);
}

/** Packs results. */
export function packResults(results: readonly Result[]): PackedResults {
  const values = new BigUint64Array(results.length);
  const sizes = new Int32Array(results.length);
  let size = 0;
  for (const [i, { value, data }] of results.entries()) {
    values[i] = value;
    sizes[i] = data?.length ?? -1;
    size += data?.length ?? 0;
  }
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const { data } of results) {
    if (data === undefined) continue;
    bytes.set(data, at);
    at += data.length;
  }
  return { values, sizes, bytes };
}

/** Results of a packed batch. */
export function resultsOf({ values, sizes, bytes }: PackedResults): Result[] {
  const results: Result[] = [];
  let at = 0;
  for (const [i, size] of sizes.entries()) {
    const value = values[i]!;
    results.push(
      // Copied, so that one of them does not keep the others in memory.
      size < 0 ? { value } : { value, data: bytes.slice(at, at += size) },
    );
  }
  return results;
}
