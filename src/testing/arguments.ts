/**
 * Arbitrary arguments of typed commands, from the JSON Schemas of their schemas,
 * and arbitrary commands with them.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { fc } from "../deps/fast_check.ts";
import { decodeCommand, encodeCommand } from "../typed/command.ts";
import type { AnyCommand, MachineCore } from "../typed/core.ts";
import { ErrInvalidArguments } from "../typed/errors.ts";
import {
  type JSONSchema,
  jsonSchemaOf,
  type ToJSONSchema,
} from "../typed/json_schema.ts";
import type { Plain } from "../typed/plain.ts";
import { parseArguments } from "../typed/schema.ts";
import type { Samples } from "./options.ts";
import { show, showBytes } from "./value.ts";

/** Most values in a row that a schema may refuse before its arbitrary counts as useless. */
const REFUSALS_MAX = 1_000;

/** Short strings, so that commands meet the same rows. */
const STRINGS = ["a", "b", "c", "", "é", "\u{1F600}", "constructor", "10", "9"];

/** Characters that code may treat in a special way. */
const CHARACTERS = [...'aZ09 _-.\u0000\n"\\/é\u0301\u2028中\ufeff\u{1F600}'];

/** Strings of the formats that JSON Schema names. */
const FORMATS: Readonly<Record<string, readonly string[]>> = {
  "uuid": [
    "7f2c3c3e-7b0a-4f0e-9d57-0f4f6a1b2c3d",
    "0b5d0f5e-3c55-4b7e-8a43-5c1e2d3f4a5b",
  ],
  "date-time": ["2024-02-29T12:00:00Z", "2025-01-01T00:00:00.000Z"],
  "date": ["2024-02-29", "2025-01-01"],
  "time": ["12:00:00Z", "00:00:00Z"],
  "email": ["ann@example.org", "bob@example.org"],
  "uri": ["https://example.org/", "https://example.org/a?b#c"],
  "ipv4": ["192.0.2.1", "198.51.100.7"],
  "ipv6": ["2001:db8::1", "2001:db8::2"],
};

type Keywords = { readonly [keyword: string]: unknown };

/** Value of a keyword of a type. */
function ofType<T>(
  schema: Keywords,
  type: "number" | "string",
  keyword: string,
): T | undefined {
  const value = schema[keyword];
  // deno-lint-ignore valid-typeof
  return typeof value === type ? value as T : undefined;
}

/** Arbitrary of the values of a JSON Schema; undefined if it has a keyword that is not understood. */
export function arbitraryOf(
  schema: JSONSchema,
  root: JSONSchema = schema,
): fc.Arbitrary<unknown> | undefined {
  if (schema === true) return fc.constantFrom<unknown>(null, 1, "a", [], {});
  if (schema === false) return undefined;
  if ("const" in schema) return fc.constant(schema.const);
  if (Array.isArray(schema.enum)) return fc.constantFrom(...schema.enum);
  const reference = ofType<string>(schema, "string", "$ref");
  if (reference !== undefined) {
    const target = resolve(root, reference);
    return target === undefined || target === schema
      ? undefined
      : arbitraryOf(target, root);
  }
  const choices = schema.anyOf ?? schema.oneOf;
  if (Array.isArray(choices)) return oneOf(choices, root);
  const { type } = schema;
  if (Array.isArray(type)) {
    return oneOf(type.map((type) => ({ ...schema, type })), root);
  }
  switch (type) {
    case "null":
      return fc.constant(null);
    case "boolean":
      return fc.boolean();
    case "integer":
    case "number":
      return numbers(schema, type === "integer");
    case "string":
      return strings(schema);
    case "array":
      return arrays(schema, root);
    case "object":
      return objects(schema, root);
    default:
      return Object.keys(schema).every((key) => key.startsWith("$"))
        ? arbitraryOf(true)
        : undefined;
  }
}

/** Schema that a reference within a document names. */
function resolve(root: JSONSchema, reference: string): JSONSchema | undefined {
  if (!reference.startsWith("#")) return undefined;
  let found: unknown = root;
  for (const part of reference.split("/").slice(1)) {
    const name = part.replaceAll("~1", "/").replaceAll("~0", "~");
    found = (found as Keywords | undefined)?.[name];
  }
  return found as JSONSchema | undefined;
}

