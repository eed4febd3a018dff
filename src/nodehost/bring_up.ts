/**
 * Bringing a machine up: from the newest good snapshot and the log after it, or,
 * for one that is on disk, from what it holds (H8, D13, D14).
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../env.ts";
import { ErrCompacted } from "../log/errors.ts";
import type { Log, LogReader, SnapshotSource } from "../log/log.ts";
import type { Epoch } from "../log/history.ts";
import type { StateMachine } from "../rsm/state_machine.ts";
import { MachineFailure } from "../rsm/errors.ts";
import type { MachineFactory } from "../rsm/managed_machine.ts";
import {
  checkState,
  readSessions,
  recoverSnapshot,
} from "../rsm/recover_snapshot.ts";
import { ErrStateMismatch } from "../snapshot/errors.ts";
import { type FileStore, HOST_DIRECTORY } from "../snapshot/file_store.ts";
import type { SnapshotInfo } from "../snapshot/store.ts";
import { isUsable, type SkippedEntry } from "../rsm/skipped_entries.ts";
import { ErrOpenStopped } from "../statemachine/errors.ts";
import { ErrNotImplemented } from "../statemachine/errors.ts";
import type { IRemoveData } from "../statemachine/machines.ts";
import { OnDiskStateMachine } from "../statemachine/types.ts";
import { ErrClusterAlreadyExist } from "../log/errors.ts";
import { ErrStoreFull, ErrStoreVanished } from "../store/errors.ts";
import { pacedSource } from "../async.ts";
import type { SessionState } from "./session.ts";
import type { ReplicaEvent } from "./snapshotter.ts";

/** What bringing up takes of its replica. */
export interface BringUpOptions {
  readonly factory: MachineFactory;
  readonly clusterID: bigint;
  readonly nodeID: bigint;
  readonly log: Log;
  /** Where snapshots may be found, the host's own store first. */
  readonly stores: readonly SnapshotSource[];
  /** Where else, if need be: at the other end of a wire. */
  readonly remote: SnapshotSource | undefined;
  readonly files: FileStore;
  readonly env: Env;
  /** Makes a driver with a new machine. */
  readonly newDriver: () => StateMachine<SessionState>;
  /** Entries that are skipped, as far as that is known: snapshots of states with them are of no use. */
  readonly skips?: readonly SkippedEntry[];
  /** True if an on-disk machine holds an entry that is skipped: it is given another state. */
  readonly discard?: boolean;
  readonly event: (event: ReplicaEvent) => void;
  /** Aborts with `ErrOpenStopped`. */
  readonly openStopped: AbortSignal;
  /** Aborts with `ErrSnapshotStopped`. */
  readonly recoverStopped: AbortSignal;
}

/** A machine that is up, as far as what it came from goes. */
export interface BroughtUp {
  readonly driver: StateMachine<SessionState>;
  readonly reader: LogReader;
  /** For an on-disk machine: the index from which it needs the log to come up again. */
  readonly retain: number | undefined;
  /** Whether the state came from afar. */
  readonly remote: boolean;
}

/** A snapshot and the store it is in. */
export interface Candidate {
  readonly info: SnapshotInfo;
  readonly store: SnapshotSource;
}

/** What a log has to give; that it cannot say so just now is told, and no reason to give up. */
export function remoteOf(
  { snapshots }: Log,
  event: (event: ReplicaEvent) => void,
): SnapshotSource | undefined {
  if (snapshots === undefined) return undefined;
  return {
    async list(clusterID): Promise<readonly SnapshotInfo[]> {
      try {
        return await snapshots.list(clusterID);
      } catch (error) {
        event({ type: "snapshot failed", error });
        return [];
      }
    },
    open: (info) => snapshots.open(info),
  };
}

/** The snapshots of a cluster, newest first, each index and kind once. */
export async function candidates(
  { stores, clusterID, skips = [] }: Pick<
    BringUpOptions,
    "stores" | "clusterID" | "skips"
  >,
): Promise<Candidate[]> {
  const found: Candidate[] = [];
  for (const store of new Set(stores)) {
    for (const info of await store.list(clusterID)) {
      if (isUsable(info.index, skips)) found.push({ info, store });
    }
  }
  // Stable: of two with one index, the host's own comes first.
  return found.sort((a, b) => b.info.index - a.info.index);
}

