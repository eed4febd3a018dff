/**
 * Snapshot store of several processes, which share it or exchange the snapshots in
 * their own, with pointers in etcd to those that cover the compacted part of each log.
 *
 * A pointer has the index, size and SHA-256 of a full snapshot. It is advanced by
 * compare-and-swap when a snapshot is stored, and the start of a log never moves
 * past the newest snapshot that was read back with the hash in its pointer.
 *
 * This module needs Deno.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { ETCD_VERIFIED_SNAPSHOTS_MAX, SNAPSHOTS_KEPT } from "../limits.ts";
import {
  ErrSnapshotCorrupted,
  ErrSnapshotNotFound,
} from "../snapshot/errors.ts";
import type {
  SnapshotHeader,
  SnapshotInfo,
  SnapshotSink,
  SnapshotStore,
  SnapshotTotals,
} from "../snapshot/store.ts";
import { ErrSnapshotAborted } from "../statemachine/errors.ts";
import { isSameBytes } from "../bytes.ts";
import type { EtcdClient } from "./client.ts";
import type { Keys } from "./keys.ts";
import type { PeerSnapshots } from "./peer_snapshots.ts";
import type { SnapshotDuty } from "./snapshot_duty.ts";
import {
  type Compare,
  decodeTxn,
  encodeTxn,
  type KeyValue,
  Method,
} from "./messages.ts";
import {
  decodePointers,
  encodePointers,
  type EtcdSnapshotPointer,
} from "./values.ts";

/** Pointers of a cluster, with the revision of their key. */
interface Stored {
  readonly pointers: readonly EtcdSnapshotPointer[];
  readonly revision: number;
}

/** Stream that passes bytes on and takes their hash. */
function hashing(
  done: (sha256: Uint8Array, size: number) => void,
): TransformStream<Uint8Array, Uint8Array> {
  const hash = createHash("sha256");
  let size = 0;
  return new TransformStream({
    transform(chunk, controller): void {
      hash.update(chunk);
      size += chunk.length;
      controller.enqueue(chunk);
    },
    flush(): void {
      done(new Uint8Array(hash.digest()), size);
    },
  });
}

/** Snapshot store with pointers in etcd. */
export class PointedSnapshots implements SnapshotStore {
  readonly #store: SnapshotStore;
  readonly #client: EtcdClient;
  readonly #keys: Keys;
  readonly #duty: SnapshotDuty;
  readonly #peers: PeerSnapshots | undefined;
  /** Hashes of snapshots that were read back here, by cluster and id. */
  readonly #verified = new Map<string, Uint8Array>();

  /** Creates the view of a store, which is that of `peers` if each server keeps its own snapshots. */
  constructor(
    store: SnapshotStore,
    client: EtcdClient,
    keys: Keys,
    duty: SnapshotDuty,
    peers?: PeerSnapshots,
  ) {
    this.#duty = duty;
    this.#peers = peers;
    this.#store = store;
    this.#client = client;
    this.#keys = keys;
  }

  /** Begins writing a snapshot; its pointer is advanced when it is committed. */
  async create(
    header: SnapshotHeader,
    options?: { readonly imported?: boolean },
  ): Promise<SnapshotSink> {
    const sink = await this.#store.create(header, options);
    if (header.kind !== "full") return sink;
    const fence = await this.#duty.take();
    const hash = createHash("sha256");
    let size = 0;
    const writer = sink.writable.getWriter();
    writer.closed.catch(() => {
      // Reported by the next write, and by commit().
    });
    const writable = new WritableStream<Uint8Array>({
      async write(chunk): Promise<void> {
        hash.update(chunk);
        size += chunk.length;
        await writer.write(chunk);
      },
      close: () => writer.close(),
      abort: (reason) => writer.abort(reason),
    });
    return {
      writable,
      commit: async (totals: SnapshotTotals): Promise<SnapshotInfo> => {
        const info = await sink.commit(totals);
        await this.#advance(info, new Uint8Array(hash.digest()), size, fence);
        return info;
      },
      abort: async (reason?: unknown): Promise<void> => {
        await sink.abort(reason);
      },
    };
  }

  /** True if this process stores the snapshots that are due; takes that duty if no other process has it, unless it should only look. */
  async isOnDuty(onlyLook = false): Promise<boolean> {
    const fence = onlyLook ? await this.#duty.look() : await this.#duty.take();
    return fence !== undefined;
  }

  /** Complete snapshots of a cluster. */
  list(clusterID: bigint): ReturnType<SnapshotStore["list"]> {
    return this.#store.list(clusterID);
  }

