/**
 * The on-disk key-value machine in a SQLite database.
 *
 * This module needs Deno or Node.
 *
 * @module
 */

import {
  checkOptions,
  isCount,
  isOneOf,
  optional,
  type OptionChecks,
} from "../options.ts";
import { pathFrom } from "./files.ts";
import { OnDiskKVStateMachine } from "../kv/on_disk_kv_state_machine.ts";
import { SqliteBlockStore } from "./sqlite_block_store.ts";

/** What a {@linkcode SqliteKVStateMachine} takes besides its path. */
export interface SqliteKVOptions {
  /**
   * What an update that was written survives without a `sync()`: `full` a power
   * cut, `normal` a process that is killed. Over a log that is `full` nothing is
   * lost either way.
   *
   * @default {"normal"}
   */
  readonly durability?: "full" | "normal" | undefined;
  /**
   * How much memory its rows may take, in bytes; those that do not fit are read
   * when they are needed.
   *
   * @default {67108864}
   */
  readonly memoryBudgetBytes?: number | undefined;
}

/**
 * A key-value machine in a SQLite database, for one process at a time. Its
 * commands and queries are made by `kv`, as those of the machines in memory.
 *
 * ```ts
 * import { SqliteKVStateMachine, SqliteLogDB } from "./mod.ts";
 * import { kv, NodeHost } from "../../mod.ts";
 *
 * const directory = await Deno.makeTempDir();
 * {
 *   await using logDB = new SqliteLogDB(`${directory}/log.db`);
 *   await using host = new NodeHost({ logDB });
 *   const replica = await host.startOnDiskCluster(
 *     (clusterID) => new SqliteKVStateMachine(`${directory}/${clusterID}.db`),
 *     { clusterID: 1n, nodeID: 1n },
 *   );
 *   await replica.propose(kv.put("boat", "sampan"));
 *   console.log(await replica.read(kv.count())); // 1
 * }
 * await Deno.remove(directory, { recursive: true });
 * ```
 */
export class SqliteKVStateMachine extends OnDiskKVStateMachine {
  /** A machine in the database at `path`, which is made, with its directory, when the machine is opened. */
  constructor(path: string | URL, options: SqliteKVOptions = {}) {
    const file = pathFrom(path, "Path of the database");
    const checks: OptionChecks<SqliteKVOptions> = {
      durability: optional(isOneOf("full", "normal")),
      memoryBudgetBytes: optional(isCount(1)),
    };
    checkOptions("Options of the machine", options, checks);
    const { durability, memoryBudgetBytes } = options;
    super(() => new SqliteBlockStore(file), {
      durability: durability === "full" ? "strict" : "relaxed",
      memoryBudgetBytes,
    });
  }
}
