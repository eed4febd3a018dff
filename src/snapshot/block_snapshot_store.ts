/**
 * Snapshot store over a block store.
 *
 * A container is written as a sequence of data blocks. It becomes visible when its
 * info block is written, in the same step that deletes the snapshot it replaces. The
 * name of the info block carries the snapshot's header, and its content is the
 * checksum of that name. Data blocks without an info block were left by a crash, and
 * are deleted when the store is next used.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  checkOptions,
  isBlockStore,
  isEnv,
  optional,
  type OptionChecks,
} from "../options.ts";
import { ByteWriter, crc32, encodeText } from "../bytes.ts";
import { type Env, systemEnv } from "../env.ts";
import { ErrUnknownOutcome } from "../log/errors.ts";
import { ErrClosed } from "../statemachine/errors.ts";
import { loadOnce } from "../statemachine/load.ts";
import { SerialQueue } from "../store/group_commit.ts";
import type { StoreLease } from "../store/lease.ts";
import { rangeOf } from "../store/names.ts";
import type { BlockStore } from "../store/store.ts";
import { ErrSnapshotNotFound, incompleteError } from "./errors.ts";
import { nameOf, parseName } from "./snapshot_name.ts";
import {
  clustersOf,
  compareSnapshots,
  isSameSnapshot,
  type SnapshotHeader,
  type SnapshotInfo,
  type SnapshotSink,
  type SnapshotStore,
  type SnapshotTotals,
} from "./store.ts";

/** Options of {@linkcode BlockSnapshotStore}. */
export interface BlockSnapshotStoreOptions {
  /** Clock, random numbers and timers. @default {systemEnv} */
  readonly env?: Env;
}

/** Prefixes of the names of info blocks and of data blocks. */
const INFO = "snapshot/info/";
const DATA = "snapshot/data/";

function infoKey(info: SnapshotInfo): string {
  return `${INFO}${info.id}/${nameOf(info, parseInt(info.id))}`;
}

/** Parses the name of an info block; undefined if it is invalid. */
function infoOf(key: string): SnapshotInfo | undefined {
  const [id = "", name = ""] = key.slice(INFO.length).split("/");
  const made = parseName(name);
  return made && { ...made.info, id };
}

/** Beginning of the names of the data blocks of a snapshot. */
function blocksOf(id: string): string {
  return `${DATA}${id}/`;
}

/** Range of those names. */
function rangeOfBlocks(id: string): [from: string, to: string] {
  return rangeOf(blocksOf(id));
}

/** Loads what writes and reads data blocks: a device without a snapshot does not need it. */
const loadBlocks = /* @__PURE__ */ loadOnce(
  "writes and reads snapshots",
  () => import("./snapshot_blocks.ts"),
);

/** Content of an info block: checksum of its name. */
function seal(key: string): Uint8Array {
  return new ByteWriter().u32(crc32(encodeText(key, "Key"))).finish();
}

/**
 * {@linkcode SnapshotStore} over a {@linkcode BlockStore}, of which it must be the
 * only user of names that begin with `snapshot/`. A snapshot survives a power cut
 * once `commit()` has resolved. A damaged or incomplete snapshot fails when it is
 * read, and does not affect others (H8).
 */
export class BlockSnapshotStore implements SnapshotStore {
  readonly #store: BlockStore;
  readonly #ownsStore: boolean;
  readonly #env: Env;
  /** Complete snapshots; undefined until they are listed, and after a change whose outcome is unknown. */
  #snapshots: Promise<Map<string, SnapshotInfo>> | undefined;
  /** Number of streams that read each snapshot. */
  readonly #readers = new Map<string, number>();
  /** Snapshots that were removed while a stream read them. */
  readonly #condemned = new Set<string>();
  #made = 0;
  /** Set once the leftovers of a crash were removed; from then on, blocks without an info block may belong to a snapshot being written. */
  #swept = false;
  /** Lease under which several processes use the store. */
  #lease: StoreLease | undefined;
  /** Changes to the list of snapshots, one at a time. */
  readonly #changes = new SerialQueue();
  #closing: Promise<void> | undefined;

