/**
 * On-disk key-value machine in a SQLite database.
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

/** Options of {@linkcode SqliteKVStateMachine}. */
export interface SqliteKVOptions {
  /**
   * Durability of a written update before `sync()`: `full` survives a power cut,
   * `normal` the end of the process. With a log that is `full` no update is lost
   * either way.
   *
   * @default {"normal"}
   */
  readonly durability?: "full" | "normal" | undefined;
  /**
   * Most memory for its rows, in bytes; other rows are read on demand.
   *
   * @default {67108864}
   */
  readonly memoryBudgetBytes?: number | undefined;
}

/**
 * Key-value machine in a SQLite database, for one process at a time. Its commands
 * and queries are created with `kv`, like those of the in-memory machines.
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
  /** Creates a machine in the database at `path`, which is created, with its directory, when the machine is opened. */
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
