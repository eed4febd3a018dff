/**
 * Exchange of checkpoints between the replicas of all processes on one etcd, by
 * which they detect divergence.
 *
 * The newest checkpoint of each replica has a key. It is put some seconds after it
 * was published, so that many clusters cost little; replicas of one process exchange
 * theirs at once.
 *
 * This module needs Deno.
 *
 * @module
 */

import { Backoff } from "../async.ts";
import type { Env } from "../env.ts";
import {
  ETCD_CHECKPOINT_MS,
  ETCD_RETRY_FIRST_MS,
  ETCD_RETRY_LAST_MS,
} from "../limits.ts";
import { MemoryCheckpointBoard } from "../log/cluster_log.ts";
import type { Checkpoint, CheckpointBoard } from "../log/log.ts";
import type { EtcdClient } from "./client.ts";
import type { Keys } from "./keys.ts";
import { encodeTxn, type KeyValue, Method } from "./messages.ts";
import { decodeCheckpoint, encodeCheckpoint } from "./values.ts";

/** Checkpoints of one cluster. */
class ClusterBoard extends MemoryCheckpointBoard {
  readonly #onPublish: (checkpoint: Checkpoint) => void;
  readonly #onWatch: () => void;

  constructor(
    onPublish: (checkpoint: Checkpoint) => void,
    onWatch: () => void,
  ) {
    super();
    this.#onPublish = onPublish;
    this.#onWatch = onWatch;
  }

  override publish(checkpoint: Checkpoint): void {
    super.publish(checkpoint);
    this.#onPublish(checkpoint);
  }

  /** Publishes a checkpoint of another process to the replicas here. */
  receive(checkpoint: Checkpoint): void {
    super.publish(checkpoint);
  }

  override watch(
    nodeID: bigint,
    listener: (checkpoint: Checkpoint) => void,
  ): () => void {
    this.#onWatch();
    return super.watch(nodeID, listener);
  }
}

/** Checkpoints of all clusters below a prefix. */
export class SharedCheckpoints {
  readonly #client: EtcdClient;
  readonly #keys: Keys;
  readonly #env: Env;
  readonly #writer: bigint;
  readonly #boards = new Map<bigint, ClusterBoard>();
  /** Newest checkpoints that were not put yet, by key. */
  readonly #pending = new Map<
    string,
    { readonly key: Uint8Array; readonly value: Uint8Array }
  >();
  #cancelPut: (() => void) | undefined;
  #isFollowing = false;
  #unwatch: (() => void) | undefined;
  #isClosed = false;

  /** Creates the exchange of a process with the random number `writer`. */
  constructor(client: EtcdClient, keys: Keys, env: Env, writer: bigint) {
    this.#client = client;
    this.#keys = keys;
    this.#env = env;
    this.#writer = writer;
  }

  /** Checkpoints of a cluster whose log is opened. */
  board(clusterID: bigint): CheckpointBoard {
    const board = new ClusterBoard(
      (checkpoint) => this.#publish(clusterID, checkpoint),
      () => this.#follow(),
    );
    this.#boards.set(clusterID, board);
    return board;
  }

  /** Forgets a cluster whose log is closed. */
  remove(clusterID: bigint): void {
    this.#boards.delete(clusterID);
  }

  #publish(clusterID: bigint, checkpoint: Checkpoint): void {
    if (this.#isClosed) return;
    const key = this.#keys.ofCheckpoint(clusterID, checkpoint.nodeID);
    const value = encodeCheckpoint(clusterID, this.#writer, checkpoint);
    this.#pending.set(`${clusterID} ${checkpoint.nodeID}`, { key, value });
    this.#putLater();
  }

  #putLater(): void {
    if (this.#isClosed) return;
    this.#cancelPut ??= this.#env.setTimer(() => {
      this.#cancelPut = undefined;
      // Never rejects: what fails is put the next time.
      void this.#put();
    }, ETCD_CHECKPOINT_MS);
  }

  async #put(): Promise<void> {
    for (const [name, one] of [...this.#pending]) {
      try {
        await this.#client.request(
          Method.Txn,
          encodeTxn([], [{ put: one.key, value: one.value }]),
        );
      } catch {
        return this.#putLater();
      }
      if (this.#pending.get(name) === one) this.#pending.delete(name);
    }
  }

  /** Reads the checkpoints of other processes, and follows them. */
  #follow(): void {
    if (this.#isFollowing || this.#isClosed) return;
    this.#isFollowing = true;
    // Never rejects: repeated until it succeeds.
    void this.#following();
  }

  async #following(): Promise<void> {
    const range = this.#keys.range("check");
    const backoff = new Backoff(
      this.#env,
      ETCD_RETRY_FIRST_MS,
      ETCD_RETRY_LAST_MS,
    );
    while (!this.#isClosed) {
      try {
        const { kvs, revision } = await this.#client.list(range);
        for (const kv of kvs) this.#received(kv);
        this.#unwatch = this.#client.watches.add(range, revision + 1, {
          changed: (events) => {
            for (const { isDelete, kv } of events) {
              if (!isDelete) this.#received(kv);
            }
          },
          // Only the newest checkpoints matter.
          compacted: () => {},
          failed: () => {},
        });
        return;
      } catch {
        await new Promise<void>((resolve) =>
          void this.#env.setTimer(resolve, backoff.next())
        );
      }
    }
  }

  #received({ key, value }: KeyValue): void {
    const clusterID = this.#keys.clusterOfReplica(key);
    const board = this.#boards.get(clusterID);
    if (board === undefined) return;
    try {
      const { writer, checkpoint } = decodeCheckpoint(value, clusterID);
      if (writer !== this.#writer) board.receive(checkpoint);
    } catch {
      // Written by newer code, which will have to compare them.
    }
  }

  /** Ends the exchange. */
  close(): void {
    this.#isClosed = true;
    this.#cancelPut?.();
    this.#unwatch?.();
  }
}
