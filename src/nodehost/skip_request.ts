/**
 * Request of an operator to skip an entry (H17): checked, and appended to the log.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { clipText } from "../bytes.ts";
import { describe, isWellFormed } from "../describe.ts";
import { REFUSAL_BYTES_MAX } from "../limits.ts";
import { ErrCompacted, ErrDiverged } from "../log/errors.ts";
import type { Log, Retention } from "../log/log.ts";
import { packRecords, recordAt, RecordKind } from "../log/records.ts";
import { skipEntryRecord } from "../rsm/record_codec.ts";
import type { SkippedEntry } from "../rsm/skipped_entries.ts";
import { copySnapshot } from "../snapshot/copy_snapshot.ts";
import { ErrSnapshotNotFound } from "../snapshot/errors.ts";
import type { SnapshotInfo, SnapshotStore } from "../snapshot/store.ts";
import { ErrSkipRefused } from "./errors.ts";
import { skipsAfter } from "./skip_decisions.ts";

/**
 * Appends a decision to skip an entry, and returns it; returns the first one if
 * the log has one already.
 *
 * @throws ErrSkipRefused if the log has no such entry, or it cannot be skipped
 */
export async function appendSkip(
  log: Log,
  clusterID: bigint,
  index: number,
  reason: string,
  stores: readonly (SnapshotStore | undefined)[],
): Promise<SkippedEntry> {
  checkArguments(index, reason);
  const refuse = (
    why: ErrSkipRefused["why"],
    detail: string,
    cause?: unknown,
  ): ErrSkipRefused =>
    new ErrSkipRefused(clusterID, index, why, detail, { cause });
  if (log.snapshots !== undefined) {
    throw refuse(
      "not here",
      "its log is ordered by a server: skip the entry on the server",
    );
  }
  // Retained until the decision is in the log, where every replica finds it before it compacts.
  const retention = log.retain(index - 1);
  try {
    let kind: number | undefined;
    try {
      kind = await kindOf(log, index);
    } catch (cause) {
      if (cause instanceof ErrCompacted) {
        throw refuse(
          "compacted",
          `the log starts at entry ${cause.firstIndex}: the state of every snapshot has the entry applied`,
          cause,
        );
      }
      if (!(cause instanceof ErrDiverged)) throw cause;
    }
    if (kind === undefined) {
      throw refuse("not found", "the log has no such entry");
    }
    if (
      kind !== RecordKind.Proposal && kind !== RecordKind.SessionProposal
    ) {
      throw refuse(
        "not a command",
        "its record is not a command: only commands can be skipped",
      );
    }
    const known = (await skipsAfter(log, index)).find((skip) =>
      skip.index === index
    );
    if (known !== undefined) return known;
    const base = await openBase(log, clusterID, index, stores, refuse);
    try {
      const text = clipText(reason, REFUSAL_BYTES_MAX);
      const record = skipEntryRecord(index, text);
      const decidedAt = await log.append(packRecords(record));
      await base?.restore();
      return { index, decidedAt, reason: text };
    } finally {
      base?.release();
    }
  } finally {
    retention.release();
  }
}

function checkArguments(index: number, reason: string): void {
  if (!Number.isSafeInteger(index) || index < 1) {
    throw new RangeError(
      `Index is ${describe(index)}; pass the index of an entry, 1 or more`,
    );
  }
  if (typeof reason !== "string" || reason === "" || !isWellFormed(reason)) {
    throw new TypeError(
      `Reason is ${
        describe(reason)
      }; pass a non-empty text, which the proposer gets`,
    );
  }
}

/** Returns the kind of the record at an index; undefined if the log has none there. */
async function kindOf(log: Log, index: number): Promise<number | undefined> {
  const reader = await log.read(index - 1);
  try {
    if (reader.lastAtStart < index) return undefined;
    const batch = await reader.next();
    return batch.first === index ? recordAt(batch.records, 0)[0] : undefined;
  } finally {
    reader.close();
  }
}

/**
 * Snapshot from before a skipped entry, of which the replicas that have applied the
 * entry recover. Others may replace it until they find the decision in the log.
 */
class Base {
  readonly #store: SnapshotStore;
  readonly #info: SnapshotInfo;
  readonly #source: ReadableStream<Uint8Array>;
  readonly #retention: Retention;

  constructor(
    log: Log,
    store: SnapshotStore,
    info: SnapshotInfo,
    source: ReadableStream<Uint8Array>,
  ) {
    this.#store = store;
    this.#info = info;
    this.#source = source;
    this.#retention = log.retain(info.index);
  }

  /** Puts the snapshot back if it was removed since it was opened. */
  async restore(): Promise<void> {
    const { clusterID, index } = this.#info;
    const listed = await this.#store.list(clusterID);
    if (listed.some((info) => info.kind === "full" && info.index === index)) {
      return;
    }
    await copySnapshot(this.#source, this.#store, () => {});
  }

  /** Gives up the snapshot and the entries after it. */
  release(): void {
    this.#retention.release();
    // Fails if it was put back, and read to its end.
    this.#source.cancel().catch(() => {});
  }
}

/** Opens the snapshot of which a replica that has applied the entry recovers a state without it; undefined if it can do so from the log's beginning. */
async function openBase(
  log: Log,
  clusterID: bigint,
  index: number,
  stores: readonly (SnapshotStore | undefined)[],
  refuse: (why: ErrSkipRefused["why"], detail: string) => ErrSkipRefused,
): Promise<Base | undefined> {
  let first = 1;
  try {
    (await log.read(0)).close();
    return undefined;
  } catch (error) {
    if (!(error instanceof ErrCompacted)) throw error;
    first = error.firstIndex;
  }
  for (const store of stores) {
    if (store === undefined) continue;
    for (const info of await store.list(clusterID)) {
      if (
        info.kind !== "full" || info.index >= index || info.index + 1 < first
      ) continue;
      try {
        return new Base(log, store, info, await store.open(info));
      } catch (error) {
        // Another host has removed it since.
        if (!(error instanceof ErrSnapshotNotFound)) throw error;
      }
    }
  }
  throw refuse(
    "no base",
    `the log starts at entry ${first}, and there is no full snapshot between that and the entry: no replica could recover a state without it`,
  );
}
