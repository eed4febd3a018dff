/**
 * Going over what was committed once more, to find the entry after which two
 * replicas differ (H12, U32).
 *
 * This module is browser compatible.
 *
 * @module
 */

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
  Checkpoint,
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
import {
  type FailedEntries,
  noopListener,
  StateMachine,
} from "../rsm/state_machine.ts";
import type { MachineFactory } from "../rsm/managed_machine.ts";
import type { SkippedEntry } from "../rsm/skipped_entries.ts";
import { RecordCursor } from "../rsm/record_codec.ts";
import { MachineFailure } from "../rsm/errors.ts";
import { recoverSnapshot } from "../rsm/recover_snapshot.ts";
import { type FileStore, HOST_DIRECTORY } from "../snapshot/file_store.ts";
import {
  ConcurrentStateMachine,
  OnDiskStateMachine,
  RegularStateMachine,
} from "../statemachine/types.ts";
import { type Candidate, candidates } from "../nodehost/candidates.ts";
import { differ } from "./checkpoints.ts";
import type { ReplicaConfig } from "../nodehost/replica_config.ts";
import { pacedSource } from "../async.ts";

/** What a replay takes of its replica. */
export interface ReplayOptions {
  /** What makes the next machine. */
  readonly factory: () => MachineFactory;
  readonly clusterID: bigint;
  readonly nodeID: bigint;
  readonly log: Log;
  /** Where snapshots may be found, best first. */
  readonly stores: readonly SnapshotSource[];
  readonly files: FileStore;
  readonly env: Env;
  /** Entries that are skipped, as far as that is known. */
  readonly skips: readonly SkippedEntry[];
  /** Ends it. */
  readonly signal: AbortSignal;
}

/** The hashes after some entries, in order. */
export type Hashes = readonly Omit<Checkpoint, "nodeID">[];

/** What a replay has found. */
export interface Replayed {
  readonly hashes: Hashes;
  /** The commands of those entries, as many as there is room for: the log may be cut by the time one of them is looked for. */
  readonly commands: ReadonlyMap<number, Uint8Array>;
}

/** What makes the machines that go over it once more: in memory, since of one on disk there are no two. Undefined if nothing does. */
export function replayFactory(
  factory: MachineFactory,
  { replayMachine, clusterID, nodeID }: ReplicaConfig,
): (() => MachineFactory) | undefined {
  if (factory.type !== OnDiskStateMachine) return () => factory;
  if (replayMachine === undefined) return undefined;
  return () => {
    const machine = replayMachine(clusterID, nodeID);
    return "prepareSnapshot" in machine
      ? { type: ConcurrentStateMachine, create: () => machine }
      : { type: RegularStateMachine, create: () => machine };
  };
}

/**
 * The hashes that a new machine has after each entry in (`after`, `upTo`], from
 * the newest snapshot before them that is good, or from the log's beginning.
 * Undefined if they cannot be had: the machine has no `getHash()`, the log was
 * cut, or there are too many entries to go over.
 *
 * @throws MachineFailure if the machine failed
 */
export async function replay(
  after: number,
  upTo: number,
  options: ReplayOptions,
): Promise<Replayed | undefined> {
  const { log, signal } = options;
  for (const store of [...options.stores, undefined]) {
    const bases = store === undefined
      ? [undefined]
      : await basesIn(store, options, after);
    for (const base of bases) {
      const { index = 0, epoch } = base?.info ?? {};
      try {
        const read = await reading(
          log,
          index,
          { epoch, signal },
          (reader) => replayFrom(base, reader, after, upTo, options),
        );
        if (read !== undefined) return read.value;
      } catch (error) {
        // A snapshot that is of no use: there may be another.
        if (
          error instanceof MachineFailure || base === undefined ||
          signal.aborted
        ) throw error;
      }
    }
  }
  return undefined;
}

/**
 * Index of the entry, among these, at which `update()` of a new machine throws
 * when it is given them one by one. Undefined if it does not throw there, or the
 * entries before them cannot be had.
 */
export async function locateFailure(
  entries: FailedEntries,
  options: ReplayOptions,
): Promise<number | undefined> {
  const { log, signal } = options;
  for (const store of [...options.stores, undefined]) {
    const bases = store === undefined
      ? [undefined]
      : await basesIn(store, options, entries.index - 1);
    for (const base of bases) {
      const { index = 0, epoch } = base?.info ?? {};
      try {
        const read = await reading(
          log,
          index,
          { epoch, signal },
          (reader) => failingEntry(base, reader, entries, options),
        );
        if (read !== undefined) return read.value;
      } catch (error) {
        // A snapshot that is of no use: there may be another.
        if (base === undefined || signal.aborted) throw error;
      }
    }
  }
  return undefined;
}

