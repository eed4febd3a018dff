/**
 * Description of a definition for programs: what is stored under its name.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { hash64, hashKey, hashValue, lanes } from "../kv/hash.ts";
import { coreOf, LIBRARY_CHANGE, type MachineCore } from "./core.ts";
import {
  type JSONSchema,
  jsonSchemaOf,
  type ToJSONSchema,
} from "./json_schema.ts";
import { PlainWriter } from "./plain.ts";

/** Command of a {@linkcode MachineDescription}. */
export interface CommandDescription {
  /** Version of the arguments. */
  readonly version: number;
  /** JSON Schema of the stored arguments; null if the library of the schema offers none. */
  readonly args: JSONSchema | null;
}

/** Description of a definition, which JSON can represent. */
export interface MachineDescription {
  /** Name of the machine. */
  readonly name: string;
  /** Version of the state's shape. */
  readonly version: number;
  /** Parts of the state by name: of a table the names of its indexes, of a plain value null. */
  readonly state: Readonly<Record<string, readonly string[] | null>>;
  /** Commands by name. */
  readonly commands: Readonly<Record<string, CommandDescription>>;
  /** Names of the changes of behaviour. */
  readonly changes: readonly string[];
}

/** Object with its keys in the order of their UTF-16 code units. */
function sorted<T>(entries: Iterable<readonly [string, T]>): Record<string, T> {
  return Object.fromEntries(
    [...entries].sort(([one], [other]) => one < other ? -1 : 1),
  );
}

/** Names and versions of a definition, without the schemas of its commands. */
function literalsOf(core: MachineCore): Omit<MachineDescription, "commands"> {
  const { name, version, changes } = core;
  const state = core.newState();
  return {
    name,
    version,
    state: sorted<readonly string[] | null>([
      ...state.tables.map(({ name, indexNames }) =>
        [name, [...indexNames].sort()] as const
      ),
      ...state.values().map(({ name }) => [name, null] as const),
    ]),
    changes: [...changes].filter((change) => !change.startsWith(LIBRARY_CHANGE))
      .sort(),
  };
}

/**
 * Describes what is stored under the name of a machine; the order of names does not
 * matter to it.
 *
 * @param toJSONSchema converts schemas of a library that has no Standard JSON Schema
 */
export function describeMachine(
  definition: object,
  toJSONSchema?: ToJSONSchema,
): MachineDescription {
  const core = coreOf(definition);
  const commands = [...core.commands].map(([name, { version, args }]) =>
    [name, {
      version,
      args: jsonSchemaOf(args, "output", toJSONSchema) ?? null,
    }] as const
  );
  return { ...literalsOf(core), commands: sorted(commands) };
}

/**
 * Fingerprint of the literals of a definition, as 16 hexadecimal digits: of names
 * and versions. No schema is in it, so that no upgrade of a library changes it (Y9).
 */
export function fingerprintOf(definition: object): string {
  const core = coreOf(definition);
  const versions = [...core.commands].map(([name, { version }]) =>
    [name, version] as const
  );
  const writer = new PlainWriter();
  writer.value(
    { ...literalsOf(core), commands: sorted(versions) },
    "fingerprint",
  );
  hashKey(writer.view, 0, writer.length);
  hashValue(writer.view, 0, writer.length);
  return hash64(lanes[0]!, lanes[1]!).toString(16).padStart(16, "0");
}
