/**
 * What a replica would show if what it has submitted were committed: the
 * committed state, and what is pending run on top of it, again whenever
 * something is committed (U25).
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../env.ts";
import { APPLY_SLICE_MS, VIEW_EAGER_COMMANDS_MAX } from "../limits.ts";
import {
  abortable,
  chain,
  isPromise,
  pacedSink,
  pacedSource,
} from "../async.ts";
import { noopListener, StateMachine } from "../rsm/state_machine.ts";
import { ErrSystemBusy, MachineFailure } from "../rsm/errors.ts";
import { CallGuard, Op } from "../rsm/call_guard.ts";
import type { MachineFactory, ManagedFork } from "../rsm/managed_machine.ts";
import { recoverSnapshot } from "../rsm/recover_snapshot.ts";
import { saveSnapshot } from "../rsm/save_snapshot.ts";
import { type FileStore, HOST_DIRECTORY } from "../snapshot/file_store.ts";
import { MemorySnapshotStore } from "../snapshot/memory_snapshot_store.ts";
import type { SnapshotSink } from "../snapshot/store.ts";
import { ErrNotImplemented } from "../statemachine/errors.ts";
import {
  type MaybePromise,
  OnDiskStateMachine,
  RegularStateMachine,
} from "../statemachine/types.ts";

/** A command that waits to be committed. */
export interface PendingCommand {
  /** What is given to the machine. */
  readonly cmd: Uint8Array;
}

/** The commands of a replica that wait to be committed. */
export interface PendingCommands {
  /**
   * Those that wait, in the order in which they will be committed: the same
   * object for a command as long as it waits. One leaves in the very step that
   * applies it, before anything else is told of that step.
   */
  list(): readonly PendingCommand[];
  /** Calls `listener` when one came or left; returns what ends that. */
  onChange(listener: () => void): () => void;
}

/** What the replica would show if all that it has submitted were committed. */
export interface View {
  /**
   * Asks the committed state with everything that is pending applied to it, in
   * order; the machine itself when nothing is. What is pending is run anew on
   * every state that is committed, so that what the machine decides is decided
   * again. A command is never in the answer twice, and never in none. One at
   * which the machine throws is left out.
   *
   * It costs what is pending when something was committed since the last call,
   * and what was submitted since when not. A machine without `fork()` is saved
   * and recovered into another instance each time, which takes as long as its
   * state is large.
   *
   * @throws ErrNotImplemented if something is pending, and the machine is on disk and has no `fork()`
   * @throws ErrSystemBusy if the replica is recovering
   * @throws ErrDiverged if the replica is known to be wrong (H12)
   * @throws ErrClusterClosed if the replica was stopped or has failed
   */
  lookup(query: unknown): MaybePromise<unknown>;
}

const RECOVERING = "Replica is recovering";

/** What a view takes of its replica. */
export interface ViewOptions<L> {
  readonly factory: MachineFactory;
  readonly clusterID: bigint;
  readonly nodeID: bigint;
  readonly files: FileStore;
  readonly env: Env;
  /** The driver of the moment. */
  readonly driver: () => StateMachine<L>;
  /** Throws if nothing is to be answered. */
  readonly check: () => void;
  /** Settles when what is pending is that of the machine's state again, if it is not. */
  readonly unsettled: () => Promise<unknown> | undefined;
  readonly pending: PendingCommands;
  /** The machine throws at a command: it would be the end of the replica if it were committed (U17). */
  readonly onPoison: (command: PendingCommand, error: unknown) => void;
  /** The machine itself failed. */
  readonly fail: (cause: unknown) => void;
  /** Aborts when the replica stops. */
  readonly stopped: AbortSignal;
  /** Aborts when its machine is closed, or will not be. */
  readonly ended: AbortSignal;
}

/** Another machine in the state of a moment, and what was done to it since. */
class Copy<L> {
  readonly driver: StateMachine<L>;
  /** The last entry that is committed in it. */
  readonly index: number;
  /** Which calls it came after; -1 for one that is of use only while its machine stays as it is. */
  readonly asked: number;
  /** The commands it was given, in order. */
  readonly commands: PendingCommand[] = [];
  readonly #machine: ManagedFork;
  /** As strict as for a regular machine, whatever it is: a lookup sees a command whole or not at all. */
  readonly #guard = new CallGuard(RegularStateMachine);

  constructor(
    machine: ManagedFork,
    driver: StateMachine<L>,
    index: number,
    asked: number,
  ) {
    this.#machine = machine;
    this.driver = driver;
    this.index = index;
    this.asked = asked;
  }

