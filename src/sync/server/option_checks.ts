/**
 * Validation of a server's options: an invalid value is reported with the name of
 * the option, the value, and what to write instead.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { describe } from "../../describe.ts";
import {
  COMMAND_BYTES_MAX,
  SYNC_FRAME_BYTES_MAX,
  SYNC_FRAME_BYTES_MIN,
  TIMER_MS_MAX,
} from "../../limits.ts";
import { PROTOCOL_VERSIONS } from "../messages.ts";
import { isAbortSignal } from "./hooks.ts";
import type { CoreOptions, ServerInspector, ServerLimits } from "./options.ts";

/** Check of one option that is set: throws a `TypeError` if the value is invalid. */
export type Check = (name: string, value: unknown) => void;

/** Check of each option; the type requires one for every option. */
export type Checks<T> = { readonly [name in keyof Required<T>]: Check };

/** Error for an option with its value and what to write instead. */
export function wrongOption(
  name: string,
  value: unknown,
  remedy: string,
): TypeError {
  return new TypeError(
    `Option ${name} is ${describe(value)}; ${remedy}`,
  );
}

/** Checks each option that is set. */
export function checkOptions<T>(
  options: T,
  checks: Checks<T>,
  prefix = "",
): void {
  if (typeof options !== "object" || options === null) {
    throw new TypeError(
      `Options are ${
        describe(options)
      }; write an object such as { port: 8000 }`,
    );
  }
  for (const name of Object.keys(checks) as (keyof T & string)[]) {
    const value = options[name];
    if (value !== undefined) checks[name](prefix + name, value);
  }
}

/** Copy of the options that are set: later changes by the caller have no effect. */
export function copyOptions<T>(options: T, checks: Checks<T>): T {
  const copy: Partial<T> = {};
  for (const name of Object.keys(checks) as (keyof T & string)[]) {
    const value = options[name];
    if (value !== undefined) copy[name] = value;
  }
  return copy as T;
}

/**
 * Checks that every name is an option: a misspelled `authenticate` would leave the
 * server unprotected.
 *
 * @throws TypeError if a name is not an option
 */
export function checkNames<T>(
  options: T,
  checks: Checks<T>,
  prefix = "",
): void {
  for (const [name, value] of Object.entries(options as object)) {
    if (value === undefined || Object.hasOwn(checks, name)) continue;
    throw new TypeError(
      `Option ${prefix}${name} is not known; write one of ${
        Object.keys(checks).join(", ")
      }`,
    );
  }
}

/** Checks that a value is a function. */
export function isFunction(name: string, value: unknown): void {
  if (typeof value === "function") return;
  throw wrongOption(name, value, "write a function");
}

/** Checks that a value is a text. */
function isName(name: string, value: unknown): void {
  if (typeof value !== "string") {
    throw wrongOption(name, value, "write a text");
  }
}

/** Checks that a value is true or false. */
export function isBoolean(name: string, value: unknown): void {
  if (typeof value === "boolean") return;
  throw wrongOption(name, value, "write true or false");
}

/** Checks that a value is a signal. */
export function isSignal(name: string, value: unknown): void {
  if (isAbortSignal(value)) return;
  throw wrongOption(
    name,
    value,
    "write an AbortSignal, such as the signal of an AbortController",
  );
}

/** Check that a value is a whole number from `min` to `max`. */
export function isCount(
  min: number,
  max: number = Number.MAX_SAFE_INTEGER,
): Check {
  return (name, value) => {
    if (
      typeof value === "number" && Number.isSafeInteger(value) &&
      value >= min && value <= max
    ) return;
    throw wrongOption(
      name,
      value,
      `write a whole number from ${min} to ${max}`,
    );
  };
}

/** Check of a limit that may be `Infinity` for no limit. */
const isCountOrInfinity: Check = (name, value) => {
  if (value !== Infinity) isCount(1)(name, value);
};

// A JavaScript timer that is longer fires at once.
const isMs = isCount(1, TIMER_MS_MAX);

/** Checks of {@linkcode ServerLimits}. */
export const LIMITS: Checks<ServerLimits> = {
  connections: isCount(1),
  principalConnections: isCountOrInfinity,
  addressConnections: isCountOrInfinity,
  channels: isCount(1),
  streams: isCount(1),
  frameBytes: isCount(SYNC_FRAME_BYTES_MIN, SYNC_FRAME_BYTES_MAX),
  commandBytes: isCount(1, COMMAND_BYTES_MAX),
  commandsPerSecond: isCount(1),
  messagesPerSecond: isCount(1),
  creditBytes: isCount(1),
  transfers: isCount(1),
  principalTransfers: isCountOrInfinity,
  addressTransfers: isCountOrInfinity,
  connectionTransfers: isCount(1),
  uploadBytes: isCount(1),
  farEntries: isCount(0),
  heartbeatMs: isMs,
  helloMs: isMs,
  hookMs: isMs,
  slowMs: isMs,
  shutdownMs: isMs,
};

const HEALTH: Checks<NonNullable<CoreOptions["health"]>> = {
  fail: (name, value) => {
    if (value === "any" || value === "all") return;
    throw wrongOption(name, value, 'write "any" or "all"');
  },
};

const INSPECTOR: Checks<ServerInspector> = {
  authorize: isFunction,
  name: isName,
  code: isFunction,
};

/** Checks of {@linkcode CoreOptions}. */
export const CORE_CHECKS: Checks<CoreOptions> = {
  limits: (name, value) => {
    if (typeof value !== "object" || value === null) {
      throw wrongOption(name, value, "write an object of limits");
    }
    const limits = value as ServerLimits;
    checkOptions(limits, LIMITS, `${name}.`);
    checkNames(limits, LIMITS, `${name}.`);
  },
  authenticate: isFunction,
  authorize: isFunction,
  validate: isFunction,
  rehearse: isBoolean,
  decidesAlone: isBoolean,
  health: (name, value) => {
    if (typeof value !== "object" || value === null) {
      throw wrongOption(
        name,
        value,
        'write { fail: "any" } or { fail: "all" }',
      );
    }
    checkOptions<NonNullable<CoreOptions["health"]>>(value, HEALTH, `${name}.`);
    checkNames(value, HEALTH, `${name}.`);
  },
  inspector: (name, value) => {
    const { authorize, name: called, code } = (value ?? {}) as Partial<
      ServerInspector
    >;
    // Without it, anyone could use the inspector.
    if (authorize === undefined) {
      throw wrongOption(name, value, "write { authorize: (request) => … }");
    }
    checkOptions<ServerInspector>(
      { authorize, name: called, code },
      INSPECTOR,
      `${name}.`,
    );
    checkNames(value as ServerInspector, INSPECTOR, `${name}.`);
  },
  log: isFunction,
  versions: (name, value) => {
    const { first, last } = PROTOCOL_VERSIONS;
    const remedy =
      `write { first, last }, two whole numbers with first at most last; this library speaks ${first} to ${last}`;
    if (typeof value !== "object" || value === null) {
      throw wrongOption(name, value, remedy);
    }
    const versions = value as { first?: unknown; last?: unknown };
    const isVersion = (version: unknown): version is number =>
      Number.isSafeInteger(version) && (version as number) >= 1;
    if (
      !isVersion(versions.first) || !isVersion(versions.last) ||
      versions.first > versions.last
    ) {
      throw new TypeError(
        `Option ${name} is { first: ${describe(versions.first)}, last: ${
          describe(versions.last)
        } }; ${remedy}`,
      );
    }
  },
};
