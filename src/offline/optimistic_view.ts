/**
 * Optimistic view: the committed state with all pending submissions applied on top
 * of it, re-run whenever something is committed (U25).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { abortable, chain, isPromise } from "../async.ts";
import {
  APPLY_SLICE_MS,
  UPDATE_BYTES_MAX,
  VIEW_EAGER_COMMANDS_MAX,
  VIEW_UPDATE_COMMANDS_MAX,
} from "../limits.ts";
import type { ReplicaContext } from "../nodehost/context.ts";
import type { CurrentMachine } from "../nodehost/current_machine.ts";
import { loadOnDemand } from "../nodehost/load.ts";
import type { View } from "../nodehost/outbox.ts";
import { CallGuard, Op } from "../rsm/call_guard.ts";
import { ErrSystemBusy, MachineFailure } from "../rsm/errors.ts";
import type { ManagedFork } from "../rsm/managed_machine.ts";
import { noopListener, StateMachine } from "../rsm/state_machine.ts";
import { HOST_DIRECTORY } from "../snapshot/file_store.ts";
import { ErrNewerCode, ErrNotImplemented } from "../statemachine/errors.ts";
import {
  type Entry,
  type MaybePromise,
  OnDiskStateMachine,
  RegularStateMachine,
} from "../statemachine/types.ts";

/** Command that waits to be committed. */
export interface PendingCommand {
  /** Number of the command, in the order in which they are committed. */
  readonly id: number;
  /** Bytes of the command, as the state machine gets them. */
  readonly bytes: Uint8Array;
}

/** Pending commands of a replica. */
export interface PendingCommands<C extends PendingCommand = PendingCommand> {
  /** Number after that of the last command: commands get consecutive numbers in the order in which they will be committed. */
  readonly next: number;
  /** Number of pending commands. */
  readonly shown: number;
  /**
   * Changes whenever a command stops being pending, and only then can one be
   * missing before the last: a copy of the state with commands applied is valid as
   * long as it stays the same, except that the last command may be merged into the
   * one before it. A command leaves in the step that applies it, before any other
   * listener of that step runs.
   */
  readonly generation: number;
  /** Lists pending commands from a number on, as far as they are in memory. */
  list(from: number): PendingCommandList<C>;
  /** Reads pending commands from a number on, so that `list()` returns some of them. */
  read(from: number): Promise<void>;
}

/** Consecutive pending commands. */
export interface PendingCommandList<C extends PendingCommand = PendingCommand> {
  /** Commands in order; the caller owns the array. */
  readonly commands: C[];
  /** Number up to which, without it, no other command is pending. */
  readonly next: number;
}

/** Callbacks of an optimistic view. */
export interface ViewListener<C extends PendingCommand> {
  /** Called for a command at which the machine threw: committed, it would stop the replica (U17). */
  poisoned(command: C, error: unknown): void;
  /** Called when answers have all pending commands again, after some were not in memory. */
  caughtUp(): void;
}

/** Parts of a replica that its view works with. */
export interface ViewParts<L> {
  readonly context: Pick<
    ReplicaContext,
    | "clusterID"
    | "nodeID"
    | "factory"
    | "files"
    | "env"
    | "fail"
    | "stopped"
    | "ended"
  >;
  readonly machine: Pick<CurrentMachine, "check" | "recovering"> & {
    readonly current: StateMachine<L>;
  };
}

/** Instance of the machine with the committed state of one index, and the pending commands that were applied to it. */
class Copy<L> {
  /** State machine that it is a copy of. */
  readonly source: StateMachine<L>;
  /** Index of the last committed entry in it. */
  readonly index: number;
  /** Number of the last lookup that it is fresh enough for; -1 for a fork, which is fresh while nothing is committed. */
  readonly lookups: number;
  /** Generation of the pending commands that were applied to it. */
  readonly generation: number;
  /** Number after that of the last command that was applied to it. */
  next = 0;
  /** Number of commands that were applied to it. */
  count = 0;
  readonly #machine: ManagedFork;
  /** Guard of a regular machine, for every kind of machine: a lookup sees a command completely or not at all. */
  readonly #guard = new CallGuard(RegularStateMachine);