  /** Whether what is pending begins with what it was given. */
  begins(pending: readonly PendingCommand[]): boolean {
    const { commands } = this;
    if (commands.length > pending.length) return false;
    for (let i = 0; i < commands.length; i++) {
      if (commands[i] !== pending[i]) return false;
    }
    return true;
  }

  update({ cmd }: PendingCommand): MaybePromise<void> {
    const index = this.index + this.commands.length;
    return this.#guard.run(
      Op.Update,
      () =>
        this.#machine.update(
          [{ index, cmd, result: undefined }],
          () => ({ index, rows: [] }),
        ),
    );
  }

  lookup(query: unknown): MaybePromise<unknown> {
    return this.#guard.run(Op.Lookup, () => this.#machine.lookup(query));
  }

  /** How closing goes is of no interest: nothing is in it that is not elsewhere. */
  close(): void {
    (async () => {
      await this.#guard.run(Op.Close, () => this.#machine.close());
    })().catch(() => {});
  }
}

/** The view of one replica. */
export class OptimisticView<L> implements View {
  readonly #options: ViewOptions<L>;
  #copy: Copy<L> | undefined;
  /** Settles when the copy is not being made or brought up to date any more. */
  #bringing: Promise<void> | undefined;
  #asked = 0;
  /** The last command that came. */
  #newest: PendingCommand | undefined;
  /** Commands that the machine threw at. */
  readonly #poisoned = new WeakSet<PendingCommand>();

  /** The view of a replica that just starts. */
  constructor(options: ViewOptions<L>) {
    this.#options = options;
  }

  /** As {@linkcode View.lookup}. */
  lookup(query: unknown): MaybePromise<unknown> {
    const answer = this.#lookup(query);
    return isPromise(answer) ? abortable(answer, this.#options.ended) : answer;
  }

  #lookup(query: unknown): MaybePromise<unknown> {
    const { check, unsettled, pending } = this.#options;
    check();
    const settling = unsettled();
    if (settling !== undefined) return settling.then(() => this.#lookup(query));
    const driver = this.#options.driver();
    const { machine, guard } = driver;
    if (pending.list().length === 0) {
      this.#drop();
      return driver.lookup(query);
    }
    const asked = ++this.#asked;
    if (machine.fork !== undefined) {
      // Nothing is committed from here to the answer: what a fork reads of its
      // machine, and what is pending, are of one moment.
      return guard.run(
        Op.Hash,
        () =>
          pending.list().length === 0
            ? machine.lookup(query)
            : this.#use((copy) => copy.lookup(query), driver, asked),
      );
    }
    if (machine.type === OnDiskStateMachine) {
      throw new ErrNotImplemented("Machine has no fork() to show what pends");
    }
    return this.#use((copy) => copy.lookup(query), driver, asked);
  }

  /**
   * What is pending has changed. What came is run at once where that takes little:
   * should the machine throw at it, that is known before it is sent (U17).
   */
  changed(): void {
    const { pending, check, unsettled } = this.#options;
    const list = pending.list();
    const newest = list.at(-1);
    if (newest === undefined) this.#drop();
    if (newest === undefined || newest === this.#newest) return;
    this.#newest = newest;
    try {
      check();
      const driver = this.#options.driver();
      const { machine: { fork }, guard, applied } = driver;
      const copy = this.#copy;
      const isFresh = copy?.driver === driver && copy.index === applied &&
        copy.begins(list);
      if (
        fork === undefined || unsettled() !== undefined ||
        !isFresh && list.length > VIEW_EAGER_COMMANDS_MAX
      ) return;
      const used = guard.run(
        Op.Hash,
        () => this.#use(() => {}, driver, this.#asked),
      );
      if (isPromise(used)) used.catch(() => {});
    } catch {
      // Whoever asks is told.
    }
  }

  /** Uses a copy that is not older than the call; one is brought up to date at a time. */
  #use<T>(
    use: (copy: Copy<L>) => MaybePromise<T>,
    driver: StateMachine<L>,
    asked: number,
  ): MaybePromise<T> {
    if (this.#bringing !== undefined) {
      return this.#bringing.then(() => this.#use(use, driver, asked));
    }
    const copy = this.#bring(driver, asked);
    if (!isPromise(copy)) return use(copy);
    // Before anybody else may have the copy replaced.
    const answer = copy.then(use);
    const end = (): void => {
      this.#bringing = undefined;
    };
    this.#bringing = copy.then(end, end);
    return answer;
  }

  #bring(driver: StateMachine<L>, asked: number): MaybePromise<Copy<L>> {
    const copy = this.#copy;
    if (copy === undefined || copy.driver !== driver) {
      return this.#renew(driver);
    }
    if (copy.asked >= asked) return copy;
    const list = this.#options.pending.list();
    if (copy.index !== driver.applied || !copy.begins(list)) {
      return this.#renew(driver);
    }
    return copy.commands.length === list.length
      ? copy
      : this.#run(copy, list.slice());
  }