  /**
   * Creates a snapshot store over a block store, which the caller closes, or over a
   * function that creates a block store, which is closed with it. Reads nothing yet.
   */
  constructor(
    store: BlockStore | (() => BlockStore),
    options: BlockSnapshotStoreOptions = {},
  ) {
    const checks: OptionChecks<BlockSnapshotStoreOptions> = {
      env: optional(isEnv),
    };
    isBlockStore("Store of the snapshots", store);
    checkOptions("Options of the snapshot store", options, checks);
    this.#ownsStore = typeof store === "function";
    this.#store = typeof store === "function" ? store() : store;
    this.#env = options.env ?? systemEnv;
  }

  #check(): void {
    if (this.#closing) {
      throw new ErrClosed("BlockSnapshotStore is closed; create another one");
    }
  }

  /** Lists the snapshots, from memory if possible. A failed listing is repeated by the next call. */
  async #load(): Promise<Map<string, SnapshotInfo>> {
    this.#check();
    // Another process changes them.
    if (this.#lease?.isHeld === false) return await this.#read();
    this.#snapshots ??= this.#read();
    try {
      return await this.#snapshots;
    } catch (error) {
      this.#snapshots = undefined;
      throw error;
    }
  }

  async #read(): Promise<Map<string, SnapshotInfo>> {
    const keys = await this.#store.keys(...rangeOf(INFO));
    const snapshots = new Map<string, SnapshotInfo>();
    for (const key of keys) {
      const info = infoOf(key);
      // Its data blocks are unknown, so no blocks are removed.
      if (!info) {
        this.#swept = true;
        continue;
      }
      snapshots.set(info.id, info);
      this.#made = Math.max(this.#made, parseInt(info.id));
    }
    if (this.#lease?.isHeld === false) return snapshots;
    if (!this.#swept) await this.#sweep(snapshots);
    this.#swept = true;
    return snapshots;
  }

  /** Deletes data blocks that belong to no snapshot. */
  async #sweep(snapshots: ReadonlyMap<string, unknown>): Promise<void> {
    const found = await this.#store.keys(...rangeOf(DATA));
    const ids = new Set(
      found.map((key) => key.slice(DATA.length).split("/", 1)[0] as string),
    );
    const leftovers = [...ids].filter((id) => !snapshots.has(id)).map(
      rangeOfBlocks,
    );
    if (leftovers.length > 0) {
      await this.#store.write({ deleteRanges: leftovers }, "relaxed");
    }
  }

  /** Begins writing a snapshot. */
  async create(
    header: SnapshotHeader,
    options?: { readonly imported?: boolean },
  ): Promise<SnapshotSink> {
    await this.#load();
    // Unique even after a crash.
    const id = `${`${++this.#made}`.padStart(16, "0")}-${
      this.#env.random64().toString(16)
    }`;
    const { BlockWriter } = await loadBlocks();
    const blocks = new BlockWriter(this.#store, blocksOf(id));
    let info: SnapshotInfo | undefined;
    return {
      writable: blocks.writable,
      commit: async (totals: SnapshotTotals): Promise<SnapshotInfo> => {
        if (info) return info;
        const { size } = blocks;
        if (size === undefined) {
          this.#check();
          throw incompleteError();
        }
        const imported = options?.imported ?? false;
        const made = { ...header, id, size, files: totals.files, imported };
        try {
          await this.#changes.run(() => this.#commit(made));
        } catch (error) {
          if (!(error instanceof ErrUnknownOutcome)) throw error;
          // The outcome is settled by now: list the snapshots to find it out.
          if (!await this.#has(id)) throw error;
        }
        return info = made;
      },
      abort: async (reason?: unknown): Promise<void> => {
        if (info) return;
        blocks.fail(reason);
        // A commit whose outcome was unknown may have succeeded.
        if (this.#closing || await this.#has(id)) return;
        await this.#store.write(
          { deleteRanges: [rangeOfBlocks(id)] },
          "relaxed",
        );
      },
    };
  }

  async #has(id: string): Promise<boolean> {
    return (await this.#load()).has(id);
  }

  async #commit(info: SnapshotInfo): Promise<void> {
    const snapshots = await this.#load();
    const old = [...snapshots.values()]
      .filter((other) => isSameSnapshot(other, info));
    await this.#replace(snapshots, old, info);
  }

  /** Removes snapshots and adds one, in one atomic step. */
  async #replace(
    snapshots: Map<string, SnapshotInfo>,
    replaced: readonly SnapshotInfo[],
    info?: SnapshotInfo,
  ): Promise<void> {
    const key = info && infoKey(info);
    const old = replaced.map(({ id }) => id);
    const idle = old.filter((id) => !this.#readers.has(id));
    // From here on no stream opens a snapshot that is being removed.
    for (const id of old) snapshots.delete(id);
    try {
      await this.#store.write({
        put: key ? [{ key, bytes: seal(key) }] : [],
        delete: replaced.map(infoKey),
        deleteRanges: idle.map(rangeOfBlocks),
      }, "strict");
    } catch (error) {
      this.#snapshots = undefined;
      throw error;
    }
    if (info) snapshots.set(info.id, info);
    for (const id of old) if (!idle.includes(id)) await this.#condemn(id);
  }

  /** Deletes the blocks of a removed snapshot once its last stream has ended. */
  async #condemn(id: string): Promise<void> {
    this.#condemned.add(id);
    // The last stream may have ended during the write.
    if (!this.#readers.has(id)) await this.#clear(id);
  }

  async #clear(id: string): Promise<void> {
    if (!this.#condemned.delete(id) || this.#closing) return;
    try {
      await this.#store.write({ deleteRanges: [rangeOfBlocks(id)] }, "relaxed");
    } catch {
      // The blocks are deleted when the store is next opened.
    }
  }

  /** Complete snapshots of a cluster, in the order defined by the port. */
  async list(clusterID: bigint): Promise<readonly SnapshotInfo[]> {
    return [...(await this.#load()).values()]
      .filter((info) => info.clusterID === clusterID)
      .sort((a, b) => compareSnapshots(a, b) || (a.id < b.id ? 1 : -1));
  }

  /** Shares the store between processes under a lease. */
  share(lease: StoreLease): void {
    this.#lease = lease;
    this.#store.share?.(lease);
    lease.add({
      forget: () => {
        this.#snapshots = undefined;
        this.#swept = false;
      },
    });
  }

  /** Ids of the clusters that have a snapshot here, in ascending order. */
  async clusters(): Promise<readonly bigint[]> {
    const snapshots = await this.#load();
    return clustersOf(snapshots.values());
  }

  /**
   * Opens the container's bytes. The stream fails with an `ErrSnapshotCorrupted`
   * whose cause names the block if a block is missing; a damaged block is found when
   * the container is parsed.
   *
   * @throws ErrSnapshotNotFound if it is not in the store, or was removed
   * @throws ErrSnapshotCorrupted if its info block is damaged
   */
  async open({ id }: SnapshotInfo): Promise<ReadableStream<Uint8Array>> {
    const info = (await this.#load()).get(id);
    if (!info) throw new ErrSnapshotNotFound(id);
    this.#readers.set(id, (this.#readers.get(id) ?? 0) + 1);
    const end = (): Promise<void> => this.#release(id);
    const key = infoKey(info);
    try {
      const { checkInfo, readBlocks } = await loadBlocks();
      await checkInfo(this.#store, info, {
        key,
        seal: seal(key),
        exists: () => this.#has(id),
      });
      return readBlocks(this.#store, blocksOf(id), { size: info.size, end });
    } catch (error) {
      await end();
      throw error;
    }
  }

  /** Notes that a stream has ended; after the last one, deletes the blocks if the snapshot was removed. */
  async #release(id: string): Promise<void> {
    const readers = (this.#readers.get(id) ?? 1) - 1;
    if (readers > 0) return void this.#readers.set(id, readers);
    this.#readers.delete(id);
    await this.#clear(id);
  }

  /** Removes a snapshot; does nothing if it was removed before. */
  async remove({ id }: SnapshotInfo): Promise<void> {
    await this.#load();
    await this.#changes.run(async () => {
      const snapshots = await this.#load();
      const stored = snapshots.get(id);
      if (stored) await this.#replace(snapshots, [stored]);
    });
  }

  /** Closes the store after the commits and removals under way; idempotent. */
  close(): Promise<void> {
    return this.#closing ??= this.#end();
  }

  async #end(): Promise<void> {
    await this.#changes.settled();
    if (this.#ownsStore) await this.#store.close();
  }

  /** Closes the store. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
