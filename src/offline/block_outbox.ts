/**
 * Outbox on a block store.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type Env, systemEnv } from "../env.ts";
import { OUTBOX_BYTES_MAX } from "../limits.ts";
import { ErrClusterAlreadyExist, ErrClusterClosed } from "../log/errors.ts";
import type {
  Outbox,
  OutboxParts,
  ReplicaOutbox,
  Unsynced,
} from "../nodehost/outbox.ts";
import { ErrUnsynced } from "../nodehost/outbox_errors.ts";
import {
  checkOptions,
  isBlockStore,
  isCount,
  isEnv,
  isOneOf,
  optional,
  type OptionChecks,
} from "../options.ts";
import { loadOnce } from "../statemachine/load.ts";
import type { StoreLease } from "../store/lease.ts";
import { clustersUnder } from "../store/names.ts";
import type { BlockStore, Durability } from "../store/store.ts";
import { BlockQueue, contentsOf, loadQueue } from "./block_queue.ts";
import { BlockNames } from "./outbox_block.ts";
import type {
  JoiningParts,
  SharedOutboxQueue,
  SharedOutboxStore,
} from "./outbox_store.ts";
import { attachOutbox } from "./replica_outbox.ts";

/** Options of {@linkcode BlockOutbox}. */
export interface BlockOutboxOptions {
  /**
   * Time, random numbers and timers.
   *
   * @default {the real ones}
   */
  readonly env?: Env;
  /**
   * Failure that a submission survives: `relaxed` a process or browser that is
   * killed, `strict` a power cut. With either, a submission that survives a power
   * cut is applied once.
   *
   * @default {"relaxed"}
   */
  readonly durability?: Durability;
  /**
   * Most bytes of commands of one cluster, of those that are not decided and those
   * that were refused and not dismissed. Past it, `submit()` throws
   * `ErrSystemBusy`. They are in the store, and few of them in memory.
   *
   * @default {1 GiB}
   */
  readonly bytesMax?: number;
}

/** Loads what prepares submissions for another history. */
const loadStartOver = /* @__PURE__ */ loadOnce(
  "starts an outbox over",
  () => import("./start_over.ts"),
);

/**
 * {@linkcode Outbox} on a {@linkcode BlockStore}. Of a damaged queue nothing is
 * used: opening it throws an `ErrStoreCorrupted` that names the block. A store
 * that vanished is an empty outbox.
 */
export class BlockOutbox implements Outbox, SharedOutboxStore {
  readonly #store: BlockStore;
  #isShared = false;
  /** Number of leases of a shared store that have ended. */
  #term = 0;
  readonly #ownsStore: boolean;
  readonly #options: Required<BlockOutboxOptions>;
  /** Queues by cluster; undefined while one is opened or changed. */
  readonly #queues = new Map<bigint, BlockQueue | undefined>();
  #closing: Promise<void> | undefined;

  /**
   * Creates an outbox on a store, which stays open when the outbox is closed, or
   * on one that `store()` makes and the outbox closes. Nothing is read yet.
   */
  constructor(
    store: BlockStore | (() => BlockStore),
    options: BlockOutboxOptions = {},
  ) {
    const checks: OptionChecks<BlockOutboxOptions> = {
      env: optional(isEnv),
      durability: optional(isOneOf("strict", "relaxed")),
      bytesMax: optional(isCount(1)),
    };
    isBlockStore("Store of the outbox", store);
    checkOptions("Options of the outbox", options, checks);
    this.#ownsStore = typeof store === "function";
    this.#store = typeof store === "function" ? store() : store;
    const {
      env = systemEnv,
      durability = "relaxed",
      bytesMax = OUTBOX_BYTES_MAX,
    } = options;
    this.#options = { env, durability, bytesMax };
  }

  /** Attaches the outbox to a replica: called by its host. */
  attach(parts: OutboxParts): ReplicaOutbox {
    return attachOutbox(this, parts);
  }

