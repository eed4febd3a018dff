/**
 * JSON Schema of a schema of arguments, where its library offers one by Standard
 * JSON Schema, version 1.
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

/**
 * JSON Schema of the input or output of a schema; undefined if its library offers
 * none, or cannot describe this one.
 */
export function jsonSchemaOf(
  schema: Schema,
  side: "input" | "output",
): JSONSchema | undefined {
  const { jsonSchema } = schema["~standard"] as Convertible;
  try {
    return jsonSchema?.[side]?.({ target: "draft-2020-12" }) as JSONSchema;
  } catch {
    // Libraries throw for what JSON Schema cannot say, such as a transformation.
    return undefined;
  }
}
