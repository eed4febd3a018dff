/**
 * Recovery of a replica's state from snapshots, and of an on-disk machine from what it
 * has stored. This module chooses the snapshot; `rsm/recover_snapshot.ts` reads it,
 * and refuses one that is damaged or recovers to another state hash. Loaded when it is
 * first needed, with `on_demand.ts`.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { pacedSource } from "../async.ts";
import { ErrClusterAlreadyExist, ErrCompacted } from "../log/errors.ts";
import type { LogReader, SnapshotSource } from "../log/log.ts";
import { MachineFailure } from "../rsm/errors.ts";
import {
  checkState,
  readSessions,
  recoverSnapshot,
} from "../rsm/recover_snapshot.ts";
import type { SnapshotCandidate } from "../rsm/snapshot_candidates.ts";
import type { StateMetadata } from "../rsm/state_machine.ts";
import { ErrStateMismatch } from "../snapshot/errors.ts";
import { HOST_DIRECTORY } from "../snapshot/file_store.ts";
import type { SnapshotInfo } from "../snapshot/store.ts";
import { ErrNotImplemented, ErrOpenStopped } from "../statemachine/errors.ts";
import type { IRemoveData } from "../statemachine/machines.ts";
import { OnDiskStateMachine } from "../statemachine/types.ts";
import { ErrStoreFull, ErrStoreVanished } from "../store/errors.ts";
import type { ReplicaContext } from "./context.ts";
import { type CurrentMachine, discard } from "./current_machine.ts";
import { guardLog } from "./log_failure.ts";
import type {
  InitialState,
  Machine,
  Recovered,
  RecoveryParts,
} from "./recovery_parts.ts";

/** Result of a recovery without a good snapshot. */
interface NotRecovered {
  /** Error of the first snapshot that was tried; undefined if there was none to try. */
  readonly damage: unknown;
}

/** Returns the machine's own error, for the caller that starts the replica. */
function causeOf(error: unknown): unknown {
  return error instanceof MachineFailure ? error.cause : error;
}

function compacted(error: ErrCompacted, damage: unknown): ErrCompacted {
  return damage === undefined
    ? error
    : new ErrCompacted(error.firstIndex, { cause: damage });
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
    `Machine has entries up to ${opened} of the ${recorded} recorded for it, and neither the log nor a snapshot can recover the others; import a snapshot of another replica`,
    { cause: compacted(error, damage) },
  );
}

/** Recovers the state of a replica from snapshots. */
export class SnapshotRecovery {
  readonly #parts: RecoveryParts;
  readonly #context: ReplicaContext;
  readonly #machine: CurrentMachine;

  /** Creates the recovery of a replica. */
  constructor(parts: RecoveryParts) {
    this.#parts = parts;
    this.#context = parts.context;
    this.#machine = parts.machine;
  }

  // ---------------------------------------------------- before the first state

  /**
   * Recovers the first state of a machine in memory from the newest good snapshot from
   * which the log continues (H8).
   *
   * @param compactedLog set if the log was found to lack entries after the beginning
   */
  async initialInMemory(compactedLog?: ErrCompacted): Promise<InitialState> {
    const { localStores, remote } = this.#context;
    const retain = undefined;
    const local = await this.#recoverNewest(localStores, 0);
    if (!("damage" in local)) return { ...local, retain, isRemote: false };
    let { damage } = local;
    let reader = compactedLog ?? await this.#parts.readAfter(0);
    if (reader instanceof ErrCompacted) {
      const found = await this.#recoverNewest(remote && [remote], 0);
      if (!("damage" in found)) return { ...found, retain, isRemote: true };
      damage ??= found.damage;
      // A server reports a log as compacted also if a snapshot would only be faster,
      // but only the first time.
      reader = await this.#parts.readAfter(0);
    }
    if (reader instanceof ErrCompacted) throw compacted(reader, damage);
    const stateMachine = this.#parts.newMachine();
    return { stateMachine, reader, retain, isRemote: false };
  }

