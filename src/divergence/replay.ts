/**
 * Replay of committed entries into a new state machine, to find the entry after
 * which two replicas differ, or at which `update()` throws (H12, U32).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { pacedSource } from "../async.ts";
import { copyOf } from "../bytes.ts";
import type { Env } from "../env.ts";
import {
  APPLY_SLICE_MS,
  EXPLAIN_BYTES_MAX,
  EXPLAIN_ENTRIES_MAX,
  REPLAY_ENTRIES_MAX,
} from "../limits.ts";
import { ErrCompacted } from "../log/errors.ts";
import type {
  Log,
  LogBatch,
  LogReader,
  ReadOptions,
  SnapshotSource,
} from "../log/log.ts";
import {
  batchAfter,
  batchUpTo,
  lastOf,
  recordAt,
  RecordKind,
} from "../log/records.ts";
import { MachineFailure } from "../rsm/errors.ts";
import type { MachineFactory } from "../rsm/managed_machine.ts";
import { RecordCursor } from "../rsm/record_codec.ts";
import { recoverSnapshot } from "../rsm/recover_snapshot.ts";
import type { SkippedEntry } from "../rsm/skipped_entries.ts";
import {
  type SnapshotCandidate,
  snapshotCandidates,
} from "../rsm/snapshot_candidates.ts";
import {
  type FailedEntries,
  noopListener,
  StateMachine,
} from "../rsm/state_machine.ts";
import { type FileStore, HOST_DIRECTORY } from "../snapshot/file_store.ts";
import type {
  IConcurrentStateMachine,
  IStateMachine,
} from "../statemachine/machines.ts";
import {
  ConcurrentStateMachine,
  OnDiskStateMachine,
  RegularStateMachine,
} from "../statemachine/types.ts";
import { type Hashes, isDifferent } from "./checkpoints.ts";

/** Creates a state machine in memory, for `ReplicaConfig.replayMachine`. */
export type CreateReplayMachineFunc = (
  clusterID: bigint,
  nodeID: bigint,
) => IStateMachine | IConcurrentStateMachine;

/** Parts of a replica that a replay reads from. */
export interface ReplayOptions {
  /** Returns the factory of the next machine. */
  readonly factory: () => MachineFactory;
  readonly clusterID: bigint;
  readonly nodeID: bigint;
  readonly log: Log;
  /** Stores that may have a snapshot, local ones first. */
  readonly stores: readonly SnapshotSource[];
  readonly files: FileStore;
  readonly env: Env;
  /** Known skipped entries. */
  readonly skips: readonly SkippedEntry[];
  /** Ends the replay when it aborts. */
  readonly signal: AbortSignal;
}

/** Result of a replay. */
export interface Replayed {
  /** Hashes after each of the entries, in order. */
  readonly hashes: readonly Hashes[];
  /** Commands of the entries by index, up to a bound in bytes; copies, since the log may be compacted before one is reported. */
  readonly commands: ReadonlyMap<number, Uint8Array>;
}

/** Returns the factory of machines for a replay: `replayMachine`, or that of the replica; undefined for an on-disk machine without `replayMachine`, since it may have one instance only. */
export function replayFactory(
  factory: MachineFactory,
  { replayMachine, clusterID, nodeID }: {
    readonly replayMachine?: CreateReplayMachineFunc;
    readonly clusterID: bigint;
    readonly nodeID: bigint;
  },
): (() => MachineFactory) | undefined {
  if (replayMachine === undefined) {
    return factory.type === OnDiskStateMachine ? undefined : () => factory;
  }
  return () => {
    const machine = replayMachine(clusterID, nodeID);
    return "prepareSnapshot" in machine
      ? { type: ConcurrentStateMachine, create: () => machine }
      : { type: RegularStateMachine, create: () => machine };
  };
}

/**
 * Replays entries into a new machine, and returns its hashes after each entry in
 * (`after`, `upTo`]. Begins with the newest usable snapshot before them, or with the
 * first entry of the log. Returns undefined if the machine has no `getHash()`, the
 * log was compacted, or there are too many entries.
 *
 * @throws MachineFailure if the machine failed
 */
