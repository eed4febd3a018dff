/**
 * Recovery of a replica's state: at the start, when the log was compacted past
 * the state, when the state has diverged, and without an entry that is skipped. Here
 * the snapshot is chosen; `rsm/recover_snapshot.ts` reads it, and refuses one that
 * is damaged or recovers to another state hash.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { pacedSource, sleep } from "../async.ts";
import { STORE_FULL_RETRY_MS } from "../limits.ts";
import { ErrClusterAlreadyExist, ErrCompacted } from "../log/errors.ts";
import type { Epoch } from "../log/history.ts";
import type { LogReader, SnapshotSource } from "../log/log.ts";
import { MachineFailure } from "../rsm/errors.ts";
import {
  checkState,
  readSessions,
  recoverSnapshot,
} from "../rsm/recover_snapshot.ts";
import {
  type SnapshotCandidate,
  snapshotCandidates,
} from "../rsm/snapshot_candidates.ts";
import { StateMachine, type StateMetadata } from "../rsm/state_machine.ts";
import { ErrStateMismatch } from "../snapshot/errors.ts";
import { HOST_DIRECTORY } from "../snapshot/file_store.ts";
import type { SnapshotInfo } from "../snapshot/store.ts";
import { ErrNotImplemented, ErrOpenStopped } from "../statemachine/errors.ts";
import type { IRemoveData } from "../statemachine/machines.ts";
import { OnDiskStateMachine } from "../statemachine/types.ts";
import { ErrStoreFull, ErrStoreVanished } from "../store/errors.ts";
import type { ReplicaContext } from "./context.ts";
import { type CurrentMachine, discard } from "./current_machine.ts";
import type { DivergenceMonitor } from "./divergence_monitor.ts";
import { guardLog } from "./log_failure.ts";
import type { Proposals } from "./proposals.ts";
import type { SessionState } from "./session.ts";

type Machine = StateMachine<SessionState>;

/** A recovered state machine, and the log from where its state ends. */
export interface Recovered {
  readonly stateMachine: Machine;
  readonly reader: LogReader;
}

/** A replica's state at its start, or after it was rebuilt. */
export interface Base extends Recovered {
  /** For an on-disk machine, the index after which it needs the log for its next start. */
  readonly retain: number | undefined;
  /** True if the state came from the server. */
  readonly isRemote: boolean;
}

/** Reason why no snapshot could be recovered; undefined if there was none to try. */
interface Damage {
  readonly damage: unknown;
}

/** Unwraps the machine's own error, for the caller that starts the replica. */
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

/** Creates state machines and recovers their state from snapshots and the log. */
export class Recovery {
  readonly #context: ReplicaContext;
  readonly #machine: CurrentMachine;
  readonly #proposals: Proposals;
  readonly #divergence: DivergenceMonitor;

  /** Creates the recovery of a replica. */
  constructor(
    context: ReplicaContext,
    machine: CurrentMachine,
    proposals: Proposals,
    divergence: DivergenceMonitor,
  ) {
    this.#context = context;
    this.#machine = machine;
    this.#proposals = proposals;
    this.#divergence = divergence;
  }

  // ---------------------------------------------------- before the first state

  /**
   * Recovers a new state machine: one in memory from the newest good snapshot and
   * the log after it, one on disk from what it holds (H8, D13, D14).
   *
   * @param hasSkipped true if an on-disk machine holds a skipped entry and needs another state
   * @throws ErrDiverged if the state present goes beyond the log, or has another history (D13, H13)
   * @throws ErrCompacted if the log was compacted and no snapshot reaches it; its cause is the damage of those that could have (H8)
   * @throws ErrStoreVanished if an on-disk machine has lost its state (D14)
   */
  async base(hasSkipped = false): Promise<Base> {
    return this.#context.type !== OnDiskStateMachine
      ? await this.#baseInMemory()
      : hasSkipped
      ? await this.#otherBase()
      : await this.#baseOnDisk(this.#context.remote);
  }

