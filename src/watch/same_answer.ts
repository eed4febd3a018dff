/**
 * Deep equality of answers.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { isSameBytes } from "../bytes.ts";

function isPlain(value: object): boolean {
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/** True if two answers without cycles are equal: primitives, bytes, arrays, maps and plain objects. */
export function isSameAnswer(one: unknown, other: unknown): boolean {
  if (Object.is(one, other)) return true;
  if (
    typeof one !== "object" || typeof other !== "object" || one === null ||
    other === null ||
    Object.getPrototypeOf(one) !== Object.getPrototypeOf(other)
  ) return false;
  if (one instanceof Uint8Array) return isSameBytes(one, other as Uint8Array);
  if (Array.isArray(one)) {
    const others = other as unknown[];
    return one.length === others.length &&
      one.every((value, i) => isSameAnswer(value, others[i]));
  }
  if (one instanceof Map) {
    const others = other as Map<unknown, unknown>;
    return one.size === others.size &&
      [...one].every(([key, value]) =>
        others.has(key) && isSameAnswer(value, others.get(key))
      );
  }
  if (!isPlain(one)) return false;
  const keys = Object.keys(one);
  const a = one as Record<string, unknown>;
  const b = other as Record<string, unknown>;
  return keys.length === Object.keys(other).length &&
    keys.every((key) =>
      Object.hasOwn(other, key) && isSameAnswer(a[key], b[key])
    );
}
