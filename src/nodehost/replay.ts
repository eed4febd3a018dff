/**
 * Going over what was committed once more, to find the entry after which two
 * replicas differ (H12, U32).
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../env.ts";
import {
  APPLY_SLICE_MS,
  EXPLAIN_ENTRIES_MAX,
  REPLAY_ENTRIES_MAX,
} from "../limits.ts";
import { ErrCompacted } from "../log/errors.ts";
import type {
  Checkpoint,
  Log,
  LogBatch,
  LogReader,
  SnapshotSource,
} from "../log/log.ts";
import { lastOf, recordAt, RecordKind } from "../log/records.ts";
import { Driver, silentListener } from "../rsm/driver.ts";
import type { MachineFactory } from "../rsm/managed.ts";
import { RecordCursor } from "../rsm/record.ts";
import { MachineFailure, recoverSnapshot } from "../rsm/snapshots.ts";
import type { FileStore } from "../snapshot/file_store.ts";
import { OnDiskStateMachine } from "../statemachine/types.ts";
import { type Candidate, candidates } from "./bring_up.ts";
import { differ } from "./checkpoints.ts";
import { pacedSource } from "./pace.ts";

/** What a replay takes of its replica. */
export interface ReplayOptions {
  readonly factory: MachineFactory;
  readonly clusterID: bigint;
  readonly nodeID: bigint;
  readonly log: Log;
  /** Where snapshots may be found. */
  readonly stores: readonly SnapshotSource[];
  readonly files: FileStore;
  readonly env: Env;
  /** Ends it. */
  readonly signal: AbortSignal;
}

/** The hashes after some entries, in order. */
export type Hashes = readonly Omit<Checkpoint, "nodeID">[];

/** What of a batch is not after index `upTo`, at which it does not end before. */
function batchUpTo(batch: LogBatch, upTo: number): LogBatch {
  if (lastOf(batch) <= upTo) return batch;
  const { follows, first, records: { bytes, ends } } = batch;
  const kept = ends.slice(0, upTo - first + 1);
  const records = { bytes: bytes.subarray(0, kept.at(-1)), ends: kept };
  return { follows, first, records };
}

/**
 * The hashes that a new machine has after each entry in (`after`, `upTo`], from
 * the newest snapshot before them that is good, or from the log's beginning.
 * Undefined if they cannot be had: the machine is on disk or has no `getHash()`,
 * the log was cut, or there are too many entries to go over.
 */
export async function replay(
  after: number,
  upTo: number,
  options: ReplayOptions,
): Promise<Hashes | undefined> {
  const { factory, log, signal } = options;
  if (factory.type === OnDiskStateMachine) return undefined;
  const bases = (await candidates(options)).filter(({ info }) =>
    info.kind === "full" && info.index <= after
  );
  for (const base of [...bases, undefined]) {
    let reader: LogReader;
    try {
      const { index = 0, mark } = base?.info ?? {};
      reader = await log.read(index, { mark, signal });
    } catch (error) {
      if (error instanceof ErrCompacted) continue;
      throw error;
    }
    try {
      return await replayFrom(base, reader, after, upTo, options);
    } catch (error) {
      if (error instanceof MachineFailure) throw error.cause;
      // A snapshot that is of no use: there may be another.
      if (base === undefined || signal.aborted) throw error;
    } finally {
      reader.close();
    }
  }
  return undefined;
}

async function replayFrom(
  base: Candidate | undefined,
  reader: LogReader,
  after: number,
  upTo: number,
  options: ReplayOptions,
): Promise<Hashes | undefined> {
  const { factory, clusterID, nodeID, files, env, signal } = options;
  const hashes: Omit<Checkpoint, "nodeID">[] = [];
  let failed: { readonly cause: unknown } | undefined;
  const listener = silentListener<never>({
    checkpoint: (checkpoint) => void hashes.push(checkpoint),
    checkpointFailed: (cause) => failed ??= { cause },
  });
  const driver = new Driver(factory, clusterID, nodeID, listener, {
    hashEntries: 1,
    hashAfter: after,
  });
  try {
    if (!driver.machine.hasHash) return undefined;
    if (base !== undefined) {
      const { info, store } = base;
      await recoverSnapshot(driver, {
        info,
        open: async () => pacedSource(await store.open(info), env),
        files,
        directory: `replays/${clusterID}-${nodeID}/${info.index}`,
        signal,
      });
    }
    let count = 0;
    for (let slice = env.now(); driver.applied < upTo;) {
      const batch = await reader.next();
      signal.throwIfAborted();
      if (batch.first > upTo) break;
      count += batch.records.ends.length;
      try {
        await driver.apply([batchUpTo(batch, upTo)]);
      } catch (cause) {
        throw new MachineFailure("Entries could not be applied", { cause });
      }
      if (failed) throw new MachineFailure("Hash could not be had", failed);
      if (count > REPLAY_ENTRIES_MAX || hashes.length > EXPLAIN_ENTRIES_MAX) {
        return undefined;
      }
      if (env.now() - slice > APPLY_SLICE_MS) {
        await env.turn();
        slice = env.now();
      }
    }
    return hashes;
  } finally {
    try {
      await driver.close();
    } catch {
      // Of no interest: it is of no use any more.
    }
  }
}

/** The first index of both at which the hashes differ. */
export function firstDifference(
  one: Hashes | undefined,
  other: Hashes | undefined,
): number | undefined {
  const others = new Map(other?.map((hashes) => [hashes.index, hashes]));
  return one?.find((hashes) => {
    const other = others.get(hashes.index);
    return other !== undefined && differ(hashes, other);
  })?.index;
}

/** The command at an index; undefined if there is another record. */
export async function commandAt(
  log: Log,
  index: number,
  signal: AbortSignal,
): Promise<Uint8Array | undefined> {
  const reader = await log.read(index - 1, { signal });
  try {
    const { first, records } = await reader.next();
    if (first !== index) return undefined;
    const record = recordAt(records, 0);
    const cursor = new RecordCursor();
    cursor.read(record, 0, record.length);
    return cursor.kind === RecordKind.Proposal ||
        cursor.kind === RecordKind.SessionProposal
      ? record.slice(cursor.start)
      : undefined;
  } finally {
    reader.close();
  }
}
