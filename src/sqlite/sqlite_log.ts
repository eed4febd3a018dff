/**
 * The durable log in a SQLite database.
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

/** What a {@linkcode SqliteLogDB} takes besides its path. */
export interface SqliteLogOptions {
  /**
   * What an append that is answered survives: `full` a power cut, `normal` a
   * process that is killed.
   *
   * @default {"full"}
   */
  readonly durability?: "full" | "normal" | undefined;
  /** Gives the random numbers of its epochs. */
  readonly env?: Env | undefined;
  /** Where the hosts that share these logs share their snapshots; whoever made it closes it. */
  readonly snapshots?: SnapshotStore | undefined;
}

/**
 * Lets the event loop have a turn: a commit holds it up, so those who came
 * meanwhile would otherwise be committed one by one.
 */
function turn(): Promise<void> {
  return new Promise((resolve) => void setImmediate(resolve));
}

/** A timer for which a program that has nothing else to do does not go on. */
function setIdleTimer(callback: () => void, delay: number): () => void {
  const timer = setTimeout(callback, delay);
  timer.unref();
  return () => clearTimeout(timer);
}

/**
 * Logs of clusters in a SQLite database, for one process at a time. What is
 * proposed in one turn of the event loop shares a commit.
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
  /** Logs in the database at `path`, which is made, with its directory, when it is first needed. */
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
