/**
 * Entries that every replica skips because of an operator's decision, which is a
 * record in the log (H17).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type ByteReader, ByteWriter, encodeShown } from "../bytes.ts";
import { REFUSAL_BYTES_MAX, SKIPPED_ENTRIES_MAX } from "../limits.ts";
import { SampanError } from "../statemachine/errors.ts";

/** Entry that every replica skips, present and future. */
export interface SkippedEntry {
  /** Index of the entry. */
  readonly index: number;
  /** Index of the deciding record, which comes later in the log. */
  readonly decidedAt: number;
  /** Reason in words for people; the proposer of the entry receives it. */
  readonly reason: string;
}

/**
 * Thrown when a replica has applied an entry that is skipped, and neither the
 * log nor a snapshot can recover a state without it. This happens where another
 * version of the machine's code did not fail at the entry.
 */
export class ErrSkippedApplied extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrSkippedApplied";
  /** Skipped entry, with the decision. */
  readonly skip: SkippedEntry;
  /** Creates an error for a state that contains a skipped entry. */
  constructor(skip: SkippedEntry, options?: ErrorOptions) {
    const { index, decidedAt } = skip;
    super(
      `State contains entry ${index}, which record ${decidedAt} skips; recover it from a snapshot or a log from before entry ${index}. Without one, remove the data of the cluster on this device and import a snapshot of another replica`,
      options,
    );
    this.skip = skip;
  }
}

/** True if a snapshot at `index` cannot contain a skipped entry. */
export function isUsable(
  index: number,
  skips: readonly SkippedEntry[],
): boolean {
  return skips.every((skip) => index < skip.index || index >= skip.decidedAt);
}

/** Skipped entries, by index. */
export class SkippedEntries {
  readonly #byIndex = new Map<number, SkippedEntry>();

  /** Creates the set from a list. */
  constructor(skips: readonly SkippedEntry[] = []) {
    for (const skip of skips) this.add(skip);
  }

  /** Adds an entry; beyond the bound drops the oldest, which only a replica far behind could still need. */
  add(skip: SkippedEntry): void {
    this.#byIndex.set(skip.index, skip);
    if (this.#byIndex.size <= SKIPPED_ENTRIES_MAX) return;
    this.#byIndex.delete(Math.min(...this.#byIndex.keys()));
  }

  /** Returns the decision to skip the entry at `index`, if there is one. */
  get(index: number): SkippedEntry | undefined {
    return this.#byIndex.get(index);
  }

  /** Lists all entries in order of their index. */
  list(): SkippedEntry[] {
    return [...this.#byIndex.values()].sort((a, b) => a.index - b.index);
  }

  /** Index of the first skipped entry above `index`; `Infinity` if there is no other. */
  after(index: number): number {
    let next = Infinity;
    for (const skipped of this.#byIndex.keys()) {
      if (skipped > index && skipped < next) next = skipped;
    }
    return next;
  }

  /** True if a state at `index` omits an entry whose skip decision comes later in the log: other replicas may contain it. */
  isAhead(index: number): boolean {
    for (const skip of this.#byIndex.values()) {
      if (skip.index <= index && index < skip.decidedAt) return true;
    }
    return false;
  }
}

/** Appends the skipped entries of a state to its encoded session table; without any, returns the table unchanged. */
export function encodeSkips(
  sessions: Uint8Array,
  skips: readonly SkippedEntry[],
): Uint8Array {
  if (skips.length === 0) return sessions;
  const writer = new ByteWriter(sessions.length + 64 * skips.length);
  writer.raw(sessions).varint(skips.length);
  for (const skip of skips) writer.varint(skip.index).raw(encodeSkip(skip));
  return writer.finish();
}

/**
 * Decodes the skipped entries that {@linkcode encodeSkips} appended to a session table.
 *
 * @throws RangeError if the bytes are malformed
 */
export function decodeSkips(reader: ByteReader): SkippedEntry[] {
  if (reader.remaining === 0) return [];
  const count = reader.varint();
  if (count > SKIPPED_ENTRIES_MAX) {
    throw new RangeError(
      `State has ${count} skipped entries; the limit is ${SKIPPED_ENTRIES_MAX}`,
    );
  }
  const skips: SkippedEntry[] = [];
  for (let i = 0; i < count; i++) {
    skips.push(decodeSkip(reader.varint(), reader));
  }
  if (reader.remaining > 0) {
    throw new RangeError(
      `${reader.remaining} bytes follow the skipped entries`,
    );
  }
  return skips;
}

/** Encodes a decision as the value of a host row, whose key names the entry. */
export function encodeSkip({ decidedAt, reason }: SkippedEntry): Uint8Array {
  return new ByteWriter(64).varint(decidedAt)
    .bytes(encodeShown(reason)).finish();
}

/**
 * Decodes the decision about the entry at `index`.
 *
 * @throws RangeError if the bytes are malformed
 */
export function decodeSkip(index: number, reader: ByteReader): SkippedEntry {
  const decidedAt = reader.varint();
  const reason = new TextDecoder().decode(reader.bytes(REFUSAL_BYTES_MAX));
  if (!(index > 0 && index < decidedAt)) {
    throw new RangeError(
      `Entry ${index} cannot be skipped by record ${decidedAt}, which comes before it`,
    );
  }
  return { index, decidedAt, reason };
}
