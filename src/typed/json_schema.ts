/**
 * JSON Schema of a schema of arguments, where its library offers one by Standard
 * JSON Schema, version 1, or a function of its own.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Schema } from "./schema.ts";

/** JSON Schema, draft 2020-12. */
export type JSONSchema = boolean | { readonly [keyword: string]: unknown };

/** Function of Standard JSON Schema. */
type Convert = (options: { readonly target: string }) => unknown;

/** Part of a schema that Standard JSON Schema adds. */
interface Convertible {
  readonly jsonSchema?: { readonly input?: Convert; readonly output?: Convert };
}

/** Function that converts schemas of a library to JSON Schema, such as `toJSONSchema` of zod and `toJsonSchema` of @valibot/to-json-schema. */
export type ToJSONSchema = (schema: never) => unknown;

/**
 * JSON Schema of the input or output of a schema: by Standard JSON Schema, or else
 * as a given function converts it. Undefined if neither can describe it.
 */
export function jsonSchemaOf(
  schema: Schema,
  side: "input" | "output",
  toJSONSchema?: ToJSONSchema,
): JSONSchema | undefined {
  const { jsonSchema } = schema["~standard"] as Convertible;
  try {
    return (jsonSchema?.[side]?.({ target: "draft-2020-12" }) ??
      toJSONSchema?.(schema as never)) as JSONSchema | undefined;
  } catch {
    // Libraries throw for what JSON Schema cannot say, such as a transformation.
    return undefined;
  }
}