  constructor(
    machine: ManagedFork,
    source: StateMachine<L>,
    index: number,
    generation: number,
    lookups: number,
  ) {
    this.#machine = machine;
    this.source = source;
    this.index = index;
    this.generation = generation;
    this.lookups = lookups;
  }

  /** True if the state it was made from is the present one, and every command that was applied to it is pending. */
  isCurrent(
    { applied }: StateMachine<L>,
    { generation }: PendingCommands,
  ): boolean {
    return this.index === applied && this.generation === generation;
  }

  /** Applies commands, which are counted already. */
  update(commands: readonly PendingCommand[]): MaybePromise<void> {
    const { length } = commands;
    const upTo = this.index + this.count;
    const entries: Entry[] = new Array(length);
    for (let i = 0; i < length; i++) {
      const { bytes: cmd } = commands[i]!;
      entries[i] = { index: upTo - length + 1 + i, cmd, result: undefined };
    }
    return this.#guard.run(
      Op.Update,
      () => this.#machine.update(entries, () => ({ index: upTo, rows: [] })),
    );
  }

  lookup(query: unknown): MaybePromise<unknown> {
    return this.#guard.run(Op.Lookup, () => this.#machine.lookup(query));
  }

  /** Closes the copy; errors are ignored, since nothing in it is lost. */
  close(): void {
    (async () => {
      await this.#guard.run(Op.Close, () => this.#machine.close());
    })().catch(() => {});
  }
}