  /** Runs `work` on the queue of a cluster that is not open. */
  async #exclusively<T>(
    clusterID: bigint,
    work: () => Promise<T>,
  ): Promise<T> {
    this.#checkOpen();
    if (this.#queues.has(clusterID)) {
      throw new ErrClusterAlreadyExist(
        `Outbox of cluster ${clusterID} is in use: stop the cluster first`,
      );
    }
    this.#queues.set(clusterID, undefined);
    try {
      return await work();
    } finally {
      if (this.#queues.get(clusterID) === undefined) {
        this.#queues.delete(clusterID);
      }
    }
  }

  #checkOpen(): void {
    if (this.#closing) {
      throw new ErrClusterClosed("Outbox was closed by close()");
    }
  }

  /**
   * Opens the queue of a cluster.
   *
   * @throws ErrClusterAlreadyExist if it is open already
   * @throws ErrStoreCorrupted if the stored queue is damaged
   * @throws ErrStoreLocked if another process has the store open
   */
  open(
    clusterID: bigint,
    onDecided: (decided: number) => void,
  ): Promise<SharedOutboxQueue> {
    return this.#exclusively(clusterID, async () => {
      const { env } = this.#options;
      const term = this.#term;
      const queue = new BlockQueue(
        this.#store,
        clusterID,
        await loadQueue(this.#store, clusterID, env),
        { ...this.#options, isShared: this.#isShared },
        onDecided,
        () => this.#queues.delete(clusterID),
      );
      if (term !== this.#term) queue.leave();
      this.#queues.set(clusterID, queue);
      return queue;
    });
  }

  /** Shares the outbox between processes under a lease, of which the holder sends what all of them submit. */
  share(lease: StoreLease): void {
    this.#isShared = true;
    this.#store.share?.(lease);
    lease.add({
      release: () => {
        this.#term++;
        for (const queue of this.#queues.values()) queue?.leave();
      },
    });
  }

  /** Store and options with which a process joins a queue while another one sends its commands. */
  joining(): JoiningParts {
    this.#checkOpen();
    return { store: this.#store, ...this.#options };
  }

  /** Lists submissions of a cluster that may not be synced, in order. */
  async unsynced(clusterID: bigint): Promise<readonly Unsynced[]> {
    const { decided, commands, settled } = contentsOf(
      await loadQueue(this.#store, clusterID, this.#options.env, true),
    );
    const found = new Map<number, Unsynced>();
    for (const [i, cmd] of commands.entries()) {
      const id = decided + 1 + i;
      found.set(id, { id, state: "queued", cmd });
    }
    for (const { number: id, state, cmd } of settled) {
      if (state === "dismissed") found.delete(id);
      else found.set(id, { id, state, cmd });
    }
    return [...found.values()].sort((a, b) => a.id - b.id);
  }

  /**
   * Removes all submissions of a cluster, as at a logout (U35).
   *
   * @throws ErrUnsynced if some are not synced, unless `discard` is set
   * @throws ErrClusterAlreadyExist if the cluster runs
   */
  clear(
    clusterID: bigint,
    options: { readonly discard?: boolean } = {},
  ): Promise<void> {
    return this.#exclusively(clusterID, async () => {
      if (!options.discard) {
        const unsynced = await this.unsynced(clusterID);
        if (unsynced.length > 0) throw new ErrUnsynced(unsynced);
      }
      const { range } = new BlockNames(clusterID);
      await this.#store.write({ deleteRanges: [range] }, "strict");
    });
  }

  /**
   * Prepares the submissions of a cluster for another history of its log.
   *
   * @throws ErrClusterAlreadyExist if the cluster runs
   */
  startOver(clusterID: bigint, pending?: readonly number[]): Promise<void> {
    return this.#exclusively(clusterID, async () => {
      const { startOver } = await loadStartOver();
      await startOver(this.#store, clusterID, this.#options.env, pending);
    });
  }

  /** Lists the clusters that have submissions, in order of their ids. */
  async clusters(): Promise<readonly bigint[]> {
    this.#checkOpen();
    return await clustersUnder(this.#store, "outbox/");
  }

  /** Closes the queues, and the store if the outbox has made it. Idempotent. */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    for (const queue of [...this.#queues.values()]) await queue?.close();
    if (this.#ownsStore) await this.#store.close();
  }

  /** Closes the outbox. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
