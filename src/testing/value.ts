/**
 * Values of undeclared types, such as queries and answers: comparison, copies
 * and display.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { fc } from "../deps/fast_check.ts";

/** True if two byte strings are equal. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

/**
 * Structural equality: of bytes, arrays, maps, sets, dates, and objects of the
 * same prototype by their own enumerable keys. Numbers go by `Object.is`, so
 * that `NaN` is itself and `-0` is not `0`. Maps and sets go by content, in any
 * order; keys and members that are objects are found by structure too.
 */
export function structuralEquals(a: unknown, b: unknown): boolean {
  return equalWithin(a, b, new Map());
}

/**
 * Compares recursively; `seen` contains the pairs being compared further up: a
 * cycle is equal if everything else is.
 */
function equalWithin(
  a: unknown,
  b: unknown,
  seen: Map<object, unknown>,
): boolean {
  if (Object.is(a, b)) return true;
  if (!isObject(a) || !isObject(b)) return false;
  if (Object.getPrototypeOf(a) !== Object.getPrototypeOf(b)) return false;
  if (seen.get(a) === b) return true;
  seen.set(a, b);
  if (ArrayBuffer.isView(a)) {
    return equalBytes(bytesOf(a), bytesOf(b as ArrayBufferView));
  }
  if (a instanceof ArrayBuffer) {
    return equalBytes(new Uint8Array(a), new Uint8Array(b as ArrayBuffer));
  }
  if (a instanceof Date) return Object.is(+a, +(b as Date));
  if (a instanceof Map) {
    return equalUnordered([...a], [...(b as Map<unknown, unknown>)], seen);
  }
  if (a instanceof Set) {
    return equalUnordered([...a], [...(b as Set<unknown>)], seen);
  }
  if (a instanceof Error && a.message !== (b as Error).message) return false;
  return equalKeys(a, b, seen);
}

function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

function equalKeys(
  a: object,
  b: object,
  seen: Map<object, unknown>,
): boolean {
  if (Array.isArray(a) && a.length !== (b as unknown[]).length) return false;
  const keys = Object.keys(a);
  if (keys.length !== Object.keys(b).length) return false;
  return keys.every((key) =>
    Object.hasOwn(b, key) &&
    equalWithin(
      (a as Record<string, unknown>)[key],
      (b as Record<string, unknown>)[key],
      seen,
    )
  );
}

/** True if the members of `a` and `b` can be paired; those in the same order cost one comparison each. */
function equalUnordered(
  a: readonly unknown[],
  b: unknown[],
  seen: Map<object, unknown>,
): boolean {
  if (a.length !== b.length) return false;
  const left = [...b];
  return a.every((item) => {
    const at = left.findIndex((other) =>
      equalWithin(item, other, new Map(seen))
    );
    if (at < 0) return false;
    left.splice(at, 1);
    return true;
  });
}

function isPlain(value: object): boolean {
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/**
 * Copies a value so that it shares no bytes with the original: byte arrays,
 * arrays, maps, sets and plain objects are copied, everything else (numbers,
 * class instances, functions) is reused.
 */
export function copyOf<T>(value: T): T {
  return copyWithin(value, new Map()) as T;
}

function copyWithin(value: unknown, seen: Map<object, unknown>): unknown {
  if (!isObject(value)) return value;
  if (seen.has(value)) return seen.get(value);
  const keep = <C>(copy: C): C => (seen.set(value, copy), copy);
  if (value instanceof Uint8Array) return keep(Uint8Array.from(value));
  if (Array.isArray(value)) {
    const copy = keep([] as unknown[]);
    for (const item of value) copy.push(copyWithin(item, seen));
    return copy;
  }
  if (value instanceof Map) {
    const copy = keep(new Map<unknown, unknown>());
    for (const [k, v] of value) {
      copy.set(copyWithin(k, seen), copyWithin(v, seen));
    }
    return copy;
  }
  if (value instanceof Set) {
    const copy = keep(new Set<unknown>());
    for (const item of value) copy.add(copyWithin(item, seen));
    return copy;
  }
  if (!isPlain(value)) return value;
  const copy = keep(
    Object.create(Object.getPrototypeOf(value)) as Record<string, unknown>,
  );
  for (const [k, v] of Object.entries(value)) copy[k] = copyWithin(v, seen);
  return copy;
}

/** Overwrites all bytes that {@linkcode copyOf} would have copied. */
export function overwrite(value: unknown, seen: Set<object> = new Set()): void {
  if (!isObject(value) || seen.has(value)) return;
  seen.add(value);
  if (value instanceof Uint8Array) {
    for (let i = 0; i < value.length; i++) value[i] = ~(value[i] as number);
  } else if (value instanceof Map) {
    for (const pair of value) overwrite(pair, seen);
  } else if (Array.isArray(value) || value instanceof Set) {
    for (const item of value) overwrite(item, seen);
  } else if (isPlain(value)) {
    for (const item of Object.values(value)) overwrite(item, seen);
  }
}

/**
 * Changes a value that {@linkcode copyOf} copies as its owner may: overwrites
 * its bytes, and empties its collections.
 */
export function mutate(value: unknown, seen: Set<object> = new Set()): void {
  if (!isObject(value) || seen.has(value)) return;
  seen.add(value);
  if (value instanceof Uint8Array) return overwrite(value);
  const parts = value instanceof Map
    ? [...value].flat()
    : Array.isArray(value) || value instanceof Set
    ? [...value]
    : isPlain(value)
    ? Object.values(value)
    : [];
  for (const part of parts) mutate(part, seen);
  if (value instanceof Map || value instanceof Set) value.clear();
  else if (Object.isFrozen(value)) return;
  else if (Array.isArray(value)) value.length = 0;
  else if (isPlain(value)) {
    for (const key of Object.keys(value)) Reflect.deleteProperty(value, key);
  }
}

const SHOWN_BYTES_MAX = 64;

/** Formats bytes as hexadecimal and, if all are printable, as text. */
export function showBytes(bytes: Uint8Array): string {
  if (bytes.length === 0) return "(empty)";
  const shown = bytes.subarray(0, SHOWN_BYTES_MAX);
  const hex = Array.from(shown, (byte) => byte.toString(16).padStart(2, "0"))
    .join(" ");
  const rest = bytes.length > shown.length ? ` … ${bytes.length} bytes` : "";
  const text = new TextDecoder().decode(bytes);
  return /^[^\p{C}\uFFFD]+$/u.test(text) && rest === ""
    ? `${hex} ${JSON.stringify(text)}`
    : hex + rest;
}

/** Formats a value in one line of bounded length. */
export function show(value: unknown): string {
  if (value instanceof Uint8Array) return showBytes(value);
  if (value instanceof Error) return `${value.name}: ${value.message}`;
  const text = fc.stringify(value);
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}
