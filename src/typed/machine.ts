/**
 * State machine of a definition.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { isPromise } from "../async.ts";
import { describe } from "../describe.ts";
import type {
  CommandGroup,
  IActivation,
  IAdmit,
  IConcurrentStateMachine,
  IExtended,
  IFork,
  IGroup,
  IHash,
  IMerge,
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
import {
  decodeCommand,
  decodeHead,
  encodeActivation,
  encodeCommand,
  type Envelope,
} from "./command.ts";
import {
  type AnyCommand,
  type CommandContext,
  editKey,
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
import { loadOnce } from "../statemachine/load.ts";
import { ErrInvalidDefinition, ErrInvalidQuery } from "./errors.ts";
import { decodePlain, encodePlain, type Plain } from "./plain.ts";
import { Random } from "./random.ts";
import { Reads } from "./reads.ts";
import { accepted, codeOf, rejected } from "./result.ts";
import { refusalOfArguments } from "./schema.ts";
import type { SavedState } from "./snapshot.ts";
import { stateHash } from "./state_hash.ts";
import type { TouchedRow, TypedState } from "./state.ts";
import { TableCore } from "./table.ts";

/** Loads the format of snapshots. */
const loadSnapshot = /* @__PURE__ */ loadOnce(
  "saves and loads the state of a typed machine",
  () => import("./snapshot.ts"),
);

const EDIT_REFUSED = {
  reason: "sampan:edit-refused",
  result: /* @__PURE__ */ rejected("sampan:edit-refused"),
};

/** Decodes a query: its name, then its arguments. */
function decodeQuery(query: Uint8Array): [string, ...Plain[]] {
  let cause: unknown;
  try {
    const decoded = decodePlain(query);
    if (Array.isArray(decoded) && typeof decoded[0] === "string") {
      return decoded as [string, ...Plain[]];
    }
  } catch (error) {
    cause = error;
  }
  throw new ErrInvalidQuery(
    `Encoded query of ${query.length} bytes is no array of a name and arguments in plain data`,
    { cause },
  );
}

/** True for a promise, whose rejection is ignored then: handlers and queries answer in one step. */
function isDroppedPromise(value: unknown): boolean {
  if (!isPromise(value)) return false;
  Promise.resolve(value).catch(() => {});
  return true;
}

/** True for an answer that does not stand for the state in which a query was asked: a table, an iterator or a promise. */
function isLive(answer: unknown): boolean {
  return answer instanceof TableCore || isDroppedPromise(answer) ||
    typeof (answer as { readonly next?: unknown } | null | undefined)?.next ===
      "function";
}

/** Context of one command. */
class Context implements CommandContext {
  readonly by: string | null;
  readonly at: number;
  readonly #envelope: Envelope;
  readonly #machine: Pick<DefinedMachine, "isActive">;
  #random: Random | undefined;

  constructor(envelope: Envelope, machine: DefinedMachine) {
    this.by = envelope.by;
    this.at = envelope.at;
    this.#envelope = envelope;
    this.#machine = machine;
  }

  random(): number {
    return this.#generator.float();
  }

  id(): string {
    return this.#generator.id();
  }

  get #generator(): Random {
    return this.#random ??= new Random(this.#envelope.seed);
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
    IMerge,
    IRecoveredHash,
    IRefusal,
    IStateVersion,
    IFork<IConcurrentStateMachine<TypedQuery, unknown>>,
    IGroup,
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
  /** Edits that were refused in this fork, by author and seed: what undoes them is refused, too. */
  readonly #refused = new Set<string>();

