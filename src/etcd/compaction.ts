/**
 * Compaction of the history in etcd, up to what every cluster still needs.
 *
 * Any process may do it at any time: what it removes no log has since its start was
 * moved, and a second compaction at the same revision does nothing.
 *
 * This module needs Deno.
 *
 * @module
 */

import type { Env } from "../env.ts";
import { ETCD_COMPACT_MS } from "../limits.ts";
import type { EtcdClient } from "./client.ts";
import { CallError } from "./connection.ts";
import type { Keys } from "./keys.ts";
import { encodeCompact, Method } from "./messages.ts";
import { decodeMeta } from "./values.ts";

/** Compacts the history some time after a log has moved its start. */
export class Compaction {
  readonly #client: EtcdClient;
  readonly #keys: Keys;
  readonly #env: Env;
  #cancel: (() => void) | undefined;
  #isClosed = false;
  /** Revision of the last compaction of this process. */
  #last = 0;

  /** Creates the compaction of all logs below a prefix. */
  constructor(client: EtcdClient, keys: Keys, env: Env) {
    this.#client = client;
    this.#keys = keys;
    this.#env = env;
  }

  /** Notes that a log has moved its start. */
  request(): void {
    if (this.#cancel !== undefined || this.#isClosed) return;
    // Spread over the processes, of which each does it.
    const delay = ETCD_COMPACT_MS *
      (0.5 + Number(this.#env.random64() & 0xffn) / 256);
    this.#cancel = this.#env.setTimer(() => {
      this.#cancel = undefined;
      this.run().catch(() => {
        // Repeated after the next move, of this or another process.
      });
    }, delay);
  }

  /** Compacts the history that no cluster needs; resolves to the revision, 0 if all is needed. */
  async run(): Promise<number> {
    const revision = await this.#unneeded();
    if (revision <= this.#last) return this.#last;
    try {
      await this.#client.request(Method.Compact, encodeCompact(revision));
    } catch (error) {
      const { cause } = error as Error;
      // Another process was first, or went further.
      if (!(cause instanceof CallError && cause.isCompacted)) throw error;
    }
    this.#last = revision;
    return revision;
  }

  /** Revision up to which no cluster needs the history. */
  async #unneeded(): Promise<number> {
    // Logs and metadata as they are at the same revision.
    const logs = await this.#client.list(this.#keys.range("log"), {
      keysOnly: true,
    });
    const metas = await this.#client.list(this.#keys.range("meta"), {
      revision: logs.revision,
    });
    const starts = new Map(metas.kvs.map(({ key, value }) => {
      const clusterID = this.#keys.clusterOf(key);
      return [clusterID, decodeMeta(value, clusterID)] as const;
    }));
    let unneeded = logs.revision;
    for (const { key, version, createRevision } of logs.kvs) {
      const start = starts.get(this.#keys.clusterOf(key));
      // Of a log that starts at its end, only later puts are needed.
      if (start?.version === version) continue;
      unneeded = Math.min(unneeded, start?.revision || createRevision - 1);
    }
    return unneeded;
  }

  /** Ends the timer. */
  close(): void {
    this.#isClosed = true;
    this.#cancel?.();
    this.#cancel = undefined;
  }
}