function oneOf(
  schemas: readonly JSONSchema[],
  root: JSONSchema,
): fc.Arbitrary<unknown> | undefined {
  const all = schemas.map((one) => arbitraryOf(one, root));
  if (all.some((one) => one === undefined)) return undefined;
  return fc.oneof(...all as fc.Arbitrary<unknown>[]);
}

function numbers(schema: Keywords, isWhole: boolean): fc.Arbitrary<number> {
  const limit = (keyword: string): number | undefined =>
    ofType<number>(schema, "number", keyword);
  const step = isWhole ? 1 : Number.EPSILON;
  const low = limit("minimum") ??
    (limit("exclusiveMinimum") ?? -Number.MAX_SAFE_INTEGER) + step;
  const high = limit("maximum") ??
    (limit("exclusiveMaximum") ?? Number.MAX_SAFE_INTEGER) - step;
  const multiple = limit("multipleOf");
  const clamp = (value: number): number =>
    Math.min(high, Math.max(low, multiple ? value * multiple : value));
  const small = fc.integer({ min: 0, max: 9 }).map(clamp);
  const large = fc.integer().map(clamp);
  return isWhole ? fc.oneof({ arbitrary: small, weight: 4 }, large) : fc.oneof(
    { arbitrary: small, weight: 4 },
    large,
    fc.double({ noNaN: true, noDefaultInfinity: true, min: low, max: high }),
  );
}

function strings(schema: Keywords): fc.Arbitrary<string> {
  const format = FORMATS[ofType<string>(schema, "string", "format") ?? ""];
  if (format !== undefined) return fc.constantFrom(...format);
  const pattern = ofType<string>(schema, "string", "pattern");
  if (pattern !== undefined) {
    return fc.stringMatching(new RegExp(pattern, "u"));
  }
  const minLength = ofType<number>(schema, "number", "minLength") ?? 0;
  const maxLength = ofType<number>(schema, "number", "maxLength") ??
    Math.max(minLength, 20);
  const few = STRINGS.map((text) =>
    [...text.padEnd(minLength, "a")].slice(0, maxLength).join("")
  );
  return fc.oneof(
    { arbitrary: fc.constantFrom(...few), weight: 5 },
    // All of Unicode takes fast-check seconds to prepare.
    fc.string({ minLength, maxLength, unit: fc.constantFrom(...CHARACTERS) }),
  );
}

function arrays(
  schema: Keywords,
  root: JSONSchema,
): fc.Arbitrary<unknown[]> | undefined {
  const { prefixItems, items } = schema;
  const first = Array.isArray(prefixItems) ? prefixItems : [];
  const parts = first.map((one) => arbitraryOf(one as JSONSchema, root));
  if (parts.some((part) => part === undefined)) return undefined;
  const tuple = fc.tuple(...parts as fc.Arbitrary<unknown>[]);
  if (items === false || items === undefined && first.length > 0) return tuple;
  const rest = arbitraryOf(items as JSONSchema ?? true, root);
  if (rest === undefined) return undefined;
  const min = ofType<number>(schema, "number", "minItems") ?? 0;
  const max = ofType<number>(schema, "number", "maxItems") ?? min + 4;
  const minLength = Math.max(0, min - first.length);
  const maxLength = Math.max(minLength, max - first.length);
  const more = fc.array(rest, { minLength, maxLength });
  return fc.tuple(tuple, more).map(([one, other]) => [...one, ...other]);
}

function objects(
  schema: Keywords,
  root: JSONSchema,
): fc.Arbitrary<object> | undefined {
  const { properties = {}, required = [], additionalProperties } = schema;
  const parts: Record<string, fc.Arbitrary<unknown>> = {};
  for (const [name, of] of Object.entries(properties as Keywords)) {
    const part = arbitraryOf(of as JSONSchema, root);
    if (part !== undefined) parts[name] = part;
    else if ((required as string[]).includes(name)) return undefined;
  }
  const fixed = fc.record(parts, {
    requiredKeys: required as string[],
    noNullPrototype: true,
  });
  if (
    typeof additionalProperties !== "object" || additionalProperties === null
  ) return fixed;
  const values = arbitraryOf(additionalProperties as JSONSchema, root);
  if (values === undefined) return undefined;
  const more = fc.dictionary(fc.constantFrom("a", "b", "10", "9"), values, {
    noNullPrototype: true,
  });
  return fc.tuple(fixed, more).map(([one, other]) => ({ ...other, ...one }));
}

