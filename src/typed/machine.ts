/**
 * State machine of a definition.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { describe } from "../describe.ts";
import type {
  Forked,
  IActivation,
  IAdmit,
  IConcurrentStateMachine,
  IExtended,
  IFork,
  IHash,
  IRecoveredHash,
  IRefusal,
  IStateVersion,
} from "../statemachine/machines.ts";
import type {
  Entry,
  ISnapshotFileCollection,
  Result,
  SnapshotFile,
} from "../statemachine/types.ts";
import { TOUCHED_COMMANDS_MAX } from "../limits.ts";
import { admitCommand } from "./admit.ts";
import { decodeCommand, encodeActivation, type Envelope } from "./command.ts";
import {
  type AnyCommand,
  type CommandContext,
  isSuperseded,
  LibraryQuery,
  type MachineCore,
  type QueriedMachine,
  Rejected,
  seedKey,
  type Touched,
  type TypedQuery,
  upcast,
  WatchedQuery,
} from "./core.ts";
import { ErrNewerCode } from "../statemachine/errors.ts";
import { ErrInvalidDefinition, ErrInvalidQuery } from "./errors.ts";
import { decodePlain, encodePlain, type Plain } from "./plain.ts";
import { Random } from "./random.ts";
import { Reads } from "./reads.ts";
import { accepted, codeOf, rejected } from "./result.ts";
import {
  loadState,
  type SavedState,
  saveState,
  stateHash,
} from "./snapshot.ts";
import type { TouchedRow, TypedState } from "./state.ts";
import { TableCore } from "./table.ts";

const NONE: Touched = /* @__PURE__ */ new Map();

/** Context of one command. */
class Context implements CommandContext {
  readonly by: string | null;
  readonly at: number;
  readonly #seed: Uint8Array;
  readonly #machine: Pick<DefinedMachine, "isActive">;
  #random: Random | undefined;

  constructor({ by, at, seed }: Envelope, machine: DefinedMachine) {
    this.by = by;
    this.at = at;
    this.#seed = seed;
    this.#machine = machine;
  }

  random(): number {
    return (this.#random ??= new Random(this.#seed)).float();
  }

  id(): string {
    return (this.#random ??= new Random(this.#seed)).id();
  }

  reject<const C extends string>(code: C): Rejected<C> {
    return new Rejected(code);
  }

  since(change: string): boolean {
    return this.#machine.isActive(change);
  }
}

/** Concurrent state machine of a definition. */
export class DefinedMachine
  implements
    IConcurrentStateMachine<TypedQuery, unknown>,
    IActivation,
    IAdmit,
    IExtended,
    IHash,
    IRecoveredHash,
    IRefusal,
    IStateVersion,
    IFork<IConcurrentStateMachine<TypedQuery, unknown>>,
    QueriedMachine {
  /** Version of the state's shape. */
  readonly stateVersion: number;
  readonly #definition: MachineCore;
  #state: TypedState;
  /** Active changes of behaviour, with the index from which each counts. */
  #active: ReadonlyMap<string, number> = new Map();
  #recoveredHash: bigint | undefined;
  /** Rows that commands touched, by their seeds; undefined unless this is a fork. */
  #touched: Map<string, TouchedRow[]> | undefined;

  /** Creates the machine in the first state of its definition. */
  constructor(definition: MachineCore) {
    this.#definition = definition;
    this.stateVersion = this.#definition.version;
    this.#state = this.#definition.newState();
  }

  /** Names of the changes that this code knows, with those of the state's version. */
  get changes(): readonly string[] {
    return [...this.#definition.known];
  }

  /**
   * Returns the command that activates a change, undefined if it is active (Y7).
   *
   * @throws ErrInvalidDefinition if the definition does not list it in `changes`
   */
  activation(change: string): Uint8Array | undefined {
    const { known, name } = this.#definition;
    if (!known.has(change)) {
      throw new ErrInvalidDefinition(
        `Machine ${name} does not list ${describe(change)} in its \`changes\``,
      );
    }
    return this.#active.has(change) || isSuperseded(this.#definition, change)
      ? undefined
      : encodeActivation(change);
  }

  /**
   * Decides about a command before it is ordered (Y6).
   *
   * @throws ErrNewerCode if only newer code knows it
   * @throws ErrOtherAuthor if the principal is not its author
   */
  admit(
    cmd: Uint8Array,
    principal: string | null | undefined,
  ): string | undefined {
    return admitCommand(this.#definition, cmd, principal);
  }

  /** Applies commands. A malformed one is rejected, as is one whose handler throws. */
  update(entries: Entry[]): Entry[] {
    for (const entry of entries) entry.result = this.#apply(entry);
    return entries;
  }

  #apply(entry: Entry): Result {
    const envelope = decodeCommand(entry.cmd);
    if (envelope === undefined) return rejected("sampan:malformed");
    if (envelope.name === "") return this.#activate(entry, envelope);
    const command = this.#definition.commands.get(envelope.name);
    if (command === undefined || envelope.version > command.version) {
      return this.#rejectNewer(
        `Command ${describe(envelope.name)} of version ${envelope.version}`,
        entry,
      );
    }
    if (envelope.version < 1) return rejected("sampan:malformed");
    return this.#run(entry, envelope, command);
  }

  #run(entry: Entry, envelope: Envelope, command: AnyCommand): Result {
    const state = this.#state;
    let args: unknown;
    const touched = this.#noteTouched(envelope);
    let ran: ((isAccepted: boolean) => void) | undefined;
    try {
      args = upcast(command, envelope);
      if (this.#definition.followers.size > 0) {
        ran = this.#follow(envelope, args);
      }
      const context = new Context(envelope, this);
      const { result, code } = state.run(
        () => {
          const returned = command.run(state.root, args, context);
          return returned instanceof Rejected
            ? { code: returned.code, result: rejected(returned.code) }
            : { code: undefined, result: accepted(returned) };
        },
        ({ code }) => code === undefined,
        touched,
      );
      ran?.(code === undefined);
      return result;
    } catch (error) {
      // Its text differs between engines, and is not part of the result.
      if (this.#touched === undefined) {
        this.#definition.thrown(error, entry, envelope, args);
      }
      ran?.(false);
      return rejected("sampan:threw");
    }
  }

  /** List for what a command touches, if this is a fork. */
  #noteTouched({ seed }: Envelope): TouchedRow[] | undefined {
    const all = this.#touched;
    if (all === undefined || all.size >= TOUCHED_COMMANDS_MAX) return undefined;
    const touched: TouchedRow[] = [];
    all.set(seedKey(seed), touched);
    return touched;
  }

