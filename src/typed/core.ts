/**
 * Definition of a machine as its state machines use it, and what handlers get and
 * return.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type {
  IConcurrentStateMachine,
  IExtended,
  IFork,
  IHash,
  IRecoveredHash,
  IRefusal,
  IStateVersion,
} from "../statemachine/machines.ts";
import type { Entry } from "../statemachine/types.ts";
import type { Envelope } from "./command.ts";
import type { Plain } from "./plain.ts";
import type { Schema } from "./schema.ts";
import type { TypedState } from "./state.ts";

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
  /** Rejects the command: return what this returns. Everything the handler has changed is undone. */
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

/** Command of a definition, with its types erased. */
export interface AnyCommand {
  readonly args: Schema;
  readonly version: number;
  readonly upcast: Readonly<Record<number, (old: Plain) => Plain>>;
  readonly run: Handler;
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

/** State machine of a definition: concurrent, with state hash, forks and rejections. */
export type TypedMachine =
  & IConcurrentStateMachine<TypedQuery, unknown>
  & IExtended
  & IHash
  & IRecoveredHash
  & IRefusal
  & IStateVersion
  & IFork<IConcurrentStateMachine<TypedQuery, unknown>>;

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
  /** Names of the known changes of behaviour. */
  readonly changes: ReadonlySet<string>;
  /** True if commands of newer code are rejected. */
  readonly rejectsNewer: boolean;
  /** Creates the first state. */
  newState(): TypedState;
  /** Reports a handler that threw. */
  thrown(error: unknown, entry: Entry, envelope: Envelope, args: unknown): void;
}

/** Arguments of a stored command in their newest version. */
export function upcast(
  command: AnyCommand,
  { version, args }: Envelope,
): Plain {
  let newest = args;
  for (let from = version; from < command.version; from++) {
    newest = command.upcast[from]!(newest);
  }
  return newest;
}

const cores = /* @__PURE__ */ new WeakMap<object, MachineCore>();

/** Notes the core of a definition. */
export function setCore(definition: object, core: MachineCore): void {
  cores.set(definition, core);
}

/** Core of a definition. */
export function coreOf(definition: object): MachineCore {
  return cores.get(definition)!;
}