  #drop(): void {
    if (this.#bringing !== undefined) return;
    this.#copy?.close();
    this.#copy = undefined;
  }

  #renew(driver: StateMachine<L>): MaybePromise<Copy<L>> {
    const { pending, stopped } = this.#options;
    this.#copy?.close();
    this.#copy = undefined;
    const { fork } = driver.machine;
    if (fork === undefined) return this.#save(driver);
    if (driver.behind) {
      throw new ErrSystemBusy("Sessions are still being rebuilt");
    }
    return chain(fork(), (machine) => {
      const copy = new Copy(machine, driver, driver.applied, -1);
      if (stopped.aborted) {
        copy.close();
        throw stopped.reason;
      }
      this.#copy = copy;
      return this.#run(copy, pending.list().slice());
    });
  }

  /** Gives a copy what is pending and it was not given yet. */
  #run(
    copy: Copy<L>,
    list: readonly PendingCommand[],
  ): MaybePromise<Copy<L>> {
    const { env, stopped } = this.#options;
    const slice = env.now();
    const { commands } = copy;
    while (commands.length < list.length) {
      stopped.throwIfAborted();
      const command = list[commands.length]!;
      commands.push(command);
      if (this.#poisoned.has(command)) continue;
      let updated: MaybePromise<void>;
      try {
        updated = copy.update(command);
      } catch (error) {
        return this.#leaveOut(command, error, copy.driver);
      }
      if (isPromise(updated)) {
        return updated.then(
          () => this.#run(copy, list),
          (error) => this.#leaveOut(command, error, copy.driver),
        );
      }
      if (commands.length % 64 === 0 && env.now() - slice > APPLY_SLICE_MS) {
        // A page has more to do than to show this.
        return env.turn().then(() => this.#run(copy, list));
      }
    }
    return copy;
  }

  /** Starts over without a command at which the machine throws: who knows what it did before. */
  #leaveOut(
    command: PendingCommand,
    error: unknown,
    driver: StateMachine<L>,
  ): MaybePromise<Copy<L>> {
    this.#poisoned.add(command);
    this.#copy?.close();
    this.#copy = undefined;
    this.#options.onPoison(command, error);
    return this.#renew(driver);
  }

  /** A copy by way of a snapshot, for a machine that cannot fork. */
  async #save(driver: StateMachine<L>): Promise<Copy<L>> {
    const { clusterID, nodeID, factory, files, env } = this.#options;
    const { pending, unsettled, stopped } = this.#options;
    const store = new MemorySnapshotStore();
    let sink!: SnapshotSink;
    let list!: readonly PendingCommand[];
    let asked = 0;
    try {
      const totals = await saveSnapshot(driver, {
        header: { clusterID, nodeID, kind: "full", compression: "none" },
        create: (header) => {
          if (unsettled() !== undefined) throw new ErrSystemBusy(RECOVERING);
          // No update runs: what is pending is what this state lacks.
          list = pending.list().slice();
          asked = this.#asked;
          sink = store.create(header);
          return pacedSink(sink.writable, env);
        },
        files,
        signal: stopped,
      });
      const info = await sink.commit(totals);
      const other = new StateMachine(
        factory,
        clusterID,
        nodeID,
        noopListener<never>(),
        { hashEntries: 0 },
      );
      const copy = new Copy(other.machine, driver, info.index, asked);
      try {
        await recoverSnapshot(other, {
          info,
          open: () => pacedSource(store.open(info), env),
          files,
          directory: `${HOST_DIRECTORY}/views/${clusterID}-${nodeID}`,
          signal: stopped,
        });
        stopped.throwIfAborted();
      } catch (error) {
        copy.close();
        // Another instance failed, and not the one that is replicated.
        throw error instanceof MachineFailure ? error.cause : error;
      }
      this.#copy = copy;
      return await this.#run(copy, list);
    } catch (error) {
      if (!(error instanceof MachineFailure)) throw error;
      this.#options.fail(error.cause);
      throw error.cause;
    }
  }

  /** Frees what it holds; the replica has stopped. */
  close(): void {
    this.#copy?.close();
    this.#copy = undefined;
  }
}
