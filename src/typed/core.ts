/**
 * Definition of a machine as its state machines use it, and what handlers get and
 * return.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type {
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
import type { Entry } from "../statemachine/types.ts";
import type { Envelope } from "./command.ts";
import { type Plain, plainCopy } from "./plain.ts";
import type { Schema } from "./schema.ts";
import type { Reads } from "./reads.ts";
import type { TouchedRow, TypedState } from "./state.ts";

/** Rejection of a command, as a handler returns it. */
export class Rejected<out C extends string = string> {
  /** Code of the rejection. */
  readonly code: C;

  /** Creates a rejection. */
  constructor(code: C) {
    this.code = code;
  }
}

/** Facts about a command that its handler may use: the same on every replica (Y5). */
export interface CommandContext {
  /** Author of the command; null if it has none. */
  readonly by: string | null;
  /** Time at which it was submitted, by the clock of its device, in milliseconds since 1970. */
  readonly at: number;
  /** Returns the next random number of this command, in [0, 1). */
  random(): number;
  /** Returns the next id of this command: 25 lower-case letters and digits. */
  id(): string;
  /** Creates a rejection: the handler returns it, and everything it has changed is undone. Without `return`, nothing is rejected. */
  reject<const C extends string>(code: C): Rejected<C>;
  /**
   * True if a change of behaviour is active at this command.
   *
   * @throws ErrInvalidDefinition if the definition does not list it in `changes`
   */
  since(change: string): boolean;
}

/** Handler of a command as it is called. */
export type Handler = (
  state: unknown,
  args: unknown,
  context: CommandContext,
) => unknown;

/** Command with its arguments, by name. */
export interface CommandCall {
  /** Name of the command. */
  readonly name: string;
  /** Arguments, as an application gives them. */
  readonly args: unknown;
}

/** Function that gives the inverse of a command, as it is called. */
export type Inverse = (
  before: unknown,
  args: unknown,
  context: CommandContext,
) => CommandCall | undefined;

/** Function that merges the arguments of two neighbouring commands, as it is called. */
export type Merge = (first: unknown, second: unknown) => unknown;

/** Command of a definition, with its types erased. */
export interface AnyCommand {
  readonly args: Schema;
  readonly version: number;
  readonly upcast: Readonly<Record<number, (old: Plain) => Plain>>;
  readonly run: Handler;
  readonly inverse: Inverse | undefined;
  readonly merge: Merge | undefined;
}

/** State of an older version, for `migrate`: plain values, and tables as maps in the order of their keys. */
export type OldState = { [name: string]: Plain | Map<string, Plain> };

/** Query of a typed machine, as its `lookup()` gets it. */
export interface TypedQuery {
  /** Name of the query. */
  readonly name: string;
  /** Arguments after the state. */
  readonly args: readonly unknown[];
}

/** Rows that the pending commands of an optimistic view touched, by the seeds of the commands as {@linkcode seedKey}. */
export type Touched = ReadonlyMap<string, readonly TouchedRow[]>;

/** State machine as the library's own queries get it. */
export interface QueriedMachine {
  /** State as queries get it. */
  readonly root: Readonly<Record<string, unknown>>;
  /** Rows that the commands which this fork has applied have touched. */
  readonly touched: Touched;
  /** Returns the rows that a command would touch in the present state. */
  touchedBy(cmd: Uint8Array): readonly TouchedRow[];
  /** Runs commands on a fork, for those who follow them. */
  rehearse(cmds: readonly Uint8Array[]): void;
}

/** Query of the library itself, which no definition names. */
export class LibraryQuery<A = unknown> implements TypedQuery {
  /** Name, which no query of a definition has in an answer. */
  readonly name = "";
  /** No arguments. */
  readonly args: readonly unknown[] = [];
  /** Answers the query. */
  readonly ask: (machine: QueriedMachine) => A;

  /** Creates a query. */
  constructor(ask: (machine: QueriedMachine) => A) {
    this.ask = ask;
  }
}

/** Query of a watch, which remembers its answer and what it read for it. */
export class WatchedQuery implements TypedQuery {
  /** Name of the query. */
  readonly name: string;
  /** Arguments after the state. */
  readonly args: readonly unknown[];
  /** Last answer; undefined before the first. */
  known: { readonly answer: unknown; readonly reads: Reads } | undefined;

  /** Creates a query that was not asked yet. */
  constructor(name: string, args: readonly unknown[]) {
    this.name = name;
    this.args = args;
  }
}

/** Bit of the first byte of a seed that is set for a command that undoes another. */
export const UNDOING = 0x80;