/** Samples of arguments by the names of their commands. */
export type ArgumentSamples = Readonly<
  Record<string, Samples<unknown> | undefined>
>;

function isList<T>(given: Samples<T>): given is readonly T[] {
  return Array.isArray(given);
}

/** Arbitrary of the arguments of a command as they are stored. */
function argumentsOf(
  name: string,
  { args: schema }: AnyCommand,
  given: Samples<unknown> | undefined,
  toJSONSchema: ToJSONSchema | undefined,
): fc.Arbitrary<Plain> {
  if (given !== undefined) {
    const samples = isList(given)
      ? fc.constantFrom(...given)
      : given as unknown as fc.Arbitrary<unknown>;
    return samples.map((value) => parseArguments(name, schema, value) as Plain);
  }
  const found = jsonSchemaOf(schema, "input", toJSONSchema);
  const derived = found === undefined ? undefined : arbitraryOf(found);
  if (derived === undefined) {
    throw new TypeError(
      `Arguments of command ${name} cannot be drawn: its schema (${
        schema["~standard"].vendor
      }) offers no JSON Schema that can be used; give samples as commands.${name}, or the converter of the library as toJSONSchema`,
    );
  }
  let refused = 0;
  const parsed = (value: unknown): { readonly args: Plain } | undefined => {
    try {
      const args = parseArguments(name, schema, value) as Plain;
      refused = 0;
      return { args };
    } catch (error) {
      if (!(error instanceof ErrInvalidArguments)) throw error;
      if (++refused < REFUSALS_MAX) return undefined;
      throw new TypeError(
        `Schema of command ${name} refuses what its JSON Schema allows, such as ${
          show(value)
        } (${error.message}); give samples as commands.${name}`,
      );
    }
  };
  return derived.map(parsed).filter((one) => one !== undefined)
    .map((one) => one!.args);
}

/** Source of the arguments of commands. */
export interface ArgumentSource {
  /** Samples by the names of their commands. */
  readonly commands?: ArgumentSamples | undefined;
  /** Converter for schemas of a library that offers no JSON Schema. */
  readonly toJSONSchema?: ToJSONSchema | undefined;
}

/** Arbitrary of the encoded commands of a definition. */
export function commandsOf(
  core: MachineCore,
  { commands: given = {}, toJSONSchema }: ArgumentSource,
): fc.Arbitrary<Uint8Array> {
  for (const name of Object.keys(given)) {
    if (!core.commands.has(name)) {
      throw new TypeError(
        `Machine ${core.name} has no command ${name}, of which samples were given`,
      );
    }
  }
  const commands = [...core.commands].map(([name, command]) =>
    fc.record({
      name: fc.constant(name),
      version: fc.constant(command.version),
      at: fc.nat({ max: 3 }).map((n) => 1_700_000_000_000 + n * 60_000),
      by: fc.constantFrom(null, "ann", "bob"),
      seed: fc.uint8Array({ minLength: 16, maxLength: 16 }),
      args: argumentsOf(name, command, given[name], toJSONSchema),
    })
  );
  const changes = [...core.changes].map((args) =>
    fc.record({
      name: fc.constant(""),
      version: fc.constant(0),
      at: fc.constant(0),
      by: fc.constant(null),
      seed: fc.constant(new Uint8Array(16)),
      args: fc.constant(args),
    })
  );
  if (commands.length === 0) {
    throw new TypeError(`Machine ${core.name} has no commands to check`);
  }
  return fc.oneof(...commands, ...changes).map(encodeCommand);
}

/** Formats an encoded command for a report. */
export function showCommand(cmd: Uint8Array): string {
  const envelope = decodeCommand(cmd);
  if (envelope === undefined) return showBytes(cmd);
  const { name, version, args, by } = envelope;
  return name === ""
    ? `activate ${show(args)}`
    : `${name}${version === 1 ? "" : ` (version ${version})`} ${show(args)}${
      by === null ? "" : ` by ${by}`
    }`;
}
