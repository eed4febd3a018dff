/**
 * Durable log in a SQLite database.
 *
 * This module needs Deno or Node.
 *
 * @module
 */

import {
  checkOptions,
  isEnv,
  isOneOf,
  isSnapshotStore,
  optional,
  type OptionChecks,
} from "../options.ts";
import { pathFrom } from "./files.ts";
import { clearTimeout, setImmediate, setTimeout } from "node:timers";
import type { Env } from "../env.ts";
import { BlockLogDB } from "../log/block_log.ts";
import type { SnapshotStore } from "../snapshot/store.ts";
import { SqliteBlockStore } from "./sqlite_block_store.ts";

/** Options of {@linkcode SqliteLogDB}. */
export interface SqliteLogOptions {
  /**
   * Durability of a resolved append: `full` survives a power cut, `normal` the end
   * of the process.
   *
   * @default {"full"}
   */
  readonly durability?: "full" | "normal" | undefined;
  /** Provides random numbers and timers. @default {systemEnv} */
  readonly env?: Env | undefined;
  /** Snapshot store shared by the hosts that share these logs; its creator closes it. */
  readonly snapshots?: SnapshotStore | undefined;
}

/**
 * Gives the event loop a turn. A commit blocks it, so proposals that arrived during
 * the commit would otherwise be committed one by one.
 */
function turn(): Promise<void> {
  return new Promise((resolve) => void setImmediate(resolve));
}

/** Sets a timer that does not keep the process running. */
function setIdleTimer(callback: () => void, delay: number): () => void {
  const timer = setTimeout(callback, delay);
  timer.unref();
  return () => clearTimeout(timer);
}

/**
 * Logs of clusters in a SQLite database, for one process at a time. Proposals made
 * in one turn of the event loop share a commit.
 *
 * ```ts
 * import { SqliteLogDB } from "./mod.ts";
 * import { kv, KVStateMachine, NodeHost } from "../../mod.ts";
 *
 * const directory = await Deno.makeTempDir();
 * {
 *   await using logDB = new SqliteLogDB(`${directory}/log.db`);
 *   await using host = new NodeHost({ logDB });
 *   const replica = await host.startCluster(() => new KVStateMachine(), {
 *     clusterID: 1n,
 *     nodeID: 1n,
 *   });
 *   await replica.propose(kv.put("boat", "sampan")); // survives a power cut
 * }
 * await Deno.remove(directory, { recursive: true });
 * ```
 */
export class SqliteLogDB extends BlockLogDB {
  /** Creates logs in the database at `path`, which is created, with its directory, at its first use. */
  constructor(path: string | URL, options: SqliteLogOptions = {}) {
    const file = pathFrom(path, "Path of the database");
    const checks: OptionChecks<SqliteLogOptions> = {
      durability: optional(isOneOf("full", "normal")),
      env: optional(isEnv),
      snapshots: optional(isSnapshotStore),
    };
    checkOptions("Options of the logs", options, checks);
    const { durability = "full" } = options;
    super(() => new SqliteBlockStore(file, { durability }), {
      ...options,
      gather: turn,
      setTimer: options.env === undefined ? setIdleTimer : undefined,
    });
  }
}
