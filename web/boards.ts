/**
 * The boards of the demo server: a cluster for each, started when it is first opened.
 *
 * This module needs Deno.
 *
 * @module
 */

import { ErrUpdateFailed, type NodeHost } from "../mod.ts";
import type { TypedMachine } from "../src/typed/mod.ts";
import { board } from "./app/board.ts";
import { HASH_ENTRIES } from "./app/names.ts";

/** Most boards that a server has open. */
const BOARDS_MAX = 1_000;

/** Applied entries after which the server takes a snapshot, and those that it keeps besides for devices that were away. */
const SNAPSHOT_ENTRIES = 10_000;

/** Options of {@linkcode Boards}. */
export interface BoardsOptions {
  /** Node id of this server's replicas: each server on the same logs needs one of its own. @default {1n} */
  readonly nodeID?: bigint | undefined;
  /** True if logs are never compacted, because other servers on them have no snapshots of this one. @default {false} */
  readonly keepsLog?: boolean | undefined;
}

/** Boards on a host. */
export class Boards {
  readonly #host: NodeHost;
  readonly #create: () => TypedMachine;
  readonly #options: BoardsOptions;
  readonly #starting = new Map<bigint, Promise<void>>();

  /** Boards on a host; `create` makes their machines. */
  constructor(
    host: NodeHost,
    create: () => TypedMachine = board.create,
    options: BoardsOptions = {},
  ) {
    this.#host = host;
    this.#create = create;
    this.#options = options;
  }

  /**
   * Starts a board that is not open yet; false if there are too many. A link is all
   * that a visitor needs to open one, so this is the `authorize` of the server.
   */
  readonly open = async (clusterID: bigint): Promise<boolean> => {
    if (!this.#starting.has(clusterID)) {
      if (this.#starting.size >= BOARDS_MAX) return false;
      this.#starting.set(clusterID, this.#start(clusterID));
    }
    await this.#starting.get(clusterID);
    return true;
  };

  async #start(clusterID: bigint): Promise<void> {
    try {
      await this.#host.startConcurrentCluster(this.#create, {
        clusterID,
        nodeID: this.#options.nodeID ?? 1n,
        snapshotEntries: SNAPSHOT_ENTRIES,
        compactionOverhead: this.#options.keepsLog
          ? Number.MAX_SAFE_INTEGER
          : SNAPSHOT_ENTRIES,
        hashEntries: HASH_ENTRIES,
      });
    } catch (error) {
      // The host keeps the cause: `/health` and every page report it.
      if (error instanceof ErrUpdateFailed) return;
      this.#starting.delete(clusterID);
      throw error;
    }
  }
}
