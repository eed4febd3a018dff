/**
 * Checks of what a caller passes as options, before anything is done with it.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { isU64 } from "./bytes.ts";
import { describe, isWellFormed, wrongType } from "./describe.ts";

/**
 * Check of one option, which `name` calls it in messages: a `TypeError` for a value
 * of another type, a `RangeError` for one that is out of range.
 */
export type Check = (name: string, value: unknown) => void;

/** A check for each option of `T`: one that has none does not compile. */
export type OptionChecks<T> = { readonly [K in keyof T]-?: Check };

/** Checks every option; `what` calls them all in a message. */
export function checkOptions<T extends object>(
  what: string,
  options: T,
  checks: OptionChecks<T>,
): void {
  if (typeof options !== "object" || options === null) {
    throw wrongType(what, options, "an object");
  }
  for (const name in checks) checks[name](name, options[name]);
}

/** Leaves out what is undefined. */
export function optional(check: Check): Check {
  return (name, value) => {
    if (value !== undefined) check(name, value);
  };
}

/** An id from `min` to 2^64-1. */
export function isID(min: bigint): Check {
  return (name, value) => {
    if (typeof value === "number") {
      throw new TypeError(
        `${name} is a number; write ${
          Number.isInteger(value) ? value : min + 1n
        }n`,
      );
    }
    if (typeof value !== "bigint") {
      throw wrongType(name, value, `a bigint, as ${min + 1n}n`);
    }
    if (value < min || !isU64(value)) {
      throw new RangeError(`${name} is ${value}, outside of ${min}…2^64-1`);
    }
  };
}

/** A number from `min` to `max`. */
export function isNumber(min: number, max: number): Check {
  return (name, value) => {
    if (typeof value !== "number") throw wrongType(name, value, "a number");
    if (!(value >= min && value <= max)) {
      throw new RangeError(`${name} is ${value}, outside of ${min}…${max}`);
    }
  };
}

/** A whole number from `min` to `max`. */
export function isCount(
  min = 0,
  max: number = Number.MAX_SAFE_INTEGER,
): Check {
  return (name, value) => {
    if (typeof value !== "number") throw wrongType(name, value, "a number");
    if (!Number.isSafeInteger(value) || value < min || value > max) {
      throw new RangeError(`${name} is ${value}, outside of ${min}…${max}`);
    }
  };
}

/** One of some values. */
export function isOneOf(...values: readonly unknown[]): Check {
  return (name, value) => {
    if (values.includes(value)) return;
    const last = describe(values.at(-1));
    const give = [...values.slice(0, -1).map(describe)].join(", ");
    throw wrongType(name, value, `${give} or ${last}`);
  };
}

/** True or false. */
export function isBoolean(name: string, value: unknown): void {
  if (typeof value !== "boolean") throw wrongType(name, value, "true or false");
}

/** A text of at least one character, well-formed. */
export function isText(name: string, value: unknown): void {
  if (typeof value !== "string" || value === "" || !isWellFormed(value)) {
    throw wrongType(
      name,
      value,
      "a string of at least one character without lone surrogates",
    );
  }
}

/** A function. */
export function isFunction(name: string, value: unknown): void {
  if (typeof value !== "function") throw wrongType(name, value, "a function");
}

/** An object that has these methods; `give` says what it is. */
export function isA(give: string, ...methods: readonly string[]): Check {
  return (name, value) => {
    if (typeof value !== "object" || value === null) {
      throw wrongType(name, value, give);
    }
    for (const method of methods) {
      if (
        typeof (value as Readonly<Record<string, unknown>>)[method] !==
          "function"
      ) {
        throw new TypeError(`${name} has no ${method}(); give ${give}`);
      }
    }
  };
}

/** An `AbortSignal`. */
export const isSignal: Check = isA("an AbortSignal", "addEventListener");

/** An {@linkcode Env}. */
export const isEnv: Check = isA(
  "an Env",
  "now",
  "random64",
  "setTimer",
  "turn",
);

/** A `SnapshotStore`. */
export const isSnapshotStore: Check = isA(
  "a SnapshotStore",
  "create",
  "list",
  "open",
  "remove",
  "close",
);

/** A `BlockStore`, or a function that makes one. */
export function isBlockStore(name: string, value: unknown): void {
  if (typeof value === "function") return;
  isA("a BlockStore", "get", "list", "write", "close")(name, value);
}
