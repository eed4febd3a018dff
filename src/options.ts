/**
 * Validation of options that a caller passes.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { isU64 } from "./bytes.ts";
import { describe, isWellFormed, wrongType } from "./describe.ts";

/**
 * Check of one option, called `name` in messages. Throws a `TypeError` for a value
 * of another type, and a `RangeError` for one that is out of range.
 */
export type Check = (name: string, value: unknown) => void;

/** One check for each option of `T`; an option without one does not compile. */
export type OptionChecks<T> = { readonly [K in keyof T]-?: Check };

/** Checks every option; `what` names the options object in messages. */
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

/** Makes a check accept `undefined`. */
export function optional(check: Check): Check {
  return (name, value) => {
    if (value !== undefined) check(name, value);
  };
}

/** Requires an id from `min` to 2^64-1. */
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

/** Requires a number from `min` to `max`. */
export function isNumber(min: number, max: number): Check {
  return (name, value) => {
    if (typeof value !== "number") throw wrongType(name, value, "a number");
    if (!(value >= min && value <= max)) {
      throw new RangeError(`${name} is ${value}, outside of ${min}…${max}`);
    }
  };
}

/** Requires an integer from `min` to `max`. */
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

/** Requires one of the given values. */
export function isOneOf(...values: readonly unknown[]): Check {
  return (name, value) => {
    if (values.includes(value)) return;
    const last = describe(values.at(-1));
    const others = values.slice(0, -1).map(describe).join(", ");
    throw wrongType(name, value, `${others} or ${last}`);
  };
}

/** Requires `true` or `false`. */
export function isBoolean(name: string, value: unknown): void {
  if (typeof value !== "boolean") throw wrongType(name, value, "true or false");
}

/** Requires a non-empty string without lone surrogates. */
export function isText(name: string, value: unknown): void {
  if (typeof value !== "string" || value === "" || !isWellFormed(value)) {
    throw wrongType(
      name,
      value,
      "a string of at least one character without lone surrogates",
    );
  }
}

/** Checks that a value is an object. */
export function isObject(name: string, value: unknown): void {
  if (typeof value !== "object" || value === null) {
    throw wrongType(name, value, "an object");
  }
}

/** Requires a function. */
export function isFunction(name: string, value: unknown): void {
  if (typeof value !== "function") throw wrongType(name, value, "a function");
}

/** Requires an object with the given methods; `expected` names it in messages. */
export function isA(expected: string, ...methods: readonly string[]): Check {
  return (name, value) => {
    if (typeof value !== "object" || value === null) {
      throw wrongType(name, value, expected);
    }
    for (const method of methods) {
      if (
        typeof (value as Readonly<Record<string, unknown>>)[method] !==
          "function"
      ) {
        throw new TypeError(`${name} has no ${method}(); give ${expected}`);
      }
    }
  };
}

/** Requires an `AbortSignal`. */
export const isSignal: Check = /* @__PURE__ */ isA(
  "an AbortSignal",
  "addEventListener",
);

/** Requires an {@linkcode Env}. */
export const isEnv: Check = /* @__PURE__ */ isA(
  "an Env",
  "now",
  "random64",
  "setTimer",
  "turn",
);

/** Requires a `SnapshotStore`. */
export const isSnapshotStore: Check = /* @__PURE__ */ isA(
  "a SnapshotStore",
  "create",
  "list",
  "open",
  "remove",
  "close",
);

/** Requires a `BlockStore`, or a function that creates one. */
export function isBlockStore(name: string, value: unknown): void {
  if (typeof value === "function") return;
  isA("a BlockStore", "get", "list", "write", "close")(name, value);
}
