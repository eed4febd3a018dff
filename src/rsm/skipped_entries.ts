/**
 * Entries that every replica skips, by an operator's decision that is in the log
 * (H17).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type ByteReader, ByteWriter, encodeShown } from "../bytes.ts";
import { REFUSAL_BYTES_MAX, SKIPPED_ENTRIES_MAX } from "../limits.ts";
import { SampanError } from "../statemachine/errors.ts";

/** An entry that every replica skips, present and future. */
export interface SkippedEntry {
  /** Index of the entry. */
  readonly index: number;
  /** Index of the record that decides it, which comes later in the log. */
  readonly decidedAt: number;
  /** Reason in words for people: the entry's proposer gets it. */
  readonly reason: string;
}

/**
 * A replica has applied an entry that is skipped, as other code than that of the
 * replicas that stopped there may: its state has to be recovered without the entry.
 * It fails with this error if neither log nor snapshots give such a state.
 */
export class ErrSkippedApplied extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrSkippedApplied";
  /** The entry, and the decision. */
  readonly skip: SkippedEntry;
  /** An error for a state that holds an entry which is skipped. */
  constructor(skip: SkippedEntry, options?: ErrorOptions) {
    const { index, decidedAt } = skip;
    super(
      `State holds entry ${index}, which record ${decidedAt} skips: it has to come from the log, or from a snapshot, of before entry ${index}. If there is no such snapshot, remove the data of the cluster here and import a snapshot of another replica`,
      options,
    );
    this.skip = skip;
  }
}

/** True if a snapshot of that index can be of a state without the entries that are skipped. */
export function isUsable(
  index: number,
  skips: readonly SkippedEntry[],
): boolean {
  return skips.every((skip) => index < skip.index || index >= skip.decidedAt);
}

/** Entries that are skipped, by their index. */
export class SkippedEntries {
  readonly #byIndex = new Map<number, SkippedEntry>();

  /** The entries given. */
  constructor(skips: readonly SkippedEntry[] = []) {
    for (const skip of skips) this.add(skip);
  }

  /** Adds one; past the bound the oldest is forgotten, which nothing but a replica far behind could still need. */
  add(skip: SkippedEntry): void {
    this.#byIndex.set(skip.index, skip);
    if (this.#byIndex.size <= SKIPPED_ENTRIES_MAX) return;
    this.#byIndex.delete(Math.min(...this.#byIndex.keys()));
  }

  /** The decision to skip the entry of that index, if there is one. */
  get(index: number): SkippedEntry | undefined {
    return this.#byIndex.get(index);
  }

  /** All of them, in the order of their entries. */
  list(): SkippedEntry[] {
    return [...this.#byIndex.values()].sort((a, b) => a.index - b.index);
  }

  /** Index of the first entry after `index` that is skipped; infinite if none is. */
  after(index: number): number {
    let next = Infinity;
    for (const skipped of this.#byIndex.keys()) {
      if (skipped > index && skipped < next) next = skipped;
    }
    return next;
  }

  /** True if a state at that index lacks an entry whose skipping is decided later in the log only: other replicas may have it. */
  isAhead(index: number): boolean {
    for (const skip of this.#byIndex.values()) {
      if (skip.index <= index && index < skip.decidedAt) return true;
    }
    return false;
  }
}

/** Encodes the entries skipped in a state, to follow its session table; nothing if there are none. */
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
 * Reads what `encodeSkips()` has put after a session table.
 *
 * @throws RangeError if the bytes are something else
 */
export function decodeSkips(reader: ByteReader): SkippedEntry[] {
  if (reader.remaining === 0) return [];
  const count = reader.varint();
  if (count > SKIPPED_ENTRIES_MAX) {
    throw new RangeError(`${count} skipped entries are over the limit`);
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

/** A decision as the value of a host's row, whose key names the entry. */
export function encodeSkip({ decidedAt, reason }: SkippedEntry): Uint8Array {
  return new ByteWriter(64).varint(decidedAt)
    .bytes(encodeShown(reason)).finish();
}

/**
 * Reads a decision about the entry of that index.
 *
 * @throws RangeError if the bytes are something else
 */
export function decodeSkip(index: number, reader: ByteReader): SkippedEntry {
  const decidedAt = reader.varint();
  const reason = new TextDecoder().decode(reader.bytes(REFUSAL_BYTES_MAX));
  if (!(index > 0 && index < decidedAt)) {
    throw new RangeError(`Entry ${index} cannot be skipped at ${decidedAt}`);
  }
  return { index, decidedAt, reason };
}
