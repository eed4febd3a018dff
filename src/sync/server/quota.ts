/**
 * Limits on what one principal, or one remote address, has at one time.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Places that each key may take at one time. */
export class Quota {
  readonly #max: number;
  readonly #taken = new Map<string, number>();

  /** A quota of `max` places for each key. */
  constructor(max: number) {
    this.#max = max;
  }

  /** True if the key has a place. */
  has(key: string): boolean {
    return this.#taken.has(key);
  }

  /** Takes a place; returns what gives it back, idempotent, or undefined if the key has all of its places. A key that is undefined is not limited. */
  take(key: string | undefined): (() => void) | undefined {
    if (key === undefined) return () => {};
    const taken = this.#taken.get(key) ?? 0;
    if (taken >= this.#max) return undefined;
    this.#taken.set(key, taken + 1);
    let isOver = false;
    return () => {
      if (isOver) return;
      isOver = true;
      const left = this.#taken.get(key)! - 1;
      if (left === 0) this.#taken.delete(key);
      else this.#taken.set(key, left);
    };
  }
}

/** The network that a remote address counts as: an IPv4 address itself, and the /64 of an IPv6 address, of which one client has every address. */
export function networkOf(address: string | undefined): string | undefined {
  if (address === undefined) return undefined;
  const mapped = /^::ffff:(\d+(?:\.\d+){3})$/i.exec(address)?.[1];
  if (mapped !== undefined) return mapped;
  // Everyone on one link has the same link-local network.
  if (!address.includes(":") || /^fe80:/i.test(address)) return address;
  const [head = "", tail] = address.split("::");
  const groups = head === "" ? [] : head.split(":");
  const last = tail === undefined || tail === "" ? [] : tail.split(":");
  while (tail !== undefined && groups.length + last.length < 8) {
    groups.push("0");
  }
  return [...groups, ...last].slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16)).join(":");
}