  /** Creates a state machine without entries. */
  #newMachine(): Machine {
    const { factory, clusterID, nodeID, config, type, event } = this.#context;
    return new StateMachine(factory, clusterID, nodeID, this.#proposals, {
      hashEntries: config.hashEntries ?? 0,
      skips: this.#machine.skips.list(),
      progress: {
        applied: () => this.#machine.advanced(),
        checkpoint: (checkpoint) => this.#divergence.reached(checkpoint),
        checkpointFailed: (error) => event({ type: "hash failed", error }),
      },
      ...(type === OnDiskStateMachine
        ? { room: (error) => this.#awaitRoom(error) }
        : {}),
    });
  }

  /** Waits before an on-disk machine that found no room is called again (U8). */
  async #awaitRoom(error: ErrStoreFull): Promise<void> {
    const { env, event, stopped } = this.#context;
    event({ type: "store full", error });
    await sleep(env, STORE_FULL_RETRY_MS, stopped);
  }

  #candidates(stores: readonly SnapshotSource[]): Promise<SnapshotCandidate[]> {
    const { clusterID } = this.#context;
    return snapshotCandidates(stores, clusterID, this.#machine.skips.list());
  }

  /** Reads the log after `index`; returns the error if entries there were compacted. */
  async #readAfter(
    index: number,
    epoch: Epoch | undefined,
  ): Promise<LogReader | ErrCompacted> {
    try {
      return await this.#context.log.read(index, { epoch });
    } catch (error) {
      if (error instanceof ErrCompacted) return error;
      throw error;
    }
  }

  async #baseInMemory(): Promise<Base> {
    const { localStores, remote } = this.#context;
    const retain = undefined;
    const local = await this.#newest(localStores, 0);
    if (!("damage" in local)) return { ...local, retain, isRemote: false };
    let { damage } = local;
    let reader = await this.#readAfter(0, undefined);
    if (reader instanceof ErrCompacted) {
      const found = await this.#newest(remote && [remote], 0);
      if (!("damage" in found)) return { ...found, retain, isRemote: true };
      damage ??= found.damage;
      // The server's snapshot may have been a shortcut only.
      reader = await this.#readAfter(0, undefined);
    }
    if (reader instanceof ErrCompacted) throw compacted(reader, damage);
    const stateMachine = this.#newMachine();
    return { stateMachine, reader, retain, isRemote: false };
  }

  /**
   * Recovers a new state machine from the newest good full snapshot at or above
   * `from` from which the log continues (H8).
   */
  async #newest(
    stores: readonly SnapshotSource[] | undefined,
    from: number,
  ): Promise<Recovered | Damage> {
    let damage: unknown;
    const tried = new Set<string>();
    for (;;) {
      const list = (await this.#candidates(stores ?? [])).filter(({ info }) =>
        info.kind === "full" && info.index >= from && !tried.has(info.id)
      );
      // Other replicas may have taken new ones, and compacted the log up to them.
      if (list.length === 0) return { damage };
      for (const { info } of list) tried.add(info.id);
      const found = await this.#first(list);
      if (!("damage" in found)) return found;
      damage ??= found.damage;
    }
  }

  /** Recovers a new state machine from the first good snapshot of a list from which the log continues. */
  async #first(
    list: readonly SnapshotCandidate[],
  ): Promise<Recovered | Damage> {
    const { openStopped, recoverStopped, event } = this.#context;
    let damage: unknown;
    for (const candidate of list) {
      recoverStopped.throwIfAborted();
      const { index, epoch } = candidate.info;
      // Opened before the recovery, so that the entries after it are not compacted.
      const reader = await this.#readAfter(index, epoch);
      if (reader instanceof ErrCompacted) continue;
      const stateMachine = this.#newMachine();
      try {
        await this.#open(stateMachine);
        await this.#recoverFrom(stateMachine, candidate);
        return { stateMachine, reader };
      } catch (error) {
        reader.close();
        await discard(stateMachine);
        // An older snapshot helps neither a machine that fails nor a full disk.
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

  /** Opens a machine; returns the index up to which it holds entries. */
  async #open(stateMachine: Machine): Promise<number> {
    const { openStopped } = this.#context;
    const opened = await stateMachine.open(openStopped);
    // The machine may have ignored the signal.
    openStopped.throwIfAborted();
    return opened;
  }

  /** Recovers a machine from a snapshot; closes it if that fails. */
  async #recoverFrom(
    stateMachine: Machine,
    { info, store }: SnapshotCandidate,
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
      });
      // Only the container holds the state until the machine has synced it (D11).
      if (
        info.type === OnDiskStateMachine ||
        stateMachine.machine.type === OnDiskStateMachine
      ) {
        await stateMachine.sync();
      }
      event({ type: "recovered", snapshot: info });
    } catch (error) {
      await discard(stateMachine);
      throw error;
    }
  }

  async #baseOnDisk(remote: SnapshotSource | undefined): Promise<Base> {
    const { nodeID, openStopped, localStores } = this.#context;
    const stateMachine = this.#newMachine();
    let opened: number;
    try {
      opened = await stateMachine.open(openStopped);
    } catch (error) {
      if (!(error instanceof ErrOpenStopped && openStopped.aborted)) {
        await discard(stateMachine);
      }
      throw error;
    }
    try {
      // The machine may have ignored the signal.
      openStopped.throwIfAborted();
      const list = await this.#candidates(localStores);
      const renew = await this.#isImportUnsure(list, opened, stateMachine) ||
        await this.#isOtherState(stateMachine, opened, list);
      // A state beyond the end of the log fails the start, even if a snapshot would help (D13).
      const newest = list[0]?.info;
      const ahead = await this.#readAfter(newest?.index ?? 0, newest?.epoch);
      if (!(ahead instanceof ErrCompacted)) ahead.close();
      const reader = await this.#readAfter(opened, stateMachine.epoch);
      const recorded = list.find(({ info }) =>
        info.kind === "metadata" && info.nodeID === nodeID
      )?.info.index ?? 0;
      const base = reader instanceof ErrCompacted || renew
        ? undefined
        : await this.#rebuildSessions(stateMachine, opened, list);
      if (!(reader instanceof ErrCompacted)) {
        reader.close();
      }
      if (base !== undefined) {
        const retain = stateMachine.applied;
        return { stateMachine, reader: base, retain, isRemote: false };
      }
      await discard(stateMachine);
      const found = await this.#newestOnDisk(opened, remote);
      if (!("damage" in found)) {
        return found;
      }
      if (remote !== undefined && reader instanceof ErrCompacted) {
        // The server's snapshot may have been a shortcut only.
        const again = await this.#readAfter(opened, stateMachine.epoch);
        if (!(again instanceof ErrCompacted)) {
          again.close();
          return await this.#baseOnDisk(undefined);
        }
      }
      throw vanished(opened, recorded, reader, found.damage);
    } catch (error) {
      await discard(stateMachine);
      throw causeOf(error);
    }
  }

  /** Recovers an on-disk machine from the newest good full snapshot: from a snapshot of this process, else from the server's. */
  async #newestOnDisk(
    from: number,
    remote: SnapshotSource | undefined,
  ): Promise<Base | Damage> {
    const local = await this.#newest(this.#context.localStores, from);
    if (!("damage" in local)) {
      return { ...local, retain: local.stateMachine.applied, isRemote: false };
    }
    const found = await this.#newest(remote && [remote], from);
    return "damage" in found
      ? { damage: local.damage ?? found.damage }
      : { ...found, retain: found.stateMachine.applied, isRemote: true };
  }

  /**
   * Recovers an on-disk machine whose own state holds a skipped entry: from a
   * snapshot without the entry, else, if the machine can be emptied, from the
   * beginning of the log.
   */
  async #otherBase(): Promise<Base> {
    try {
      const found = await this.#newestOnDisk(0, this.#context.remote);
      if (!("damage" in found)) return found;
      const reader = await this.#readAfter(0, undefined);
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
    const { factory, clusterID, nodeID, openStopped } = this.#context;
    const machine = factory.create(clusterID, nodeID) as Partial<IRemoveData>;
    if (typeof machine.removeData !== "function") {
      throw new ErrNotImplemented(
        `Machine of cluster ${clusterID} has no removeData(), which is required to recover it without a skipped entry`,
      );
    }
    await machine.removeData();
    const stateMachine = this.#newMachine();
    const opened = await stateMachine.open(openStopped);
    if (opened === 0) return stateMachine;
    await discard(stateMachine);
    throw new ErrStoreVanished(
      `Machine still holds entries up to ${opened} after its removeData()`,
    );
  }

  /**
   * Checks that a cluster with an imported snapshot has no other state here (H9).
   *
   * @returns true if the import has to be recovered once more: until the first append, a machine that stores no epoch cannot tell whether it holds the imported state
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
          // Unreadable; another one may be readable.
          this.#context.event({ type: "snapshot failed", error });
        } else if (error.cause instanceof ErrStateMismatch) return true;
        else throw error;
      }
    }
    return false;
  }

  /**
   * Restores the sessions as of the index the machine opened at: they are stored
   * with it, or come from the newest snapshot at or before that index and the log
   * after it (H6).
   *
   * @returns the log from where the sessions stand; undefined if they cannot be restored
   */
  async #rebuildSessions(
    stateMachine: Machine,
    opened: number,
    list: readonly SnapshotCandidate[],
  ): Promise<LogReader | undefined> {
    if (stateMachine.applied === opened) {
      const reader = await this.#readAfter(opened, stateMachine.epoch);
      return reader instanceof ErrCompacted ? undefined : reader;
    }
    for (const { info, store } of list) {
      if (info.index > opened) continue;
      const reader = await this.#readAfter(info.index, info.epoch);
      if (reader instanceof ErrCompacted) break;
      try {
        stateMachine.loadSessions(await readSessions(await store.open(info)));
        return reader;
      } catch (error) {
        reader.close();
        this.#context.event({ type: "snapshot failed", error });
      }
    }
    const reader = await this.#readAfter(0, undefined);
    return reader instanceof ErrCompacted ? undefined : reader;
  }

  // ----------------------------------------------------- after the first state

  /**
   * Recovers the newest snapshot that is ahead of the present state, or, if the
   * state has diverged, is known to be right.
   *
   * @returns where the snapshot came from; undefined if no snapshot helps
   * @throws ErrOtherHistory if the server has another history: the user has to decide
   */
  async recover(): Promise<"here" | "server" | undefined> {
    const { log, event, allStores, remote, stopped, type } = this.#context;
    await guardLog(() =>
      log.verify?.(this.#machine.history, { signal: stopped })
    );
    let list: SnapshotCandidate[];
    try {
      list = await this.#candidates(allStores);
    } catch (error) {
      // The store may work again later (R8).
      event({ type: "snapshot failed", error });
      return undefined;
    }
    for (const candidate of list.filter(({ info }) => this.#helps(info))) {
      const { info, store } = candidate;
      const retention = log.retain(info.index);
      try {
        (await log.read(info.index, { epoch: info.epoch })).close();
        await (type === OnDiskStateMachine
          ? this.#recoverInPlace(candidate)
          : this.#recoverBeside(candidate));
      } catch (error) {
        if (error instanceof MachineFailure || stopped.aborted) throw error;
        if (error instanceof ErrStoreFull) {
          // An older one would find no room either: retried later (U8).
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
      return this.#divergence.isTrusted(info);
    }
    const { applied, closed } = this.#machine.newest;
    // A state that was not synced may be lost with its machine.
    return info.index > applied || info.index === applied && closed;
  }

  /**
   * Recovers into a new state machine. The present one answers until that has its
   * state, and stays if the recovery fails: a transfer takes time, and may be cut
   * off (R9, U38).
   */
  async #recoverBeside(candidate: SnapshotCandidate): Promise<void> {
    const stateMachine = this.#newMachine();
    await this.#recoverFrom(stateMachine, candidate);
    this.#machine.install(stateMachine);
  }

  /** Recovers an on-disk machine, of which there is one instance only. */
  async #recoverInPlace(candidate: SnapshotCandidate): Promise<void> {
    // Its session table is that of the last state that answered, even if it is closed.
    const before = this.#machine.current.capture();
    await this.#machine.recoverInPlace(async () => {
      let stateMachine = this.#machine.newest;
      if (stateMachine.closed) stateMachine = await this.#reopened();
      // The state that answered has to be there again if the recovery fails (U30).
      else await stateMachine.sync();
      try {
        await this.#recoverFrom(stateMachine, candidate);
      } catch (error) {
        const isFinal = error instanceof MachineFailure ||
          this.#context.stopped.aborted;
        if (!isFinal) await this.#restore(before);
        throw error;
      }
      this.#machine.install(stateMachine);
    });
  }

  /**
   * Reopens the state from before a recovery that failed, which is still on disk
   * (D11), so that it answers until a recovery succeeds. A machine that has lost
   * some of it does not answer.
   */
  async #restore(before: StateMetadata): Promise<void> {
    try {
      const stateMachine = await this.#reopened();
      if (
        stateMachine.applied < before.index &&
        stateMachine.opened >= before.index
      ) stateMachine.loadSessions(before);
      if (stateMachine.applied < before.index) {
        return await discard(stateMachine);
      }
      // The recovery may have reached the disk before it failed.
      if (stateMachine.applied > before.index) this.#machine.swap(stateMachine);
      else this.#machine.reopen(stateMachine);
    } catch (error) {
      this.#context.event({ type: "snapshot failed", error });
    }
  }

  /** Opens a new instance of an on-disk machine on the data of the closed one (R9). */
  async #reopened(): Promise<Machine> {
    const stateMachine = this.#newMachine();
    try {
      await this.#open(stateMachine);
    } catch (error) {
      await discard(stateMachine);
      throw error;
    }
    return stateMachine;
  }

  /**
   * Recovers a successor of the present machine, to replace its state by one
   * without an entry. A machine in memory that has not failed answers until then.
   *
   * @param hasSkipped true if the state of an on-disk machine holds a skipped entry
   */
  async rebuild(hasSkipped: boolean): Promise<Base> {
    const { type, stopped } = this.#context;
    const { current: before } = this.#machine;
    const isClosing = type === OnDiskStateMachine ||
      before.updateFailed !== undefined;
    await this.#machine.prepareSuccessor(isClosing);
    const base = await this.base(hasSkipped);
    if (stopped.aborted) {
      base.reader.close();
      await discard(base.stateMachine);
      throw stopped.reason;
    }
    const isBeyond = base.stateMachine.applied > before.applied;
    this.#machine.setSuccessor(base.stateMachine, isBeyond);
    return base;
  }
}