/** Closes a machine that is of no more use; how that goes is of no interest. */
export async function discard(
  driver: StateMachine<SessionState>,
): Promise<void> {
  try {
    await driver.close();
  } catch {
    // It failed already, and that is what is told.
  }
}

/** Gives a machine what a snapshot holds; whatever fails, it closes the machine. */
export async function recoverFrom(
  driver: StateMachine<SessionState>,
  { info, store }: Candidate,
  options: BringUpOptions,
): Promise<void> {
  const { clusterID, nodeID, files, env, recoverStopped } = options;
  try {
    await recoverSnapshot(driver, {
      info,
      open: async () => pacedSource(await store.open(info), env),
      files,
      directory:
        `${HOST_DIRECTORY}/recovery/${clusterID}-${nodeID}/${info.index}`,
      signal: recoverStopped,
    });
    // Until the machine has it for good, the container is what holds it (D11).
    if (
      info.type === OnDiskStateMachine ||
      driver.machine.type === OnDiskStateMachine
    ) {
      await driver.sync();
    }
    options.event({ type: "recovered", snapshot: info });
  } catch (error) {
    await discard(driver);
    throw error;
  }
}

/** What to throw to whoever started the replica. */
function causeOf(error: unknown): unknown {
  return error instanceof MachineFailure ? error.cause : error;
}

/** The log after `index`, or the error that says that some of it was cut. */
async function readAfter(
  log: Log,
  index: number,
  epoch: Epoch | undefined,
): Promise<LogReader | ErrCompacted> {
  try {
    return await log.read(index, { epoch });
  } catch (error) {
    if (error instanceof ErrCompacted) return error;
    throw error;
  }
}

/**
 * Brings a machine up.
 *
 * @throws ErrDiverged if what is there goes beyond the log, or with another one (D13, H13)
 * @throws ErrCompacted if the log was cut and no snapshot reaches it; the damage of those that could have is its cause (H8)
 * @throws ErrStoreVanished if an on-disk machine lost what it had, for good (D14)
 */
export async function bringUp(options: BringUpOptions): Promise<BroughtUp> {
  return options.factory.type === OnDiskStateMachine
    ? await bringUpOnDisk(options)
    : await bringUpInMemory(options);
}

async function bringUpInMemory(options: BringUpOptions): Promise<BroughtUp> {
  const from = await recoverNewest(options, 0);
  const retain = undefined;
  if ("driver" in from) return { ...from, retain, remote: false };
  let { damage } = from;
  let reader = await readAfter(options.log, 0, undefined);
  if (reader instanceof ErrCompacted) {
    const there = await recoverRemote(options, 0);
    if ("driver" in there) return { ...there, retain, remote: true };
    damage ??= there.damage;
    reader = await readAfter(options.log, 0, undefined);
  }
  if (reader instanceof ErrCompacted) throw compacted(reader, damage);
  return { driver: options.newDriver(), reader, retain, remote: false };
}

/** As `recoverNewest()`, from afar. Without success the log may be read all the same: a snapshot may have been no more than the better way. */
async function recoverRemote(
  options: BringUpOptions,
  from: number,
): Promise<
  { driver: StateMachine<SessionState>; reader: LogReader } | {
    damage: unknown;
  }
> {
  const { remote } = options;
  return remote === undefined
    ? { damage: undefined }
    : await recoverNewest({ ...options, stores: [remote] }, from);
}

function compacted(error: ErrCompacted, damage: unknown): ErrCompacted {
  return damage === undefined
    ? error
    : new ErrCompacted(error.firstIndex, { cause: damage });
}

/**
 * A new machine with the newest full snapshot at or above `from` that is good and
 * from which the log goes on; or the damage that was found on the way (H8).
 */
async function recoverNewest(
  options: BringUpOptions,
  from: number,
): Promise<
  { driver: StateMachine<SessionState>; reader: LogReader } | {
    damage: unknown;
  }
> {
  let damage: unknown;
  const tried = new Set<string>();
  for (;;) {
    const list = (await candidates(options)).filter(({ info }) =>
      info.kind === "full" && info.index >= from && !tried.has(info.id)
    );
    // Others may have taken new ones meanwhile, and cut the log behind them.
    if (list.length === 0) return { damage };
    for (const { info } of list) tried.add(info.id);
    const found = await recoverFirst(options, list);
    if ("driver" in found) return found;
    damage ??= found.damage;
  }
}