  #follow(
    envelope: Envelope,
    args: unknown,
  ): ((isAccepted: boolean) => void) | undefined {
    const all = this.#definition.followers.get(seedKey(envelope.seed));
    if (all === undefined) return undefined;
    const { root } = this.#state;
    const ran = [...all].map((follower) =>
      follower(root, args, new Context(envelope, this))
    );
    return (isAccepted) => {
      for (const note of ran) note(isAccepted);
    };
  }

  /** State as handlers get it. */
  get root(): Readonly<Record<string, unknown>> {
    return this.#state.root;
  }

  /** Rows that the commands which this fork has applied have touched; none of a machine that is no fork. */
  get touched(): Touched {
    return this.#touched ?? NONE;
  }

  /** Returns the rows that a command would touch in the present state. */
  touchedBy(cmd: Uint8Array): readonly TouchedRow[] {
    const envelope = decodeCommand(cmd);
    const command = envelope && this.#definition.commands.get(envelope.name);
    if (command === undefined || envelope!.version > command.version) return [];
    const state = this.#state.clone();
    return state.touchedBy(() =>
      command.run(
        state.root,
        upcast(command, envelope!),
        new Context(envelope!, this),
      )
    );
  }

  /** Runs commands on a fork, for those who follow them. */
  rehearse(cmds: readonly Uint8Array[]): void {
    const fork = this.#forked();
    for (const cmd of cmds) {
      try {
        fork.#apply({ index: 0, cmd });
      } catch (error) {
        // One of newer code is left out.
        if (!(error instanceof ErrNewerCode)) throw error;
      }
    }
  }

  #rejectNewer(what: string, { index }: Entry): Result {
    if (this.#definition.rejectsNewer) return rejected("sampan:newer");
    throw new ErrNewerCode(
      `${what} at index ${index} is not known to this code of machine ${this.#definition.name}: load the newer code; nothing is lost`,
    );
  }

  /** Activates a change of behaviour, from this entry on (Y7). */
  #activate(entry: Entry, { args }: Envelope): Result {
    if (typeof args !== "string") return rejected("sampan:malformed");
    if (this.#active.has(args)) return accepted(undefined);
    if (!this.#definition.known.has(args)) {
      return this.#rejectNewer(`Change ${describe(args)}, activated`, entry);
    }
    this.#active = new Map(this.#active).set(args, entry.index);
    return accepted(undefined);
  }

  /** True if a change is active. */
  isActive(change: string): boolean {
    const { changes, name } = this.#definition;
    if (changes.has(change)) return this.#active.has(change);
    throw new ErrInvalidDefinition(
      `Machine ${name} does not list ${describe(change)} in its \`changes\``,
    );
  }

  /**
   * Answers a query.
   *
   * @throws ErrInvalidQuery if the definition has no query of that name, or it answers with a table
   */
  lookup(query: TypedQuery): unknown {
    if (query instanceof LibraryQuery) return query.ask(this);
    const { queries, name } = this.#definition;
    const answer = queries.get(query.name);
    if (answer === undefined) {
      throw new ErrInvalidQuery(
        `Machine ${name} has no query ${describe(query.name)}`,
      );
    }
    const found = query instanceof WatchedQuery
      ? this.#watched(query, answer)
      : answer(this.#state.root, ...query.args);
    if (found instanceof TableCore) {
      throw new ErrInvalidQuery(
        `Query ${query.name} answers with table ${found.name}, which changes: answer with rows, such as [...table.values()]`,
      );
    }
    return found;
  }

  /** Answers the query of a watch: with the last answer, unless something that was read for it has changed. */
  #watched(
    query: WatchedQuery,
    ask: (state: unknown, ...args: unknown[]) => unknown,
  ): unknown {
    const state = this.#state;
    if (query.known?.reads.isSame(state)) return query.known.answer;
    const reads = new Reads(state);
    const answer = state.noting(reads, () => ask(state.root, ...query.args));
    query.known = { answer, reads };
    return answer;
  }

  /** Answers an encoded query: an array of its name and arguments as plain data; the answer is encoded likewise. */
  naLookup(query: Uint8Array): Uint8Array {
    let decoded: Plain;
    try {
      decoded = decodePlain(query);
    } catch (error) {
      throw new ErrInvalidQuery(
        `Encoded query of ${query.length} bytes is not plain data`,
        {
          cause: error,
        },
      );
    }
    if (!Array.isArray(decoded) || typeof decoded[0] !== "string") {
      throw new ErrInvalidQuery(
        `Encoded query is ${
          describe(decoded)
        }; give an array of its name and arguments`,
      );
    }
    const [name, ...args] = decoded as [string, ...Plain[]];
    return encodePlain(
      this.lookup({ name, args }) ?? null,
      `answer of ${name}`,
    );
  }

  /** Returns the code with which a command was rejected. */
  refusal(result: Result): string | undefined {
    return codeOf(result);
  }

  /** Returns the state hash. */
  getHash(): bigint {
    return stateHash(this.#state, this.#active);
  }

  /** Returns the hash of the state before the migration of the last recovery. */
  getRecoveredHash(): bigint | undefined {
    return this.#recoveredHash;
  }

  get #saved(): SavedState {
    const { name, version } = this.#definition;
    return {
      name,
      version,
      state: this.#state,
      active: this.#active,
    };
  }

  /** Captures the present state, in constant time for its tables. */
  prepareSnapshot(): unknown {
    return { ...this.#saved, state: this.#state.clone() };
  }

  /** Writes a captured state, row by row. */
  async saveSnapshot(
    context: unknown,
    w: WritableStream<Uint8Array>,
    _files: ISnapshotFileCollection,
    stopped: AbortSignal,
  ): Promise<void> {
    await saveState(context as SavedState, w, stopped);
  }

  /**
   * Replaces the state by a saved one, which is migrated if it is of an older
   * version, in one step at the end (Y8).
   *
   * @throws ErrTypedSnapshot if the payload is damaged, or another machine's
   * @throws ErrNewerCode if it is of newer code
   */
  async recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    _files: readonly SnapshotFile[],
    stopped: AbortSignal,
  ): Promise<void> {
    const { state, active, savedHash } = await loadState(
      this.#definition,
      r,
      stopped,
    );
    this.#state = state;
    this.#active = active;
    this.#recoveredHash = savedHash;
  }

  /** Creates a fork: an independent machine, in constant time for the tables. */
  fork(): Forked<IConcurrentStateMachine<TypedQuery, unknown>> {
    return this.#forked();
  }

  #forked(): DefinedMachine {
    const machine = new DefinedMachine(this.#definition);
    machine.#state = this.#state.clone();
    machine.#active = this.#active;
    machine.#touched = new Map();
    return machine;
  }

  /** Does nothing: the machine has no resources to free. */
  close(): void {}
}
