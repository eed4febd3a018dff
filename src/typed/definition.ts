/**
 * Definition of a typed machine: its state, commands, queries and versions.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { notify } from "../async.ts";
import { describe, messageOf } from "../describe.ts";
import {
  checkOptions,
  isCount,
  isFunction,
  isObject,
  isOneOf,
  isText,
  optional,
  type OptionChecks,
} from "../options.ts";
import type { MaybePromise, Result } from "../statemachine/types.ts";
import { admitCommand } from "./admit.ts";
import { decodeCommand } from "./command.ts";
import {
  type AnyCommand,
  type CommandContext,
  CORE,
  coreOf,
  knownChanges,
  LIBRARY_CHANGE,
  LibraryQuery,
  type MachineCore,
  type OldState,
  shownArguments,
  type TypedMachine,
  type TypedQuery,
  upcast,
} from "./core.ts";
import { ErrInvalidDefinition } from "./errors.ts";
import { codeOf, valueOf } from "./result.ts";
import { DefinedMachine } from "./machine.ts";
import { refusalOfArguments, type Schema } from "./schema.ts";
import { TypedState } from "./state.ts";
import { TableCore } from "./table.ts";

/** Versions of a command. */
export interface CommandVersions {
  /** Version of the arguments, from 1. @default 1 */
  readonly version?: number;
  /** Conversions of stored arguments by version: each from that version to the next. */
  readonly upcast?: Readonly<Record<number, (old: never) => unknown>>;
}

/** Definition of a machine, for {@linkcode defineMachine}. */
export interface MachineOptions<
  S = unknown,
  I = unknown,
  A = never,
  R = unknown,
  Q = unknown,
> {
  /** Name of the machine, which its snapshots and commands carry. */
  readonly name: string;
  /** Version of the state's shape, from 1. */
  readonly version: number;
  /** Creates the first state: tables, which may have rows, and plain values that a handler may assign. */
  readonly state: () => S;
  /** Commands by name. */
  readonly commands:
    & {
      readonly [K in keyof A]: CommandVersions & {
        readonly args: Schema<unknown, A[K]>;
        readonly run: (
          state: S,
          args: A[K],
          context: CommandContext,
        ) => unknown;
        /**
         * Returns the command that undoes this one, from the state before it; undefined
         * if there is nothing to undo. It is decided on its own when it arrives, and so
         * it may be rejected. Called whenever the command is run while it can be undone:
         * the last call, before it is committed, counts. It changes nothing: `before` is
         * read-only.
         */
        readonly inverse?: (
          before: S,
          args: A[K],
          context: CommandContext,
        ) => CallOf<NoInfer<I>> | undefined;
        /**
         * Returns the arguments of one command in the place of two of the same author,
         * submitted one directly after the other and never sent; undefined to leave
         * both. On every state it must have the effect of both. It has time and seed of
         * the second, and its result is that of both. Arguments that the schema refuses,
         * and an error, leave both. Not for a command with `inverse`.
         */
        readonly merge?: (
          first: A[K],
          second: A[K],
        ) => NoInfer<A[K]> | undefined;
      };
    }
    & {
      readonly [K in keyof I]: {
        readonly args: {
          readonly "~standard": {
            readonly types?: { readonly input: I[K] } | undefined;
          };
        };
      };
    }
    & {
      readonly [K in keyof R]: {
        readonly run: (
          state: S,
          args: K extends keyof A ? A[K] : never,
          context: CommandContext,
        ) => R[K];
      };
    };
  /** Queries by name: pure functions of the state, which is read-only, and plain arguments. */
  readonly queries: Q;
  /** Conversions of states in snapshots by version: each from that version to the next. */
  readonly migrate?: Readonly<Record<number, (old: OldState) => OldState>>;
  /** Names of the changes of behaviour that this code knows. */
  readonly changes?: readonly string[];
  /**
   * Decision about a command of a newer version than this code: `"stop"` ends the
   * replica with `ErrNewerCode` until the newer code is loaded; `"reject"` rejects
   * it with the code `sampan:newer`, on every replica that runs such code.
   *
   * @default {"stop"}
   */
  readonly newer?: "stop" | "reject";
  /** Called with each committed command whose handler threw, and with what it threw. Its own errors are ignored. */
  readonly onThrow?: (error: unknown, command: ThrownCommand) => void;
}

/** Command with its arguments, of a machine with inputs `I`. */
export type CallOf<I> = {
  readonly [K in keyof I]: { readonly name: K; readonly args: I[K] };
}[keyof I];