/** A new machine with the first snapshot of a list that is good and from which the log goes on. */
async function recoverFirst(
  options: BringUpOptions,
  list: readonly Candidate[],
): Promise<
  { driver: StateMachine<SessionState>; reader: LogReader } | {
    damage: unknown;
  }
> {
  let damage: unknown;
  for (const candidate of list) {
    options.recoverStopped.throwIfAborted();
    const { index, epoch } = candidate.info;
    // Before the machine gets it, so that nothing is cut meanwhile.
    const reader = await readAfter(options.log, index, epoch);
    if (reader instanceof ErrCompacted) continue;
    const driver = options.newDriver();
    try {
      await driver.open(options.openStopped);
      // It may have paid no heed to the signal.
      options.openStopped.throwIfAborted();
      await recoverFrom(driver, candidate, options);
      return { driver, reader };
    } catch (error) {
      reader.close();
      await discard(driver);
      // A machine's own failure is not helped by an older snapshot, nor is a full disk.
      if (
        error instanceof MachineFailure || error instanceof ErrStoreFull ||
        options.recoverStopped.aborted ||
        options.openStopped.aborted
      ) throw causeOf(error);
      damage = error;
      options.event({ type: "snapshot failed", error });
    }
  }
  return { damage };
}

async function bringUpOnDisk(options: BringUpOptions): Promise<BroughtUp> {
  const { log, nodeID, openStopped } = options;
  if (options.discard) return await bringUpOther(options);
  const driver = options.newDriver();
  let opened: number;
  try {
    opened = await driver.open(openStopped);
  } catch (error) {
    if (!(error instanceof ErrOpenStopped && openStopped.aborted)) {
      await discard(driver);
    }
    throw error;
  }
  try {
    // The machine may have paid no heed to the signal.
    openStopped.throwIfAborted();
    const list = await candidates(options);
    const renew = await checkImported(list, opened, driver, log) ||
      await isOtherState(driver, opened, list, options);
    // An index beyond the log refuses the start, whatever else is there (D13).
    const newest = list[0]?.info;
    const there = await readAfter(log, newest?.index ?? 0, newest?.epoch);
    if (!(there instanceof ErrCompacted)) there.close();
    const reader = await readAfter(log, opened, driver.epoch);
    const recorded = list.find(({ info }) =>
      info.kind === "metadata" && info.nodeID === nodeID
    )?.info.index ?? 0;
    const base = reader instanceof ErrCompacted || renew
      ? undefined
      : await rebuildSessions(driver, opened, list, options);
    if (base !== undefined) {
      (reader as LogReader).close();
      const retain = driver.applied;
      return { driver, reader: base, retain, remote: false };
    }
    if (!(reader instanceof ErrCompacted)) {
      reader.close();
    }
    await discard(driver);
    const from = await recoverNewest(options, opened);
    if ("driver" in from) {
      return { ...from, retain: from.driver.applied, remote: false };
    }
    const afar = await recoverRemote(options, opened);
    if ("driver" in afar) {
      return { ...afar, retain: afar.driver.applied, remote: true };
    }
    if (options.remote !== undefined && reader instanceof ErrCompacted) {
      const again = await readAfter(log, opened, driver.epoch);
      if (!(again instanceof ErrCompacted)) {
        again.close();
        return await bringUpOnDisk({ ...options, remote: undefined });
      }
    }
    const damage = from.damage ?? afar.damage;
    throw vanished(opened, recorded, reader, damage);
  } catch (error) {
    await discard(driver);
    throw causeOf(error);
  }
}

/**
 * Another state for an on-disk machine, whose own holds an entry that is skipped:
 * from a snapshot without it, else from the beginning of the log, if the machine
 * can be emptied.
 */