  /** Creates a machine in the first state of its definition, or in another one. */
  constructor(
    definition: MachineCore,
    state: TypedState = definition.newState(),
  ) {
    this.#definition = definition;
    this.stateVersion = definition.version;
    this.#state = state;
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

  /** Merges two commands of one name, version and author if its definition merges them. */
  merge(first: Uint8Array, second: Uint8Array): Uint8Array | undefined {
    const { commands } = this.#definition;
    const head = decodeHead(second);
    const command = head && commands.get(head.name);
    if (command?.merge === undefined) return undefined;
    const one = decodeCommand(first);
    const two = decodeCommand(second);
    if (
      one === undefined || two === undefined || one.name !== two.name ||
      one.by !== two.by || one.version !== command.version ||
      two.version !== command.version
    ) return undefined;
    const { name, version, at, by, seed } = two;
    try {
      const args = command.merge(one.args, two.args) as Plain | undefined;
      return args === undefined ||
          refusalOfArguments(name, command.args, args) !== undefined
        ? undefined
        : encodeCommand({ name, version, at, by, seed, args });
    } catch {
      // Both edits count on their own, and neither may be lost.
      return undefined;
    }
  }

  /** Groups an edit with what undoes it and does it once more. */
  group(cmd: Uint8Array): CommandGroup | undefined {
    const envelope = this.#definition.hasInverse ? decodeHead(cmd) : undefined;
    if (envelope === undefined || envelope.name === "") return undefined;
    return { key: editKey(envelope.seed), refusal: EDIT_REFUSED };
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
    let ran: ((isAccepted: boolean) => void) | undefined;
    let result: Result;
    let isAccepted = false;
    const edit = this.#editOf(envelope);
    if (edit !== undefined && this.#refused.has(edit)) {
      return EDIT_REFUSED.result;
    }
    try {
      args = upcast(command, envelope);
      if (this.#definition.followers.size > 0) {
        ran = this.#follow(envelope, args);
      }
      const context = new Context(envelope, this);
      state.begin();
      const returned = command.run(state.root, args, context);
      if (isDroppedPromise(returned)) {
        throw new TypeError(
          `Handler of command ${envelope.name} returned a promise; do without async`,
        );
      }
      if (this.#touched !== undefined) this.#noteTouched(envelope);
      if (returned instanceof Rejected) result = rejected(returned.code);
      else {
        result = accepted(returned);
        state.commit();
        isAccepted = true;
      }
    } catch (error) {
      if (this.#touched !== undefined) this.#noteTouched(envelope);
      // Its text differs between engines, and is not part of the result.
      else this.#definition.thrown(error, entry, envelope, args);
      result = rejected("sampan:threw");
    }
    if (!isAccepted) {
      state.rollback();
      if (edit !== undefined && this.#refused.size < TOUCHED_COMMANDS_MAX) {
        this.#refused.add(edit);
      }
    }
    ran?.(isAccepted);
    return result;
  }

  /** Key of an edit and of what undoes it, in a fork; undefined where none can be undone. */
  #editOf({ by, seed }: Envelope): string | undefined {
    return this.#touched !== undefined && this.#definition.hasInverse
      ? `${by}\n${editKey(seed)}`
      : undefined;
  }

  /** Notes in a fork what a command has touched. */
  #noteTouched({ seed }: Envelope): void {
    const all = this.#touched!;
    if (all.size < TOUCHED_COMMANDS_MAX) {
      all.set(seedKey(seed), this.#state.touched);
    }
  }

  #follow(
    envelope: Envelope,
    args: unknown,
  ): ((isAccepted: boolean) => void) | undefined {
    const all = this.#definition.followers.get(seedKey(envelope.seed));
    if (all === undefined) return undefined;
    const { view } = this.#state;
    const ran = [...all].map((follower) =>
      follower(view, args, new Context(envelope, this))
    );
    return (isAccepted) => {
      for (const note of ran) note(isAccepted);
    };
  }

  /** State as queries get it. */
  get root(): Readonly<Record<string, unknown>> {
    return this.#state.view;
  }

  /** Rows that the commands which this fork has applied have touched; none of a machine that is no fork. */
  get touched(): Touched {
    return this.#touched ?? new Map();
  }

  /** Returns the rows that a command would touch in the present state. */
  touchedBy(cmd: Uint8Array): readonly TouchedRow[] {
    const envelope = decodeCommand(cmd);
    const command = envelope && this.#definition.commands.get(envelope.name);
    if (command === undefined || envelope!.version > command.version) return [];
    const state = this.#state.clone();
    return state.touchedBy(() => {
      const args = upcast(command, envelope!);
      const context = new Context(envelope!, this);
      isDroppedPromise(command.run(state.root, args, context));
    });
  }

  /** Runs commands on a fork, for those who follow them. */
  rehearse(cmds: readonly Uint8Array[]): void {
    const fork = this.fork();
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
   * @throws ErrInvalidQuery if the definition has no query of that name, or it answers with a table, an iterator or a promise
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
      : answer(this.#state.view, ...query.args);
    if (!isLive(found)) return found;
    throw new ErrInvalidQuery(
      `Query ${query.name} answers with a table, an iterator or a promise; answer with values, such as [...table.values()]`,
    );
  }

  /** Answers the query of a watch: with the last answer, unless something that was read for it has changed. */
  #watched(
    query: WatchedQuery,
    ask: (state: unknown, ...args: unknown[]) => unknown,
  ): unknown {
    const state = this.#state;
    if (query.known?.reads.isSame(state)) return query.known.answer;
    const reads = new Reads(state);
    const answer = state.noting(reads, () => ask(state.view, ...query.args));
    query.known = { answer, reads };
    return answer;
  }

  /** Answers an encoded query: an array of its name and arguments as plain data; the answer is encoded likewise. */
  naLookup(query: Uint8Array): Uint8Array {
    const [name, ...args] = decodeQuery(query);
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

  /** Captures the present state, in constant time for its tables. */
  prepareSnapshot(): unknown {
    const { name, version } = this.#definition;
    const state = this.#state.clone();
    const saved: SavedState = { name, version, state, active: this.#active };
    return saved;
  }

  /** Writes a captured state, row by row. */
  async saveSnapshot(
    context: unknown,
    w: WritableStream<Uint8Array>,
    _files: ISnapshotFileCollection,
    stopped: AbortSignal,
  ): Promise<void> {
    const { saveState } = await loadSnapshot();
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
    const { loadState } = await loadSnapshot();
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
  fork(): DefinedMachine {
    const machine = new DefinedMachine(this.#definition, this.#state.clone());
    machine.#active = this.#active;
    machine.#touched = new Map();
    return machine;
  }

  /** Does nothing: the machine has no resources to free. */
  close(): void {}
}