async function failingEntry(
  base: Candidate | undefined,
  reader: LogReader,
  { index, upTo }: FailedEntries,
  options: ReplayOptions,
): Promise<number | undefined> {
  const { factory, clusterID, nodeID, env, signal, skips } = options;
  const driver = new StateMachine(
    factory(),
    clusterID,
    nodeID,
    noopListener<never>(),
    { hashEntries: 0, skips },
  );
  try {
    if (base !== undefined) await recoverBase(driver, base, options);
    let count = 0;
    for (let slice = env.now(); driver.applied < upTo;) {
      let rest: LogBatch = await reader.next();
      signal.throwIfAborted();
      count += rest.records.ends.length;
      if (count > REPLAY_ENTRIES_MAX) return undefined;
      while (rest.records.ends.length > 0 && rest.first <= upTo) {
        // All before them at once, and each of them alone.
        const part = batchUpTo(rest, Math.max(rest.first, index - 1));
        await driver.apply([part]);
        rest = batchAfter(rest, lastOf(part));
      }
      if (env.now() - slice > APPLY_SLICE_MS) {
        await env.turn();
        slice = env.now();
      }
    }
    return undefined;
  } catch (error) {
    const failed = driver.updateFailed;
    if (failed === undefined) throw error;
    return failed.index === failed.upTo && failed.index >= index
      ? failed.index
      : undefined;
  } finally {
    try {
      await driver.close();
    } catch {
      // Of no interest: it is of no use any more.
    }
  }
}

/** Gives a machine of a replay the state it begins from. */
async function recoverBase(
  driver: StateMachine<never>,
  { info, store }: Candidate,
  { clusterID, nodeID, files, env, signal }: ReplayOptions,
): Promise<void> {
  await recoverSnapshot(driver, {
    info,
    open: async () => pacedSource(await store.open(info), env),
    files,
    directory: `${HOST_DIRECTORY}/replay/${clusterID}-${nodeID}/${info.index}`,
    signal,
  });
}

/** The full snapshots of a store that are not after index `upTo`; none if the store fails. */
async function basesIn(
  store: SnapshotSource,
  { clusterID, skips }: ReplayOptions,
  upTo: number,
): Promise<Candidate[]> {
  try {
    return (await candidates([store], clusterID, skips))
      .filter(({ info }) => info.kind === "full" && info.index <= upTo);
  } catch {
    return [];
  }
}

/**
 * Reads the log after an index; undefined if it was cut there. It is asked twice:
 * a log may say so once when a snapshot is no more than the better way, as for
 * whoever has to catch up.
 */
async function reading<T>(
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

async function replayFrom(
  base: Candidate | undefined,
  reader: LogReader,
  after: number,
  upTo: number,
  options: ReplayOptions,
): Promise<Replayed | undefined> {
  const { factory, clusterID, nodeID, env, signal } = options;
  const hashes: Omit<Checkpoint, "nodeID">[] = [];
  const commands = new Map<number, Uint8Array>();
  let room = EXPLAIN_BYTES_MAX;
  let failed: { readonly cause: unknown } | undefined;
  const progress = {
    checkpoint: (checkpoint: Omit<Checkpoint, "nodeID">) =>
      void hashes.push(checkpoint),
    checkpointFailed: (cause: unknown) => void (failed ??= { cause }),
  };
  const driver = new StateMachine(
    factory(),
    clusterID,
    nodeID,
    noopListener<never>(),
    {
      progress,
      hashEntries: 1,
      hashAfter: after,
      skips: options.skips,
    },
  );
  try {
    if (!driver.machine.hasHash) return undefined;
    if (base !== undefined) await recoverBase(driver, base, options);
    let count = 0;
    for (let slice = env.now(); driver.applied < upTo;) {
      const next = await reader.next();
      signal.throwIfAborted();
      if (next.first > upTo) break;
      const batch = batchUpTo(next, upTo);
      count += batch.records.ends.length;
      // The machine may write into them.
      if (room >= 0) room = keepCommands(batch, after, room, commands);
      try {
        await driver.apply([batch]);
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
    return { hashes, commands };
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

/** Puts the commands after index `after` among those kept, and returns how much room is left. */
function keepCommands(
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
