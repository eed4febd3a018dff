/**
 * Schemas of arguments: any that follow Standard Schema, version 1.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { isPromise } from "../async.ts";
import { isSameBytes } from "../bytes.ts";
import { describe } from "../describe.ts";
import { PLAIN_DEPTH_MAX } from "../limits.ts";
import {
  ErrInvalidArguments,
  ErrNotPlain,
  ErrSchemaAsync,
  ErrSchemaNotIdempotent,
} from "./errors.ts";
import { encodePlain } from "./plain.ts";

/** Part of a value that a schema refuses. */
export interface SchemaIssue {
  /** Reason, for people. */
  readonly message: string;
  /** Path to the part: keys, or objects with a key. */
  readonly path?:
    | readonly (PropertyKey | { readonly key: PropertyKey })[]
    | undefined;
}

/** Result of a validation: the value, or the reasons for which it is refused. */
export type SchemaResult<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: readonly SchemaIssue[] };

/** Schema that follows Standard Schema, version 1, as those of zod, valibot and arktype do. */
export interface Schema<Input = unknown, Output = Input> {
  /** Properties of the standard. */
  readonly "~standard": {
    /** Version of the standard. */
    readonly version: 1;
    /** Name of the library. */
    readonly vendor: string;
    /** Validates a value. */
    readonly validate: (
      value: unknown,
    ) => SchemaResult<Output> | Promise<SchemaResult<Output>>;
    /** Types, which no value has. */
    readonly types?:
      | { readonly input: Input; readonly output: Output }
      | undefined;
  };
}

function pathOf({ path = [] }: SchemaIssue): string {
  return path.map((part) =>
    `.${String(typeof part === "object" ? part.key : part)}`
  ).join("");
}

/** Text of the reasons for which arguments are refused. */
function textOf(command: string, issues: readonly SchemaIssue[]): string {
  return issues.slice(0, 5).map((issue) =>
    `${command}${pathOf(issue)}: ${issue.message}`
  ).join("; ");
}

/** Copy of arrays and plain objects, with everything else as it is: some libraries change what they validate, and plain data are frozen. */
function mutableCopy(value: unknown, depth = 0): unknown {
  if (
    typeof value !== "object" || value === null || depth > PLAIN_DEPTH_MAX
  ) return value;
  const prototype = Object.getPrototypeOf(value);
  if (prototype === Array.prototype) {
    return (value as unknown[]).map((part) => mutableCopy(part, depth + 1));
  }
  if (prototype !== Object.prototype && prototype !== null) return value;
  const copy = Object.create(prototype);
  for (const key of Reflect.ownKeys(value)) {
    const part = (value as Record<PropertyKey, unknown>)[key];
    copy[key] = mutableCopy(part, depth + 1);
  }
  return copy;
}

function validate<O>(
  command: string,
  schema: Schema<unknown, O>,
  value: unknown,
): SchemaResult<O> {
  const result = schema["~standard"].validate(mutableCopy(value));
  if (isPromise(result)) {
    result.catch(() => {});
    throw new ErrSchemaAsync(
      `Schema of command ${command} (${
        schema["~standard"].vendor
      }) validates asynchronously; use a synchronous one`,
    );
  }
  return result;
}

/**
 * Validates arguments and returns the output of their schema.
 *
 * @throws ErrInvalidArguments if the schema refuses them
 * @throws ErrSchemaAsync if the schema is asynchronous
 * @throws ErrSchemaNotIdempotent if the schema does not accept its own output unchanged
 * @throws ErrNotPlain if the output is not plain data
 */
export function parseArguments<O>(
  command: string,
  schema: Schema<unknown, O>,
  value: unknown,
): O {
  const first = validate(command, schema, value);
  if (first.issues !== undefined) {
    throw new ErrInvalidArguments(
      `Arguments of ${textOf(command, first.issues)}`,
    );
  }
  encodePlain(first.value, `arguments of ${command}`);
  const second = validate(command, schema, first.value);
  const reason = second.issues !== undefined
    ? `refuses it: ${textOf(command, second.issues)}`
    : isSamePlain(first.value, second.value)
    ? undefined
    : `changes it again at ${
      firstDifference(first.value, second.value, command)
    }`;
  if (reason !== undefined) {
    throw new ErrSchemaNotIdempotent(
      `Schema of command ${command} does not accept its own output: it ${reason}; the server validates what was submitted, so transform arguments before they are submitted`,
    );
  }
  return first.value;
}

/** True if a value is the same plain data as a plain one, the order of keys included. */
function isSamePlain(plain: unknown, value: unknown): boolean {
  try {
    return isSameBytes(encodePlain(plain), encodePlain(value));
  } catch (error) {
    if (error instanceof ErrNotPlain) return false;
    throw error;
  }
}

/** Path of the first part in which two values differ, as plain data. */
function firstDifference(one: unknown, other: unknown, path: string): string {
  if (isObject(one) && isObject(other)) {
    for (const key of Object.keys({ ...one, ...other })) {
      const [part, otherPart] = [one[key], other[key]];
      if (!isSamePlain(part, otherPart)) {
        return firstDifference(part, otherPart, `${path}.${key}`);
      }
    }
  }
  return `${path} (${describe(one)}, then ${describe(other)})`;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}

/** Reason for which stored arguments are refused; undefined if the schema accepts them unchanged. */
export function refusalOfArguments(
  command: string,
  schema: Schema,
  value: unknown,
): string | undefined {
  const result = validate(command, schema, value);
  if (result.issues !== undefined) return textOf(command, result.issues);
  return isSamePlain(value, result.value)
    ? undefined
    : `${command}: the schema changes ${
      firstDifference(value, result.value, "arguments")
    }, so they were not validated before they were submitted`;
}