/** Optimistic view of one replica. */
export class OptimisticView<L, C extends PendingCommand = PendingCommand>
  implements View {
  readonly #context: ViewParts<L>["context"];
  readonly #machine: ViewParts<L>["machine"];
  readonly #pending: PendingCommands<C>;
  readonly #listener: ViewListener<C>;
  #copy: Copy<L> | undefined;
  /** Settles once the copy that is being made or updated is ready. */
  #updating: Promise<void> | undefined;
  #lookups = 0;
  /** Number after that of the last pending command at the last change. */
  #next = 0;
  /** Commands at which the machine threw. */
  readonly #poisoned = new WeakSet<PendingCommand>();
  #hasPoisoned = false;
  /** Number of the last of several commands at one of which the machine threw: those up to it are run one by one. */
  #alone = 0;
  #isCatchingUp = false;

  /** Creates the view of a replica that starts. */
  constructor(
    { context, machine }: ViewParts<L>,
    pending: PendingCommands<C>,
    listener: ViewListener<C>,
  ) {
    this.#context = context;
    this.#machine = machine;
    this.#pending = pending;
    this.#listener = listener;
  }

  /** Number of the newest pending commands that the present copy does not have. */
  get lag(): number {
    const copy = this.#copy;
    return copy === undefined ? 0 : Math.max(0, this.#pending.next - copy.next);
  }

  /** Queries the committed state with all pending commands applied to it. */
  lookup(query: unknown): MaybePromise<unknown> {
    const answer = this.#lookup(query);
    return isPromise(answer) ? abortable(answer, this.#context.ended) : answer;
  }

  #lookup(query: unknown): MaybePromise<unknown> {
    this.#machine.check();
    const { recovering, current: source } = this.#machine;
    if (recovering !== undefined) {
      return recovering.then(() => this.#lookup(query));
    }
    const { machine, guard } = source;
    if (this.#pending.shown === 0) {
      this.#drop();
      return source.lookup(query);
    }
    const lookups = ++this.#lookups;
    if (machine.fork !== undefined) {
      // Nothing is committed from here to the answer, so that the fork and the
      // pending commands are of the same moment.
      return guard.run(
        Op.Hash,
        () =>
          this.#pending.shown === 0
            ? machine.lookup(query)
            : this.#use((copy) => copy.lookup(query), source, lookups),
      );
    }
    if (machine.type === OnDiskStateMachine) {
      throw new ErrNotImplemented(
        "Machine is on disk and has no fork(), which a view with pending commands requires: implement it, or call staleRead()",
      );
    }
    return this.#use((copy) => copy.lookup(query), source, lookups);
  }

  /** Called when the pending commands of an earlier process are loaded: they are run when the view is read. */
  loaded(): void {
    this.#next = this.#pending.next;
  }

  /**
   * Called when the pending commands have changed. A new command is run at once if
   * that takes little time: if the machine throws at it, it is refused before it
   * is sent (U17).
   */
  changed(): void {
    const pending = this.#pending;
    const { shown, next } = pending;
    if (shown === 0) this.#drop();
    if (shown === 0 || next === this.#next) return;
    this.#next = next;
    try {
      this.#machine.check();
      const { recovering, current: source } = this.#machine;
      const { machine: { fork }, guard } = source;
      const copy = this.#copy;
      const isFresh = copy?.source === source &&
        copy.isCurrent(source, pending);
      if (
        fork === undefined || recovering !== undefined ||
        !isFresh && shown > VIEW_EAGER_COMMANDS_MAX
      ) return;
      const used = guard.run(
        Op.Hash,
        () => this.#use(() => {}, source, this.#lookups),
      );
      if (isPromise(used)) used.catch(() => {});
    } catch {
      // The next lookup throws it.
    }
  }

  /**
   * Called when the command of a number has become part of the one before it, so that
   * those after it have a number less. Returns false if the present copy must be
   * made again.
   */
  merged(number: number): boolean {
    if (this.#next > number) this.#next--;
    const copy = this.#copy;
    if (copy === undefined || copy.next < number) return true;
    // It has run the one before, or is running an unknown part of them.
    if (this.#updating !== undefined || copy.next === number) return false;
    copy.next--;
    return true;
  }

  /** Uses a copy that is fresh enough for a lookup; one is updated at a time. */
  #use<T>(
    use: (copy: Copy<L>) => MaybePromise<T>,
    source: StateMachine<L>,
    lookups: number,
  ): MaybePromise<T> {
    if (this.#updating !== undefined) {
      return this.#updating.then(() => this.#use(use, source, lookups));
    }
    const copy = this.#update(source, lookups);
    if (!isPromise(copy)) {
      if (copy.lookups < 0) this.#catchUp(copy);
      return use(copy);
    }
    // Registered before another call can have the copy replaced.
    const answer = copy.then(use);
    const end = (): void => {
      this.#updating = undefined;
    };
    this.#updating = copy.then((copy) => {
      end();
      if (copy.lookups < 0) this.#catchUp(copy);
    }, end);
    return answer;
  }

  #update(source: StateMachine<L>, lookups: number): MaybePromise<Copy<L>> {
    const copy = this.#copy;
    if (copy === undefined || copy.source !== source) {
      return this.#renew(source);
    }
    if (copy.lookups >= lookups) return copy;
    const pending = this.#pending;
    if (!copy.isCurrent(source, pending)) return this.#renew(source);
    return copy.next === pending.next
      ? copy
      : this.#run(copy, pending.list(copy.next));
  }

  /** Runs the commands that are not in memory in the background, as long as nothing is committed. */
  #catchUp(copy: Copy<L>): void {
    if (this.#isCatchingUp || copy.next >= this.#pending.next) return;
    this.#isCatchingUp = true;
    const end = (): void => {
      this.#isCatchingUp = false;
    };
    this.#readOn(copy).then(end, end);
  }

  async #readOn(copy: Copy<L>): Promise<void> {
    const pending = this.#pending;
    const { source } = copy;
    const isCurrent = (): boolean =>
      this.#copy === copy && copy.source === this.#machine.current &&
      copy.isCurrent(source, pending) && !this.#context.stopped.aborted;
    while (copy.next < pending.next) {
      const before = copy.next;
      await pending.read(before);
      if (!isCurrent()) return;
      await source.guard.run(
        Op.Hash,
        () => isCurrent() ? this.#use(() => {}, source, this.#lookups) : {},
      );
      if (!isCurrent() || copy.next === before) return;
    }
    this.#listener.caughtUp();
  }

  #drop(): void {
    if (this.#updating === undefined) this.close();
  }

  #renew(source: StateMachine<L>): MaybePromise<Copy<L>> {
    const { stopped } = this.#context;
    this.close();
    const { fork } = source.machine;
    if (fork === undefined) return this.#copyBySnapshot(source);
    if (source.behind) {
      throw new ErrSystemBusy(
        "View cannot be made while the sessions are rebuilt: call lookup() again later",
      );
    }
    return chain(fork(), (machine) => {
      const { generation } = this.#pending;
      const copy = new Copy(machine, source, source.applied, generation, -1);
      if (stopped.aborted) {
        copy.close();
        throw stopped.reason;
      }
      this.#copy = copy;
      return this.#run(copy, this.#pending.list(0));
    });
  }

  /** Applies pending commands to a copy, from position `at` on. */
  #run(
    copy: Copy<L>,
    list: PendingCommandList<C>,
    at = 0,
  ): MaybePromise<Copy<L>> {
    const { commands } = list;
    const { env, stopped } = this.#context;
    const slice = env.now();
    while (at < commands.length) {
      stopped.throwIfAborted();
      const chunk = this.#chunk(copy, commands, at);
      const next = at += chunk.length;
      const run = this.#isPoisoned(chunk)
        ? chunk.filter((command) => !this.#poisoned.has(command))
        : chunk;
      if (run.length === 0) continue;
      copy.count += run.length;
      let updated: MaybePromise<void>;
      try {
        updated = copy.update(run);
      } catch (error) {
        return this.#leaveOut(run, error, copy.source);
      }
      if (isPromise(updated)) {
        return updated.then(
          () => this.#run(copy, list, next),
          (error) => this.#leaveOut(run, error, copy.source),
        );
      }
      if (next < commands.length && env.now() - slice > APPLY_SLICE_MS) {
        // Lets the page do other work.
        return env.turn().then(() => this.#run(copy, list, next));
      }
    }
    copy.next = Math.max(copy.next, list.next);
    return copy;
  }

  /** Takes the next commands for one update; one of those among which the machine threw comes alone. */
  #chunk(copy: Copy<L>, commands: readonly C[], at: number): readonly C[] {
    const from = at;
    for (let bytes = 0; at < commands.length;) {
      const { id, bytes: { length } } = commands[at++]!;
      copy.next = id + 1;
      bytes += length;
      if (
        id <= this.#alone || at - from === VIEW_UPDATE_COMMANDS_MAX ||
        bytes >= UPDATE_BYTES_MAX
      ) break;
    }
    return from === 0 && at === commands.length
      ? commands
      : commands.slice(from, at);
  }

  #isPoisoned(commands: readonly C[]): boolean {
    return this.#hasPoisoned &&
      commands.some((command) => this.#poisoned.has(command));
  }

  /** Starts over after the machine threw, having changed an unknown part of its state: without the command, if it was alone. */
  #leaveOut(
    commands: readonly C[],
    error: unknown,
    source: StateMachine<L>,
  ): MaybePromise<Copy<L>> {
    this.close();
    // It stays queued for the newer code.
    if (error instanceof ErrNewerCode) throw error;
    if (commands.length > 1) this.#alone = commands.at(-1)!.id;
    else {
      const [command] = commands as [C];
      this.#alone = 0;
      this.#poisoned.add(command);
      this.#hasPoisoned = true;
      this.#listener.poisoned(command, error);
    }
    return this.#renew(source);
  }

  /** Copies a machine without `fork()` through a snapshot. */
  async #copyBySnapshot(source: StateMachine<L>): Promise<Copy<L>> {
    const context = this.#context;
    const { clusterID, nodeID, factory } = context;
    let list!: PendingCommandList<C>;
    let generation = 0;
    let lookups = 0;
    try {
      const { copyMachine } = await loadOnDemand();
      const { machine, index } = await copyMachine(source, {
        clusterID,
        nodeID,
        files: context.files,
        directory: `${HOST_DIRECTORY}/views/${clusterID}-${nodeID}`,
        env: context.env,
        stopped: context.stopped,
        taken: () => {
          if (this.#machine.recovering !== undefined) {
            throw new ErrSystemBusy(
              "Replica is recovering: call lookup() again later",
            );
          }
          // No update runs: what is pending is what this state lacks.
          list = this.#pending.list(0);
          generation = this.#pending.generation;
          lookups = this.#lookups;
        },
        target: () =>
          new StateMachine(factory, clusterID, nodeID, noopListener<never>(), {
            hashEntries: 0,
          }),
      });
      const copy = new Copy(machine, source, index, generation, lookups);
      this.#copy = copy;
      return await this.#run(copy, list);
    } catch (error) {
      if (!(error instanceof MachineFailure)) throw error;
      context.fail(error.cause);
      throw error.cause;
    }
  }

  /** Closes the copy. */
  close(): void {
    this.#copy?.close();
    this.#copy = undefined;
  }
}
