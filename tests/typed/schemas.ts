/**
 * Schemas of the tests.
 *
 * @module
 */

import type { Schema } from "../../src/typed/mod.ts";

/** Schema that checks the properties of an object by their types, and drops the others. */
export function shape<T extends Record<string, "string" | "number">>(
  types: T,
): Schema<
  { [K in keyof T]: T[K] extends "string" ? string : number },
  { [K in keyof T]: T[K] extends "string" ? string : number }
> {
  return {
    "~standard": {
      version: 1,
      vendor: "tests",
      validate: (value) => {
        const found: Record<string, unknown> = {};
        for (const name of Object.keys(types)) {
          const part = (value as Record<string, unknown> | null)?.[name];
          // deno-lint-ignore valid-typeof
          if (typeof part !== types[name]) {
            return {
              issues: [{ message: `not a ${types[name]}`, path: [name] }],
            };
          }
          found[name] = part;
        }
        return { value: found as never };
      },
    },
  };
}

/** Schema that accepts every value as it is. */
export function anything<T>(): Schema<T, T> {
  return {
    "~standard": {
      version: 1,
      vendor: "tests",
      validate: (value) => ({ value: value as T }),
    },
  };
}