/** Command whose handler threw. */
export interface ThrownCommand {
  /** Log index of the command. */
  readonly index: number;
  /** Name of the command. */
  readonly name: string;
  /** Author of the command. */
  readonly by: string | null;
  /** Arguments, of the newest version. */
  readonly args: unknown;
}

/** Command of a log or an outbox, in plain data. */
export interface DecodedCommand {
  /** Name of the command; empty for the activation of a change. */
  readonly name: string;
  /** Author of the command; null if it has none. */
  readonly by: string | null;
  /** Time at which it was submitted, by the clock of its device, in milliseconds since 1970. */
  readonly at: number;
  /** Arguments, of the newest version that this code knows; as they are stored, if an upcast throws. */
  readonly args: unknown;
  /** Code with which it was rejected; undefined if it was accepted, or no result is given. */
  readonly code: string | undefined;
  /** Value that its handler returned; undefined if it returned none, it was rejected, or no result is given. */
  readonly value: unknown;
}

/** Queries of a machine with state `S`. */
export type Queries<S> = Readonly<
  Record<string, (state: S, ...args: never[]) => unknown>
>;

/** Types of a machine, which no value has. */
export interface MachineTypes<S, I, R, Q> {
  /** State that handlers and queries get. */
  readonly state: S;
  /** Arguments of commands as an application gives them, by name. */
  readonly inputs: I;
  /** Values and rejections that handlers return, by name. */
  readonly returns: R;
  /** Queries by name. */
  readonly queries: Q;
}

const CHECKS: OptionChecks<MachineOptions> = {
  name: isText,
  version: isCount(1),
  state: isFunction,
  commands: isObject,
  queries: isObject,
  migrate: optional(isObject),
  changes: optional(isObject),
  newer: optional(isOneOf("stop", "reject")),
  onThrow: optional(isFunction),
};

/** Defined machine: creates state machines, and describes them to servers and applications. */
export class MachineDefinition<
  S = unknown,
  I = unknown,
  R = unknown,
  Q = unknown,
> {
  /** Name of the machine. */
  readonly name: string;
  /** Version of the state's shape. */
  readonly version: number;
  /** Types of the machine, for inference. */
  declare readonly types: MachineTypes<S, I, R, Q>;

  /** Use {@linkcode defineMachine}. */
  constructor(options: MachineOptions<S, I, never, R, Q>) {
    checkOptions("Definition of a machine", options, CHECKS);
    const { name, version, migrate: migrations = {}, onThrow } = options;
    this.name = name;
    this.version = version;
    for (const change of options.changes ?? []) {
      if (typeof change === "string" && !change.startsWith(LIBRARY_CHANGE)) {
        continue;
      }
      throw new ErrInvalidDefinition(
        `Machine ${name} has the change ${
          describe(change)
        }; give a name that does not begin with "${LIBRARY_CHANGE}"`,
      );
    }
    checkVersion(`Machine ${name}`, version, migrations, "migrate");
    const commands = commandsOf(options.commands as Record<string, never>);
    const core: MachineCore = {
      name,
      version,
      commands,
      hasInverse: [...commands.values()].some(({ inverse }) =>
        inverse !== undefined
      ),
      queries: new Map(
        Object.entries(options.queries as Record<string, never>),
      ),
      migrations,
      changes: new Set(options.changes),
      known: knownChanges(version, options.changes ?? []),
      rejectsNewer: options.newer === "reject",
      followers: new Map(),
      newState: () =>
        new TypedState(options.state() as Record<string, unknown>),
      thrown: (error, { index }, { name, by }, args) => {
        if (onThrow) notify(onThrow, error, { index, name, by, args });
      },
    };
    Object.defineProperty(this, CORE, { value: core });
    // Fails here, not at the start of a cluster.
    core.newState();
  }

  /** Creates a machine for `startConcurrentCluster()`. */
  readonly create = (): TypedMachine => new DefinedMachine(coreOf(this));

  /**
   * Decides about a command that a page has submitted, as the `validate` of
   * `serve()`: undefined if it is a command of this machine whose arguments its
   * schema accepts (Y1); otherwise the reason. The server has asked the machine
   * about version and author before.
   *
   * @throws ErrNewerCode if only newer code knows the command, which waits then (Y6)
   */
  readonly validate = (
    _principal: unknown,
    cmd: Uint8Array,
  ): MaybePromise<string | undefined> => {
    const core = coreOf(this);
    admitCommand(core, cmd, undefined);
    const envelope = decodeCommand(cmd);
    const command = envelope && core.commands.get(envelope.name);
    if (command === undefined) {
      return `Command is not one of machine ${this.name}`;
    }
    const { name, version } = envelope!;
    let args: unknown;
    try {
      args = upcast(command, envelope!);
    } catch (error) {
      return `Arguments of ${name} in version ${version} cannot be converted to version ${command.version}: ${
        messageOf(error)
      }`;
    }
    return refusalOfArguments(name, command.args, args);
  };

  /**
   * Decodes a command of this machine, with its result if there is one, for a view of
   * a log or an outbox; undefined for bytes that are not a command.
   */
  readonly decode = (
    cmd: Uint8Array,
    result?: Result,
  ): DecodedCommand | undefined => {
    const envelope = decodeCommand(cmd);
    if (envelope === undefined) return undefined;
    const { name, by, at } = envelope;
    const args = shownArguments(coreOf(this).commands.get(name), envelope);
    const code = result && codeOf(result);
    const value = result && code === undefined ? valueOf(result) : undefined;
    return { name, by, at, args, code, value };
  };

  /**
   * Reads the whole state through a query function, such as `replica.staleRead`, for
   * a view of it: its tables as maps of rows by key, and its plain values. The maps
   * are copies, the rows in them are not: they must not be changed.
   */
  readonly stateOf = <T>(lookup: (query: TypedQuery) => T): T =>
    lookup(
      new LibraryQuery(({ root }) =>
        Object.fromEntries(
          Object.entries(root).map(([name, part]) => [
            name,
            part instanceof TableCore ? new Map(part) : part,
          ]),
        )
      ),
    );
}

