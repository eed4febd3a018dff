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
  /** Applied entries after which the server takes a snapshot. @default {10_000} */
  readonly snapshotEntries?: number | undefined;
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
    const { snapshotEntries = SNAPSHOT_ENTRIES } = this.#options;
    try {
      await this.#host.startConcurrentCluster(this.#create, {
        clusterID,
        nodeID: this.#options.nodeID ?? 1n,
        snapshotEntries,
        compactionOverhead: snapshotEntries,
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