  /**
   * Recovers a new state machine from the newest good full snapshot at or above
   * `from` from which the log continues (H8).
   */
  async #recoverNewest(
    stores: readonly SnapshotSource[] | undefined,
    from: number,
  ): Promise<Recovered | NotRecovered> {
    let damage: unknown;
    const tried = new Set<string>();
    for (;;) {
      const list = (await this.#parts.candidates(stores ?? [])).filter((
        { info },
      ) => info.kind === "full" && info.index >= from && !tried.has(info.id));
      // Listed again after a failure: other replicas may have taken new ones, and
      // compacted the log up to them.
      if (list.length === 0) return { damage };
      for (const { info } of list) tried.add(info.id);
      const found = await this.#recoverFirst(list);
      if (!("damage" in found)) return found;
      damage ??= found.damage;
    }
  }

  /** Recovers a new state machine from the first good snapshot of a list from which the log continues (H8). */
  async #recoverFirst(
    list: readonly SnapshotCandidate[],
  ): Promise<Recovered | NotRecovered> {
    const { openStopped, recoverStopped, event } = this.#context;
    let damage: unknown;
    for (const candidate of list) {
      recoverStopped.throwIfAborted();
      const { index, epoch } = candidate.info;
      // Opened before the recovery, so that the entries after it are not compacted.
      const reader = await this.#parts.readAfter(index, epoch);
      if (reader instanceof ErrCompacted) continue;
      const stateMachine = this.#parts.newMachine();
      try {
        await this.#open(stateMachine);
        await this.#recoverFrom(stateMachine, candidate);
        return { stateMachine, reader };
      } catch (error) {
        reader.close();
        await discard(stateMachine);
        // An older snapshot would not help.
        if (
          error instanceof MachineFailure || error instanceof ErrStoreFull ||
          recoverStopped.aborted || openStopped.aborted
        ) throw causeOf(error);
        damage = error;
        event({ type: "snapshot failed", error });
      }
    }
    return { damage };
  }

  /** Opens a machine; returns the index up to which it contains entries. */
  async #open(stateMachine: Machine): Promise<number> {
    const { openStopped } = this.#context;
    const opened = await stateMachine.open(openStopped);
    // The machine may have ignored the signal.
    openStopped.throwIfAborted();
    return opened;
  }

  /** Recovers a machine from a snapshot; closes it if that fails. `recovered` is called in the turn in which it changes. */
  async #recoverFrom(
    stateMachine: Machine,
    { info, store }: SnapshotCandidate,
    recovered: () => void = () => {},
  ): Promise<void> {
    const { clusterID, nodeID, files, env, recoverStopped, event } =
      this.#context;
    try {
      await recoverSnapshot(stateMachine, {
        info,
        open: async () => pacedSource(await store.open(info), env),
        files,
        directory:
          `${HOST_DIRECTORY}/recovery/${clusterID}-${nodeID}/${info.index}`,
        signal: recoverStopped,
        recovered,
      });
      // A later rebuild may begin with an older state, and not reach their decisions.
      for (const skip of stateMachine.knownSkips) this.#machine.skips.add(skip);
      event({ type: "recovered", snapshot: info });
    } catch (error) {
      await discard(stateMachine);
      throw error;
    }
  }

  /**
   * Recovers the first state of an on-disk machine from what it has stored (D13, D14).
   *
   * @param hasSkipped true if what it has stored contains a skipped entry, and cannot be used
   */
  initialOnDisk(hasSkipped: boolean): Promise<InitialState> {
    return hasSkipped
      ? this.#initialWithoutSkipped()
      : this.#initialStored(this.#context.remote);
  }

  async #initialStored(
    remote: SnapshotSource | undefined,
  ): Promise<InitialState> {
    const { nodeID, openStopped, localStores } = this.#context;
    const stateMachine = this.#parts.newMachine();
    const opened = await this.#openStored(stateMachine);
    try {
      // The machine may have ignored the signal.
      openStopped.throwIfAborted();
      const list = await this.#parts.candidates(localStores);
      const isUnusable =
        await this.#isImportUnsure(list, opened, stateMachine) ||
        await this.#isOtherState(stateMachine, opened, list);
      await this.#checkEnd(list[0]?.info);
      const log = await this.#parts.readAfter(opened, stateMachine.epoch);
      const isCompacted = log instanceof ErrCompacted;
      if (!isCompacted) {
        // Open until here, so that the entries after it are not compacted.
        const reader = isUnusable
          ? undefined
          : await this.#restoreSessions(stateMachine, opened, list);
        log.close();
        if (reader !== undefined) {
          const retain = stateMachine.applied;
          return { stateMachine, reader, retain, isRemote: false };
        }
      }
      await discard(stateMachine);
      const found = await this.#recoverNewestOnDisk(opened, remote);
      if (!("damage" in found)) return found;
      if (remote !== undefined && isCompacted) {
        // A server reports a log as compacted also if a snapshot would only be
        // faster, but only the first time.
        const again = await this.#parts.readAfter(opened, stateMachine.epoch);
        if (!(again instanceof ErrCompacted)) {
          again.close();
          return await this.#initialStored(undefined);
        }
      }
      const recorded = list.find(({ info }) =>
        info.kind === "metadata" && info.nodeID === nodeID
      )?.info.index ?? 0;
      throw vanished(opened, recorded, log, found.damage);
    } catch (error) {
      await discard(stateMachine);
      throw causeOf(error);
    }
  }

  /** Opens an on-disk machine on what it has stored; closes it if that fails. */
  async #openStored(stateMachine: Machine): Promise<number> {
    const { openStopped } = this.#context;
    try {
      return await stateMachine.open(openStopped);
    } catch (error) {
      if (!(error instanceof ErrOpenStopped && openStopped.aborted)) {
        await discard(stateMachine);
      }
      throw error;
    }
  }

  /** Fails the start if a state goes beyond the end of the log, even if a snapshot would help (D13). */
  async #checkEnd(newest: SnapshotInfo | undefined): Promise<void> {
    const log = await this.#parts.readAfter(newest?.index ?? 0, newest?.epoch);
    if (!(log instanceof ErrCompacted)) log.close();
  }

  /** Recovers an on-disk machine from the newest good full snapshot at or above `from`: from a local one, else from the server's. */
  async #recoverNewestOnDisk(
    from: number,
    remote: SnapshotSource | undefined,
  ): Promise<InitialState | NotRecovered> {
    const local = await this.#recoverNewest(this.#context.localStores, from);
    if (!("damage" in local)) {
      return { ...local, retain: local.stateMachine.applied, isRemote: false };
    }
    const found = await this.#recoverNewest(remote && [remote], from);
    return "damage" in found
      ? { damage: local.damage ?? found.damage }
      : { ...found, retain: found.stateMachine.applied, isRemote: true };
  }

  /**
   * Recovers an on-disk machine whose stored state contains a skipped entry: from a
   * snapshot without the entry, else, if the machine can remove its data, from the
   * beginning of the log.
   */
  async #initialWithoutSkipped(): Promise<InitialState> {
    try {
      const found = await this.#recoverNewestOnDisk(0, this.#context.remote);
      if (!("damage" in found)) return found;
      const reader = await this.#parts.readAfter(0);
      if (reader instanceof ErrCompacted) {
        throw compacted(reader, found.damage);
      }
      try {
        const stateMachine = await this.#emptied();
        return { stateMachine, reader, retain: 0, isRemote: false };
      } catch (error) {
        reader.close();
        throw error;
      }
    } catch (error) {
      throw causeOf(error);
    }
  }

  /** Removes the data of an on-disk machine and opens it without entries. */
  async #emptied(): Promise<Machine> {
    const { factory, clusterID, nodeID } = this.#context;
    const machine = factory.create(clusterID, nodeID) as Partial<IRemoveData>;
    if (typeof machine.removeData !== "function") {
      throw new ErrNotImplemented(
        `Machine of cluster ${clusterID} has no removeData(), which is required to recover it without a skipped entry`,
      );
    }
    await machine.removeData();
    const stateMachine = this.#parts.newMachine();
    const opened = await this.#openStored(stateMachine);
    if (opened === 0) return stateMachine;
    await discard(stateMachine);
    throw new ErrStoreVanished(
      `Machine still holds entries up to ${opened} after its removeData()`,
    );
  }

  /**
   * Checks that a cluster with an imported snapshot has no other state here (H9).
   *
   * @returns true if the snapshot must be recovered again: before the first append, a machine that stores no epoch cannot tell whether its state is the imported one
   */
  async #isImportUnsure(
    list: readonly SnapshotCandidate[],
    opened: number,
    { epoch }: Machine,
  ): Promise<boolean> {
    const imported = list.find(({ info }) => info.imported)?.info;
    if (
      imported === undefined || opened === 0 ||
      !await this.#context.log.isEmpty()
    ) return false;
    if (opened === imported.index) return epoch === undefined;
    throw new ErrClusterAlreadyExist(
      `Machine holds entries up to ${opened} where a snapshot was imported`,
    );
  }

  /**
   * True if the machine opened at the index of a full snapshot with another state
   * hash: it has synced a recovery whose hash was never compared (H16).
   */
  async #isOtherState(
    { machine }: Machine,
    opened: number,
    list: readonly SnapshotCandidate[],
  ): Promise<boolean> {
    if (opened === 0 || !machine.hasHash) return false;
    for (const { info, store } of list) {
      if (info.kind !== "full" || info.index !== opened) continue;
      try {
        const { header } = await readSessions(await store.open(info));
        await checkState(machine, header, false);
      } catch (error) {
        if (!(error instanceof MachineFailure)) {
          // Unreadable: another snapshot at this index may be readable.
          this.#context.event({ type: "snapshot failed", error });
        } else if (error.cause instanceof ErrStateMismatch) return true;
        else throw error;
      }
    }
    return false;
  }

  /**
   * Restores the sessions of an on-disk machine: from its host rows, or from the newest
   * snapshot at or before the index it opened at. The log brings them up to that
   * index (H6).
   *
   * @returns reader of the entries after the restored sessions; undefined if they cannot be restored
   */
  async #restoreSessions(
    stateMachine: Machine,
    opened: number,
    list: readonly SnapshotCandidate[],
  ): Promise<LogReader | undefined> {
    if (stateMachine.applied === opened) {
      const reader = await this.#parts.readAfter(opened, stateMachine.epoch);
      return reader instanceof ErrCompacted ? undefined : reader;
    }
    for (const { info, store } of list) {
      if (info.index > opened) continue;
      const reader = await this.#parts.readAfter(info.index, info.epoch);
      if (reader instanceof ErrCompacted) break;
      try {
        stateMachine.loadSessions(await readSessions(await store.open(info)));
        return reader;
      } catch (error) {
        reader.close();
        this.#context.event({ type: "snapshot failed", error });
      }
    }
    const reader = await this.#parts.readAfter(0);
    return reader instanceof ErrCompacted ? undefined : reader;
  }

  // ----------------------------------------------------- after the first state

  /**
   * Recovers from the newest snapshot that is ahead of the present state, or, if the
   * state has diverged, from the newest one that agrees with the trusted replica.
   *
   * @returns the origin of the snapshot; undefined if no snapshot helps
   * @throws ErrOtherHistory if the server has another history: the user has to decide
   */
  async recover(): Promise<"here" | "server" | undefined> {
    const { log, event, allStores, remote, stopped, type } = this.#context;
    await guardLog(() =>
      log.verify?.(this.#machine.history, { signal: stopped })
    );
    let list: SnapshotCandidate[];
    try {
      list = await this.#parts.candidates(allStores);
    } catch (error) {
      // The store may work again later (R8).
      event({ type: "snapshot failed", error });
      return undefined;
    }
    for (const candidate of list.filter(({ info }) => this.#helps(info))) {
      const { info, store } = candidate;
      const retention = log.retain(info.index);
      try {
        (await log.read(info.index, { epoch: info.epoch, signal: stopped }))
          .close();
        await (type === OnDiskStateMachine
          ? this.#recoverInPlace(candidate)
          : this.#recoverBeside(candidate));
      } catch (error) {
        if (error instanceof MachineFailure || stopped.aborted) throw error;
        if (error instanceof ErrStoreFull) {
          // Retried later (U8): an older one would find no room either.
          event({ type: "store full", error });
          return undefined;
        }
        event({ type: "snapshot failed", error });
        continue;
      } finally {
        retention.release();
      }
      return store === remote ? "server" : "here";
    }
    return undefined;
  }

  #helps(info: SnapshotInfo): boolean {
    if (info.kind !== "full") return false;
    if (this.#context.diverged !== undefined) {
      return this.#parts.isTrusted(info);
    }
    const { applied, closed } = this.#machine.newest;
    // A closed machine may have lost the state that it did not sync.
    return info.index > applied || info.index === applied && closed;
  }

  /**
   * Recovers into a new state machine. The present one keeps answering until the new
   * one has its state, and stays if the recovery fails: a transfer takes time, and may
   * be interrupted (R9, U38).
   */
  async #recoverBeside(candidate: SnapshotCandidate): Promise<void> {
    const stateMachine = this.#parts.newMachine();
    await this.#recoverFrom(stateMachine, candidate);
    this.#machine.install(stateMachine);
  }

  /** Recovers an on-disk machine, of which there is one instance only. */
  async #recoverInPlace(candidate: SnapshotCandidate): Promise<void> {
    // The session table of the last state that answered, even if its machine is closed.
    // The table of a batch that has failed is ahead of the state.
    const { current } = this.#machine;
    const { applied } = current;
    const before = current.isMidBatch ? undefined : current.capture();
    await this.#machine.recoverInPlace(async () => {
      let stateMachine = this.#machine.newest;
      if (stateMachine.closed) stateMachine = await this.#reopened();
      // If the recovery fails, the present state must answer again (U30).
      else await stateMachine.sync();
      try {
        // In the same turn: no other reader may see sessions without the commands whose
        // outcome is not reported yet.
        await this.#recoverFrom(
          stateMachine,
          candidate,
          () => this.#machine.install(stateMachine),
        );
      } catch (error) {
        const isFinal = error instanceof MachineFailure ||
          this.#context.stopped.aborted;
        if (!isFinal) await this.#restore(applied, before);
        throw error;
      }
    });
  }

  /**
   * Reopens the state from before a failed recovery, which is still on disk (D11), so
   * that it answers until a recovery succeeds. A machine that has lost a part of it
   * does not answer.
   */
  async #restore(
    applied: number,
    before: StateMetadata | undefined,
  ): Promise<void> {
    try {
      const stateMachine = await this.#reopened();
      if (
        before !== undefined && stateMachine.applied < applied &&
        stateMachine.opened >= applied
      ) stateMachine.loadSessions(before);
      if (stateMachine.applied < applied) return await discard(stateMachine);
      // The recovery may have reached the disk before it failed.
      if (stateMachine.applied > applied) this.#machine.swap(stateMachine);
      else this.#machine.reopen(stateMachine);
    } catch (error) {
      this.#context.event({ type: "snapshot failed", error });
    }
  }

  /** Opens a new instance of an on-disk machine on the data of the closed one (R9). */
  async #reopened(): Promise<Machine> {
    const stateMachine = this.#parts.newMachine();
    try {
      await this.#open(stateMachine);
    } catch (error) {
      await discard(stateMachine);
      throw error;
    }
    return stateMachine;
  }
}