function commandsOf(
  definitions: Readonly<Record<string, Partial<AnyCommand>>>,
): Map<string, AnyCommand> {
  const commands = new Map<string, AnyCommand>();
  for (const [name, definition] of Object.entries(definitions)) {
    const { args, run, inverse, merge, version = 1, upcast = {} } =
      definition ?? {};
    if (
      name === "" || typeof run !== "function" ||
      args?.["~standard"]?.version !== 1
    ) {
      throw new ErrInvalidDefinition(
        `Command ${
          describe(name)
        } needs \`args\`, a schema that follows Standard Schema 1, and a function \`run\``,
      );
    }
    for (const [option, value] of Object.entries({ inverse, merge })) {
      if (value === undefined || typeof value === "function") continue;
      throw new ErrInvalidDefinition(
        `Command ${describe(name)} has an option \`${option}\` that is ${
          describe(value)
        }; give a function`,
      );
    }
    checkVersion(`Command ${name}`, version, upcast, "upcast");
    if (merge !== undefined && inverse !== undefined) {
      throw new ErrInvalidDefinition(
        `Command ${
          describe(name)
        } has \`merge\` and \`inverse\`; give one of them`,
      );
    }
    commands.set(name, { args, run, inverse, merge, version, upcast });
  }
  return commands;
}

/** Checks that a version is one, and that there is a conversion from each before it, and no other. */
function checkVersion(
  what: string,
  version: number,
  conversions: Readonly<Record<number, unknown>>,
  name: string,
): void {
  const given = Object.keys(conversions);
  const isComplete = given.length === version - 1 &&
    given.every((from, i) =>
      from === `${i + 1}` && typeof conversions[i + 1] === "function"
    );
  if (!isComplete) {
    throw new ErrInvalidDefinition(
      `${what} has version ${describe(version)}, and \`${name}\` from version ${
        given.join() || "none"
      }; versions are 1, 2 and so on, with a conversion from each but the newest`,
    );
  }
}

/**
 * Defines a machine by its state, commands and queries. From it come ordinary
 * state machines of the contract, for replicas and for servers, and the typed
 * access of an application.
 *
 * A handler is deterministic: it uses its state, arguments and context only. It
 * returns the result of the command, plain data or nothing, or a rejection. What a
 * rejected command, or one whose handler throws, has changed is undone, and the
 * result says so: no command can stop a replica (Y3).
 *
 * @throws ErrInvalidDefinition if the definition contradicts itself
 */
export function defineMachine<
  S extends object,
  I,
  A,
  R,
  Q extends Queries<S>,
>(
  options: MachineOptions<S, I, A, R, Q>,
): MachineDefinition<S, I, R, Q> {
  return new MachineDefinition(
    options as unknown as MachineOptions<S, I, never, R, Q>,
  );
}