/** Seed of the command that undoes an edit, and of the edit that a command undoes. */
export function otherSeed(seed: Uint8Array): Uint8Array {
  return seed.map((byte) => ~byte);
}

/** Key of an edit, the same for what undoes it. */
export function editKey(seed: Uint8Array): string {
  return seedKey((seed[0]! & UNDOING) === 0 ? seed : otherSeed(seed));
}

/** Seed of a command as the key of a map. */
export function seedKey(seed: Uint8Array): string {
  return String.fromCharCode(...seed);
}

/**
 * Called before a command that is followed is run: on the optimistic view, on each
 * new state, and when it is committed. What it returns is called afterwards, with
 * true if the command was accepted.
 */
export type Follower = (
  before: unknown,
  args: unknown,
  context: CommandContext,
) => (isAccepted: boolean) => void;

/** State machine of a definition: concurrent, with state hash, forks and rejections. */
export type TypedMachine =
  & IConcurrentStateMachine<TypedQuery, unknown>
  & IActivation
  & IAdmit
  & IExtended
  & IHash
  & IMerge
  & IRecoveredHash
  & IRefusal
  & IStateVersion
  & IFork<IConcurrentStateMachine<TypedQuery, unknown>>
  & IGroup;

/** Definition of a machine, with its types erased. */
export interface MachineCore {
  /** Name of the machine. */
  readonly name: string;
  /** Version of the state's shape. */
  readonly version: number;
  /** Commands by name. */
  readonly commands: ReadonlyMap<string, AnyCommand>;
  /** Queries by name. */
  readonly queries: ReadonlyMap<
    string,
    (state: unknown, ...args: unknown[]) => unknown
  >;
  /** Conversions of states by version. */
  readonly migrations: Readonly<Record<number, (old: OldState) => OldState>>;
  /** Names of the changes of behaviour that the definition lists. */
  readonly changes: ReadonlySet<string>;
  /** Names of the changes that this code knows: those, and the versions of the state. */
  readonly known: ReadonlySet<string>;
  /** True if a command has an inverse. */
  readonly hasInverse: boolean;
  /** True if commands of newer code are rejected. */
  readonly rejectsNewer: boolean;
  /** Functions to be called before commands are run, by the seeds of the commands. */
  readonly followers: Map<string, Set<Follower>>;
  /** Creates the first state. */
  newState(): TypedState;
  /** Reports a handler that threw. */
  thrown(error: unknown, entry: Entry, envelope: Envelope, args: unknown): void;
}

/**
 * Arguments of a stored command in their newest version: plain and frozen, whatever
 * the conversions return.
 *
 * @throws what a conversion throws
 * @throws ErrNotPlain if a conversion returns what is not plain data
 */
export function upcast(
  command: AnyCommand,
  { name, version, args }: Envelope,
): Plain {
  if (version >= command.version) return args;
  let newest = args;
  for (let from = version; from < command.version; from++) {
    newest = command.upcast[from]!(newest);
  }
  return plainCopy(newest, `arguments of ${name}`);
}

/** Arguments of a command to be shown: in their newest version, or as they are stored if this code cannot convert them. */
export function shownArguments(
  command: AnyCommand | undefined,
  envelope: Envelope,
): Plain {
  try {
    return command === undefined ? envelope.args : upcast(command, envelope);
  } catch {
    return envelope.args;
  }
}

/** Beginning of the names of changes that belong to the library. */
export const LIBRARY_CHANGE = "sampan:";

/** Name of the change from which on a version of the state's shape counts: older code stops there. */
function stateChange(version: number): string {
  return `${LIBRARY_CHANGE}state:${version}`;
}

/** Names of the changes that code with a version of the state knows: its own, and that version and those before it. */
export function knownChanges(
  version: number,
  changes: readonly string[],
): ReadonlySet<string> {
  const known = new Set(changes);
  for (let i = 2; i <= version; i++) known.add(stateChange(i));
  return known;
}

/** True for the change to a version of the state that is not the newest one: it is not activated by itself any more. */
export function isSuperseded(
  { version }: MachineCore,
  change: string,
): boolean {
  return change.startsWith(LIBRARY_CHANGE) && change !== stateChange(version);
}

/** Property of a definition with its core; the same in every copy of this library, so that the command line can describe a definition of the application's copy. */
export const CORE: unique symbol = /* @__PURE__ */ Symbol.for("@sampan/core");

/** Core of a definition. */
export function coreOf(definition: object): MachineCore {
  return (definition as { readonly [CORE]: MachineCore })[CORE];
}