async function bringUpOther(options: BringUpOptions): Promise<BroughtUp> {
  try {
    const here = await recoverNewest(options, 0);
    if ("driver" in here) {
      return { ...here, retain: here.driver.applied, remote: false };
    }
    const there = await recoverRemote(options, 0);
    if ("driver" in there) {
      return { ...there, retain: there.driver.applied, remote: true };
    }
    const reader = await readAfter(options.log, 0, undefined);
    if (reader instanceof ErrCompacted) {
      throw compacted(reader, here.damage ?? there.damage);
    }
    try {
      return {
        driver: await emptied(options),
        reader,
        retain: 0,
        remote: false,
      };
    } catch (error) {
      reader.close();
      throw error;
    }
  } catch (error) {
    throw causeOf(error);
  }
}

/** An on-disk machine after its data were removed. */
async function emptied(
  options: BringUpOptions,
): Promise<StateMachine<SessionState>> {
  const { factory, clusterID, nodeID } = options;
  const machine = factory.create(clusterID, nodeID) as Partial<IRemoveData>;
  if (typeof machine.removeData !== "function") {
    throw new ErrNotImplemented("The machine has no removeData()");
  }
  await machine.removeData();
  const driver = options.newDriver();
  const opened = await driver.open(options.openStopped);
  if (opened === 0) return driver;
  await discard(driver);
  throw new ErrStoreVanished(
    `Machine still holds entries up to ${opened} after its removeData()`,
  );
}

/**
 * An import is for a cluster that has no state here (H9). Until something was
 * added to the log, a machine that keeps no epoch cannot tell whether it holds
 * what was imported: it is given it once more.
 */
async function checkImported(
  list: readonly Candidate[],
  opened: number,
  driver: StateMachine<SessionState>,
  log: Log,
): Promise<boolean> {
  const imported = list.find(({ info }) => info.imported)?.info;
  if (imported === undefined || opened === 0 || !await log.isEmpty()) {
    return false;
  }
  if (opened === imported.index) return driver.epoch === undefined;
  throw new ErrClusterAlreadyExist(
    `Machine holds entries up to ${opened} where a snapshot was imported`,
  );
}

/**
 * True if the machine holds another state than a full snapshot at the very index
 * it opened at: a recovery from that one went wrong, and was found out only when
 * the machine had made its state durable (H16). It is recovered once more.
 */
async function isOtherState(
  driver: StateMachine<SessionState>,
  opened: number,
  list: readonly Candidate[],
  { event }: BringUpOptions,
): Promise<boolean> {
  if (opened === 0 || !driver.machine.hasHash) return false;
  for (const { info, store } of list) {
    if (info.kind !== "full" || info.index !== opened) continue;
    try {
      const { header } = await readSessions(await store.open(info));
      await checkState(driver.machine, header, false);
    } catch (error) {
      if (!(error instanceof MachineFailure)) {
        // It cannot be read: others may be.
        event({ type: "snapshot failed", error });
      } else if (error.cause instanceof ErrStateMismatch) return true;
      else throw error;
    }
  }
  return false;
}

/**
 * The sessions as of what the machine holds: kept by itself, or from the newest
 * record at or before it and the log after that (H6). Returns the log from where
 * the sessions stand; undefined if they cannot be had.
 */
async function rebuildSessions(
  driver: StateMachine<SessionState>,
  opened: number,
  list: readonly Candidate[],
  { log, event }: BringUpOptions,
): Promise<LogReader | undefined> {
  if (driver.applied === opened) {
    const reader = await readAfter(log, opened, driver.epoch);
    return reader instanceof ErrCompacted ? undefined : reader;
  }
  for (const { info, store } of list) {
    if (info.index > opened) continue;
    const reader = await readAfter(log, info.index, info.epoch);
    if (reader instanceof ErrCompacted) break;
    try {
      driver.loadSessions(await readSessions(await store.open(info)));
      return reader;
    } catch (error) {
      reader.close();
      event({ type: "snapshot failed", error });
    }
  }
  const reader = await readAfter(log, 0, undefined);
  return reader instanceof ErrCompacted ? undefined : reader;
}

function vanished(
  opened: number,
  recorded: number,
  reader: LogReader | ErrCompacted,
  damage: unknown,
): Error {
  const error = reader instanceof ErrCompacted ? reader : new ErrCompacted(0);
  if (recorded === 0 && opened === 0) return compacted(error, damage);
  return new ErrStoreVanished(
    `Machine holds entries up to ${opened}, ${recorded} were recorded of it, and neither log nor snapshots bring it up`,
    { cause: compacted(error, damage) },
  );
}
