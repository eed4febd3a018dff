/**
 * Whose the proposals outside of any session are.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { LogDB } from "../../log/log.ts";
import { SYNC_ORIGINS_MAX, SYNC_OWNER_ORIGINS_MAX } from "../../limits.ts";

/**
 * Who came first with which number. Everybody sees the numbers of the others in
 * the log; with a number that is not theirs they would answer what somebody else
 * has proposed. It is remembered for as long as the log is there, by all its servers,
 * whether or not anybody is connected; of what one owner comes with, the newest.
 */
export class Origins {
  readonly #owners = new Map<string, string>();
  /** The numbers of each owner, oldest first. */
  readonly #owned = new Map<string, Set<string>>();

  /** Those of one cluster: whoever serves the log, they are the same. */
  static of(logDB: LogDB, clusterID: bigint): Origins {
    let clusters = known.get(logDB);
    if (clusters === undefined) known.set(logDB, clusters = new Map());
    let origins = clusters.get(clusterID);
    if (origins === undefined) clusters.set(clusterID, origins = new Origins());
    return origins;
  }

  /** Whether proposals of that origin are `owner`'s. */
  owns(origin: string, owner: Uint8Array): boolean {
    const name = String.fromCharCode(...owner);
    const known = this.#owners.get(origin);
    if (known !== undefined) return known === name;
    let owned = this.#owned.get(name);
    if (owned === undefined) this.#owned.set(name, owned = new Set());
    // What one owner makes up does not push out what is others'.
    const [oldest] = owned.size >= SYNC_OWNER_ORIGINS_MAX
      ? owned
      : this.#owners.size >= SYNC_ORIGINS_MAX
      ? this.#owners.keys()
      : [];
    if (oldest !== undefined) this.#forget(oldest);
    this.#owners.set(origin, name);
    owned.add(origin);
    return true;
  }

  #forget(origin: string): void {
    const name = this.#owners.get(origin)!;
    const owned = this.#owned.get(name)!;
    this.#owners.delete(origin);
    owned.delete(origin);
    if (owned.size === 0) this.#owned.delete(name);
  }
}

const known = new WeakMap<LogDB, Map<bigint, Origins>>();