  /** Opens the bytes of a snapshot, and notes their hash. */
  async open(info: SnapshotInfo): Promise<ReadableStream<Uint8Array>> {
    const source = await this.#store.open(info);
    if (info.kind !== "full") return source;
    return source.pipeThrough(
      hashing((sha256) => this.#note(info.clusterID, info.id, sha256)),
    );
  }

  #note(clusterID: bigint, id: string, sha256: Uint8Array): void {
    const key = `${clusterID} ${id}`;
    this.#verified.delete(key);
    this.#verified.set(key, sha256);
    if (this.#verified.size > ETCD_VERIFIED_SNAPSHOTS_MAX) {
      this.#verified.delete(this.#verified.keys().next().value!);
    }
  }

  /** Removes a snapshot. */
  async remove(info: SnapshotInfo): Promise<void> {
    this.#verified.delete(`${info.clusterID} ${info.id}`);
    await this.#store.remove(info);
  }

  /** Ids of the clusters that have a snapshot. */
  async clusters(): Promise<readonly bigint[]> {
    return await this.#store.clusters?.() ?? [];
  }

  /** Does nothing: the store belongs to the code that created it. */
  async close(): Promise<void> {}

  /** Does nothing: the store belongs to the code that created it. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Pointers of a cluster, newest first. */
  async pointers(clusterID: bigint): Promise<Stored> {
    const key = this.#keys.of("snapshot", clusterID);
    const { ranges } = decodeTxn(
      await this.#client.request(
        Method.Txn,
        encodeTxn([], [{ range: { key } }]),
      ),
    );
    return this.#decode(clusterID, ranges[0]?.[0]);
  }

  #decode(clusterID: bigint, kv: KeyValue | undefined): Stored {
    if (kv === undefined) return { pointers: [], revision: 0 };
    const pointers = decodePointers(kv.value, clusterID);
    return { pointers, revision: kv.modRevision };
  }

  /**
   * Adds a pointer, unless another process has added one to a newer snapshot.
   *
   * @throws ErrSnapshotAborted if this process had the duty of storing snapshots, and another one has taken it over
   */
  async #advance(
    info: SnapshotInfo,
    sha256: Uint8Array,
    size: number,
    fence: Compare | undefined,
  ): Promise<void> {
    const { clusterID, index } = info;
    const id = this.#peers?.sharedID(info) ?? info.id;
    const key = this.#keys.of("snapshot", clusterID);
    let stored = await this.pointers(clusterID);
    for (;;) {
      const others = stored.pointers.filter((one) => one.index !== index);
      if (others.length > 0 && others[0]!.index > index) return;
      const pointers = [{ index, size, sha256, id }, ...others]
        .slice(0, SNAPSHOTS_KEPT);
      const { succeeded, ranges } = decodeTxn(
        await this.#client.request(
          Method.Txn,
          encodeTxn(
            [
              { key, modRevision: stored.revision },
              ...(fence === undefined ? [] : [fence]),
            ],
            [{ put: key, value: encodePointers(clusterID, pointers) }],
            [{ range: { key } }],
          ),
        ),
      );
      if (succeeded) return;
      const { revision } = stored;
      stored = this.#decode(clusterID, ranges[0]?.[0]);
      if (stored.revision === revision) {
        throw new ErrSnapshotAborted(
          `Snapshot of cluster ${clusterID} at ${index} is not announced: another server has taken over the storing of snapshots`,
        );
      }
    }
  }

  /**
   * Index up to which a log may be compacted, at most `upTo`: that of the newest
   * snapshot which was read back with the hash in its pointer, from the shared store,
   * or by as many live servers as have to hold it.
   */
  async mayCompact(clusterID: bigint, upTo: number): Promise<number> {
    const { pointers } = await this.pointers(clusterID);
    for (const pointer of pointers) {
      const isSafe = this.#peers === undefined
        ? await this.#isVerified(clusterID, pointer)
        : await this.#peers.isServable(clusterID, pointer);
      if (isSafe) {
        return Math.min(upTo, pointer.index);
      }
    }
    return 0;
  }

  async #isVerified(
    clusterID: bigint,
    { id, index, size, sha256 }: EtcdSnapshotPointer,
  ): Promise<boolean> {
    const info = (await this.#store.list(clusterID)).find((one) =>
      one.id === id && one.index === index && one.kind === "full"
    );
    if (info === undefined || info.size !== size) return false;
    const key = `${clusterID} ${id}`;
    if (!this.#verified.has(key)) {
      try {
        await (await this.open(info)).pipeTo(new WritableStream());
      } catch (error) {
        // Another server may have replaced it since.
        const isGone = error instanceof ErrSnapshotNotFound;
        if (isGone || error instanceof ErrSnapshotCorrupted) return false;
        throw error;
      }
    }
    const found = this.#verified.get(key);
    return found !== undefined && isSameBytes(found, sha256);
  }
}
