/**
 * Contract suite for typed definitions.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  checkOptions,
  isCount,
  isFunction,
  isNumber,
  isObject,
  isText,
  optional,
  type OptionChecks,
} from "../options.ts";
import {
  coreOf,
  LibraryQuery,
  type MachineCore,
  type TypedQuery,
} from "../typed/core.ts";
import type { MachineDefinition, QueryArguments } from "../typed/mod.ts";
import type { ToJSONSchema } from "../typed/json_schema.ts";
import { encodePlain } from "../typed/plain.ts";
import { TableCore } from "../typed/table.ts";
import { type ArgumentSamples, commandsOf, showCommand } from "./arguments.ts";
import { checkConcurrentStateMachine } from "./contract.ts";
import type { CheckOptions, Samples } from "./options.ts";

/** Options of {@linkcode checkMachine}. */
export interface CheckMachineOptions<I = unknown, Q = unknown>
  extends Pick<CheckOptions, "seed" | "path" | "runs" | "maxCommands"> {
  /**
   * Arguments of commands, as an application gives them: samples, or a fast-check
   * arbitrary, by the name of the command.
   *
   * @default {arbitrary ones, from the JSON Schema that the library of the schema offers}
   */
  readonly commands?: { readonly [K in keyof I]?: Samples<I[K]> };
  /**
   * Converts schemas of a library that offers no JSON Schema by itself, as valibot and
   * zod/mini: `toJsonSchema` of `@valibot/to-json-schema`, `z.toJSONSchema`.
   *
   * @default {none}
   */
  readonly toJSONSchema?: ToJSONSchema;
  /**
   * Lists of arguments of queries, by the name of the query.
   *
   * @default {no arguments, for queries that take none}
   */
  readonly queries?: {
    readonly [K in keyof Q]?: readonly QueryArguments<Q[K]>[];
  };
}

/** Checks of the options of {@linkcode checkMachine}. */
export const MACHINE_CHECKS: OptionChecks<CheckMachineOptions> = {
  commands: optional(isObject),
  toJSONSchema: optional(isFunction),
  queries: optional(isObject),
  seed: optional(isNumber(-Infinity, Infinity)),
  path: optional(isText),
  runs: optional(isCount(1)),
  maxCommands: optional(isCount(0)),
};

/** Query of the whole state, as bytes in which the order of keys counts. */
export const wholeState: TypedQuery = /* @__PURE__ */ new LibraryQuery(
  ({ root }) =>
    encodePlain(
      Object.getOwnPropertyNames(root).map((name) => {
        const part = root[name];
        return [name, part instanceof TableCore ? [...part.entries()] : part];
      }),
      "state",
    ),
);

/** Queries of a definition with the arguments given, or with none. */
export function queriesOf(
  { queries }: MachineCore,
  given: Readonly<Record<string, readonly (readonly unknown[])[] | undefined>>,
): TypedQuery[] {
  return [...queries].flatMap(([name, answer]) =>
    (given[name] ?? (answer.length <= 1 ? [[]] : []))
      .map((args) => ({ name, args }))
  );
}

/**
 * Checks a typed definition against the contract, as
 * {@linkcode checkConcurrentStateMachine} checks a machine: with random histories
 * of its commands, comparing results, answers, hashes and whole states.
 *
 * ```ts ignore
 * await checkMachine(board, { commands: { add: [{ id: "a", text: "rice" }] } });
 * ```
 *
 * @throws ContractViolation naming the rule and the smallest commands that show it
 * @throws TypeError for a command whose arguments were not given and cannot be drawn
 */
export async function checkMachine<S, I, R, Q>(
  definition: MachineDefinition<S, I, R, Q>,
  options: CheckMachineOptions<I, Q> = {},
): Promise<void> {
  checkOptions("Options of checkMachine()", options, MACHINE_CHECKS);
  const { commands, toJSONSchema, queries = {}, ...others } = options;
  const core = coreOf(definition);
  const named = queriesOf(core, queries);
  await checkConcurrentStateMachine({
    ...others,
    create: definition.create,
    commands: commandsOf(core, {
      commands: commands as ArgumentSamples | undefined,
      toJSONSchema,
    }),
    queries: [...named, wholeState],
    naQueries: [
      new Uint8Array(),
      ...named.map(({ name, args }) => encodePlain([name, ...args])),
    ],
    showCommand,
  });
}