export function replay(
  after: number,
  upTo: number,
  options: ReplayOptions,
): Promise<Replayed | undefined> {
  return fromBase(
    after,
    options,
    (base, reader) => replayFrom(base, reader, after, upTo, options),
    (error) => error instanceof MachineFailure,
  );
}

/**
 * Finds the entry, among these, at which `update()` of a new machine throws when
 * they are applied one by one. Returns undefined if it does not throw, or if the
 * entries before them are not available.
 */
export function locateFailure(
  entries: FailedEntries,
  options: ReplayOptions,
): Promise<number | undefined> {
  return fromBase(
    entries.index - 1,
    options,
    (base, reader) => failingEntry(base, reader, entries, options),
    () => false,
  );
}

/**
 * Calls `read` with the newest usable full snapshot at or below index `upTo` and a
 * reader of the log after it, else with a reader from the beginning of the log.
 * Returns undefined if the log was compacted there; `isFinal` errors end the search.
 */
export async function fromBase<T>(
  upTo: number,
  options: ReplayOptions,
  read: (
    base: SnapshotCandidate | undefined,
    reader: LogReader,
    options: ReplayOptions,
  ) => Promise<T>,
  isFinal: (error: unknown) => boolean,
): Promise<T | undefined> {
  const { log, signal } = options;
  for (const store of [...options.stores, undefined]) {
    const bases = store === undefined
      ? [undefined]
      : await basesIn(store, options, upTo);
    for (const base of bases) {
      const { index = 0, epoch } = base?.info ?? {};
      try {
        const done = await readLog(
          log,
          index,
          { epoch, signal },
          (reader) => read(base, reader, options),
        );
        if (done !== undefined) return done.value;
      } catch (error) {
        // Another snapshot may be usable.
        if (base === undefined || signal.aborted || isFinal(error)) {
          throw error;
        }
      }
    }
  }
  return undefined;
}

/** Full snapshots of a store up to index `upTo`; none if the store fails. */
async function basesIn(
  store: SnapshotSource,
  { clusterID, skips }: ReplayOptions,
  upTo: number,
): Promise<SnapshotCandidate[]> {
  try {
    return (await snapshotCandidates([store], clusterID, skips))
      .filter(({ info }) => info.kind === "full" && info.index <= upTo);
  } catch {
    return [];
  }
}

/**
 * Reads the log after an index; undefined if it was compacted there. Tried twice:
 * another process that keeps the log reports it as compacted also if a snapshot would
 * only be faster, but only the first time.
 */
async function readLog<T>(
  log: Log,
  after: number,
  options: ReadOptions,
  read: (reader: LogReader) => Promise<T>,
): Promise<{ readonly value: T } | undefined> {
  for (let tries = 0; tries < 2; tries++) {
    let reader: LogReader | undefined;
    try {
      reader = await log.read(after, options);
      return { value: await read(reader) };
    } catch (error) {
      if (!(error instanceof ErrCompacted)) throw error;
    } finally {
      reader?.close();
    }
  }
  return undefined;
}

/** Recovers the machine of a replay from the snapshot it begins at. */
export async function recoverBase(
  machine: StateMachine<never>,
  { info, store }: SnapshotCandidate,
  { clusterID, nodeID, files, env, signal }: ReplayOptions,
): Promise<void> {
  await recoverSnapshot(machine, {
    info,
    open: async () => pacedSource(await store.open(info), env),
    files,
    directory: `${HOST_DIRECTORY}/replay/${clusterID}-${nodeID}/${info.index}`,
    signal,
  });
}

/** Closes the machine of a replay; errors are ignored, since it is not used any more. */
export async function discard(machine: StateMachine<never>): Promise<void> {
  try {
    await machine.close();
  } catch {
    // Nothing depends on it.
  }
}

