/**
 * Ownership of the origin numbers that proposals outside any session carry.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { LogDB } from "../../log/log.ts";
import { SYNC_ORIGINS_MAX, SYNC_OWNER_ORIGINS_MAX } from "../../limits.ts";

/**
 * Owner of each proposal origin of one cluster: the principal that used it first.
 * Every client sees the origins of the others in the log; a client that proposed
 * under the origin of another would answer that one's callers. Shared by all
 * servers of a log and kept as long as the log exists, whether or not a client is
 * connected. Of each owner, the newest origins are kept.
 */
export class ProposalOrigins {
  readonly #owners = new Map<string, string>();
  /** Origins of each owner, oldest first. */
  readonly #owned = new Map<string, Set<string>>();

  /** Origins of one cluster: the same object for every server of its log. */
  static of(logDB: LogDB, clusterID: bigint): ProposalOrigins {
    let clusters = byLogDB.get(logDB);
    if (clusters === undefined) byLogDB.set(logDB, clusters = new Map());
    let origins = clusters.get(clusterID);
    if (origins === undefined) {
      clusters.set(clusterID, origins = new ProposalOrigins());
    }
    return origins;
  }

  /** Claims an origin for `owner`; false if it is another owner's. */
  claim(origin: string, owner: Uint8Array): boolean {
    const name = String.fromCharCode(...owner);
    const known = this.#owners.get(origin);
    if (known !== undefined) return known === name;
    let owned = this.#owned.get(name);
    if (owned === undefined) this.#owned.set(name, owned = new Set());
    // Origins that one owner makes up do not evict those of others.
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

const byLogDB = new WeakMap<LogDB, Map<bigint, ProposalOrigins>>();
