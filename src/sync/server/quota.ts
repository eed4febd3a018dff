/**
 * Limit on what one key, such as a principal or a remote address, uses at one time.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Bounded number of units that each key may hold at one time. */
export class Quota {
  readonly #max: number;
  readonly #used = new Map<string, number>();

  /** Creates a quota of `max` units for each key. */
  constructor(max: number) {
    this.#max = max;
  }

  /** True if the key holds a unit. */
  has(key: string): boolean {
    return this.#used.has(key);
  }

  /** Takes a unit; returns its release, which is idempotent, or undefined if the key holds all of its units. The key undefined is not limited. */
  take(key: string | undefined): (() => void) | undefined {
    if (key === undefined) return () => {};
    const used = this.#used.get(key) ?? 0;
    if (used >= this.#max) return undefined;
    this.#used.set(key, used + 1);
    let isReleased = false;
    return () => {
      if (isReleased) return;
      isReleased = true;
      const left = this.#used.get(key)! - 1;
      if (left === 0) this.#used.delete(key);
      else this.#used.set(key, left);
    };
  }
}

/** Network of a remote address: an IPv4 address itself, and the /64 of an IPv6 address, since one client can have all of its addresses. */
export function networkOf(address: string | undefined): string | undefined {
  if (address === undefined) return undefined;
  const mapped = /^::ffff:(\d+(?:\.\d+){3})$/i.exec(address)?.[1];
  if (mapped !== undefined) return mapped;
  // All hosts on one link share the link-local network.
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