/** Replays the log up to the range of entries, then the range one by one; returns the one at which the machine threw. */
async function failingEntry(
  base: SnapshotCandidate | undefined,
  reader: LogReader,
  { index, upTo }: FailedEntries,
  options: ReplayOptions,
): Promise<number | undefined> {
  const { factory, clusterID, nodeID, env, signal, skips } = options;
  const machine = new StateMachine(
    factory(),
    clusterID,
    nodeID,
    noopListener<never>(),
    { hashEntries: 0, skips },
  );
  try {
    if (base !== undefined) await recoverBase(machine, base, options);
    let count = 0;
    for (let slice = env.now(); machine.applied < upTo;) {
      let rest: LogBatch = await reader.next();
      signal.throwIfAborted();
      count += rest.records.ends.length;
      if (count > REPLAY_ENTRIES_MAX) return undefined;
      while (rest.records.ends.length > 0 && rest.first <= upTo) {
        // The entries before the range at once, then each of the range alone.
        const part = batchUpTo(rest, Math.max(rest.first, index - 1));
        await machine.apply([part]);
        rest = batchAfter(rest, lastOf(part));
      }
      if (env.now() - slice > APPLY_SLICE_MS) {
        await env.turn();
        slice = env.now();
      }
    }
    return undefined;
  } catch (error) {
    const failed = machine.updateFailed;
    if (failed === undefined) throw error;
    return failed.index === failed.upTo && failed.index >= index
      ? failed.index
      : undefined;
  } finally {
    await discard(machine);
  }
}

/** Replays the log from a base up to `upTo`, and collects hashes and commands after `after`. */
async function replayFrom(
  base: SnapshotCandidate | undefined,
  reader: LogReader,
  after: number,
  upTo: number,
  options: ReplayOptions,
): Promise<Replayed | undefined> {
  const { factory, clusterID, nodeID, env, signal } = options;
  const hashes: Hashes[] = [];
  const commands = new Map<number, Uint8Array>();
  let room = EXPLAIN_BYTES_MAX;
  let failed: { readonly cause: unknown } | undefined;
  const progress = {
    checkpoint: (checkpoint: Hashes) => void hashes.push(checkpoint),
    checkpointFailed: (cause: unknown) => void (failed ??= { cause }),
  };
  const machine = new StateMachine(
    factory(),
    clusterID,
    nodeID,
    noopListener<never>(),
    { progress, hashEntries: 1, hashAfter: after, skips: options.skips },
  );
  try {
    if (!machine.machine.hasHash) return undefined;
    if (base !== undefined) await recoverBase(machine, base, options);
    let count = 0;
    for (let slice = env.now(); machine.applied < upTo;) {
      const next = await reader.next();
      signal.throwIfAborted();
      if (next.first > upTo) break;
      const batch = batchUpTo(next, upTo);
      count += batch.records.ends.length;
      // Copied before they are applied: the machine may change the bytes.
      if (room >= 0) room = copyCommands(batch, after, room, commands);
      try {
        await machine.apply([batch]);
      } catch (cause) {
        throw new MachineFailure(`Entries up to ${upTo} could not be applied`, {
          cause,
        });
      }
      if (failed) throw new MachineFailure("getHash() failed", failed);
      if (count > REPLAY_ENTRIES_MAX || hashes.length > EXPLAIN_ENTRIES_MAX) {
        return undefined;
      }
      if (env.now() - slice > APPLY_SLICE_MS) {
        await env.turn();
        slice = env.now();
      }
    }
    return { hashes, commands };
  } finally {
    await discard(machine);
  }
}

/** Copies the commands after index `after` of a batch, as far as there is room, and returns how much is left, in bytes. */
function copyCommands(
  { first, records }: LogBatch,
  after: number,
  room: number,
  commands: Map<number, Uint8Array>,
): number {
  const cursor = new RecordCursor();
  for (let i = Math.max(0, after + 1 - first); i < records.ends.length; i++) {
    const record = recordAt(records, i);
    cursor.read(record, 0, record.length);
    if (
      cursor.kind !== RecordKind.Proposal &&
      cursor.kind !== RecordKind.SessionProposal
    ) continue;
    const command = copyOf(record.subarray(cursor.start));
    room -= command.length;
    if (room < 0) break;
    commands.set(first + i, command);
  }
  return room;
}

/** Returns the first index at which both have hashes and these differ. */
export function firstDifference(
  one: readonly Hashes[] | undefined,
  other: readonly Hashes[] | undefined,
): number | undefined {
  const others = new Map(other?.map((hashes) => [hashes.index, hashes]));
  return one?.find((hashes) => {
    const other = others.get(hashes.index);
    return other !== undefined && isDifferent(hashes, other);
  })?.index;
}
