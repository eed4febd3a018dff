/**
 * Snapshots kept in a block store.
 *
 * A container is cut into blocks, written as they come; it becomes visible when
 * the block that describes it is written, in one step with the end of the
 * snapshot it replaces. That block's name says all that is known of the snapshot,
 * and it holds the name's checksum. Blocks that no description names are what a
 * crash left behind, and are removed when the store is next used.
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
import { SNAPSHOT_CHUNK_BYTES } from "../limits.ts";
import { ErrUnknownOutcome } from "../log/errors.ts";
import { ErrStoreCorrupted } from "../store/errors.ts";
import { SerialQueue } from "../store/group_commit.ts";
import type { BlockStore } from "../store/store.ts";
import { ErrSnapshotCorrupted, ErrSnapshotNotFound } from "./errors.ts";
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

/** What a {@linkcode BlockSnapshotStore} can be told. */
export interface BlockSnapshotStoreOptions {
  /** Time, random numbers and timers; by default the real ones. */
  readonly env?: Env;
}

/** Names of the blocks that describe snapshots, and of those that hold them. */
const INFO = "snapshot/info/";
const DATA = "snapshot/data/";

/** The name that comes after all that begin with `prefix`, which ends with a slash. */
function after(prefix: string): string {
  return `${prefix.slice(0, -1)}0`;
}

/** A snapshot, and what is wrong with the block that describes it. */
interface Kept {
  readonly info: SnapshotInfo;
  readonly damage?: ErrStoreCorrupted | undefined;
}

function infoKey(info: SnapshotInfo): string {
  return `${INFO}${info.id}/${nameOf(info, parseInt(info.id))}`;
}

/** What the name of a block says that describes a snapshot; undefined if it is none. */
function infoOf(key: string): SnapshotInfo | undefined {
  const [id = "", name = ""] = key.slice(INFO.length).split("/");
  const made = parseName(name);
  return made && { ...made.info, id };
}

function chunkKey(id: string, chunk: number): string {
  return `${DATA}${id}/${`${chunk}`.padStart(8, "0")}`;
}

/** The blocks that hold a snapshot. */
function chunksOf(id: string): [from: string, to: string] {
  const prefix = `${DATA}${id}/`;
  return [prefix, after(prefix)];
}

/** What the damage of a block is to whoever reads the snapshot. */
function corrupted(
  offset: number,
  cause: ErrStoreCorrupted,
): ErrSnapshotCorrupted {
  return new ErrSnapshotCorrupted("Store is damaged", offset, { cause });
}

/** The checksum of a name. */
function seal(key: string): Uint8Array {
  return new ByteWriter().u32(crc32(encodeText(key, "Key"))).finish();
}

/**
 * A {@linkcode SnapshotStore} over a {@linkcode BlockStore}, which it has to
 * itself. A snapshot survives a power cut once `commit()` has settled. One that
 * is damaged or incomplete hides no other, and fails to be read (H8).
 */
export class BlockSnapshotStore implements SnapshotStore {
  readonly #store: BlockStore;
  readonly #ownsStore: boolean;
  readonly #env: Env;
  /** The complete ones; undefined until they are read, and when it is not known what became of a change. */
  #snapshots: Promise<Map<string, Kept>> | undefined;
  /** How many streams read a snapshot. */
  readonly #readers = new Map<string, number>();
  /** Those that were removed while a stream read them. */
  readonly #condemned = new Set<string>();
  #made = 0;
  /** Whether what belongs to no snapshot was removed: later it may be one that is being made. */
  #swept = false;
  /** Changes to the list of snapshots, one at a time. */
  readonly #changes = new SerialQueue();
  #closing: Promise<void> | undefined;

  /** The snapshots in a store, which stays open when they are closed, or in one that is made for them and closed with them. Nothing is read yet. */
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

  /** The snapshots there are. What cannot be read now may be later. */
  async #load(): Promise<Map<string, Kept>> {
    if (this.#closing) throw new Error("Snapshot store is closed");
    this.#snapshots ??= this.#read();
    try {
      return await this.#snapshots;
    } catch (error) {
      this.#snapshots = undefined;
      throw error;
    }
  }

  async #read(): Promise<Map<string, Kept>> {
    const keys = await this.#store.keys(INFO, after(INFO));
    const snapshots = new Map<string, Kept>();
    for (const key of keys) {
      const info = infoOf(key);
      // Whose blocks are those it described? None is removed then.
      if (!info) {
        this.#swept = true;
        continue;
      }
      snapshots.set(info.id, { info, damage: await this.#damageOf(key) });
      this.#made = Math.max(this.#made, parseInt(info.id));
    }
    if (!this.#swept) await this.#sweep(snapshots);
    this.#swept = true;
    return snapshots;
  }

  /** What is wrong with the block of that name, if it is one that describes a snapshot. */
  async #damageOf(key: string): Promise<ErrStoreCorrupted | undefined> {
    try {
      const [bytes] = await this.#store.get([key]);
      if (bytes?.join() === seal(key).join()) return undefined;
    } catch (error) {
      if (error instanceof ErrStoreCorrupted) return error;
      throw error;
    }
    return new ErrStoreCorrupted(key, "Description of a snapshot is damaged");
  }

  /** Removes what belongs to no snapshot. */
  async #sweep(snapshots: ReadonlyMap<string, unknown>): Promise<void> {
    const found = await this.#store.keys(DATA, after(DATA));
    const ids = new Set(
      found.map((key) => key.slice(DATA.length).split("/", 1)[0] as string),
    );
    const left = [...ids].filter((id) => !snapshots.has(id)).map(chunksOf);
    if (left.length > 0) {
      await this.#store.write({ deleteRanges: left }, "relaxed");
    }
  }

  /** Begins a snapshot. */
  async create(
    header: SnapshotHeader,
    options?: { readonly imported?: boolean },
  ): Promise<SnapshotSink> {
    await this.#load();
    // Never used again, also not after a crash.
    const id = `${`${++this.#made}`.padStart(16, "0")}-${
      this.#env.random64().toString(16)
    }`;
    const chunks = new ChunkWriter(this.#store, id);
    let info: SnapshotInfo | undefined;
    return {
      writable: chunks.writable,
      commit: async (totals: SnapshotTotals): Promise<SnapshotInfo> => {
        if (info) return info;
        const { size } = chunks;
        if (size === undefined) {
          if (this.#closing) throw new Error("Snapshot store is closed");
          throw new Error("Snapshot is not written to its end");
        }
        const imported = options?.imported ?? false;
        const made = { ...header, id, size, files: totals.files, imported };
        try {
          await this.#changes.run(() => this.#commit(made));
        } catch (error) {
          if (!(error instanceof ErrUnknownOutcome)) throw error;
          // It is settled now: what is to be seen is what there is.
          if (!await this.#has(id)) throw error;
        }
        return info = made;
      },
      abort: async (reason?: unknown): Promise<void> => {
        if (info) return;
        chunks.fail(reason);
        // Nobody may have known that it is there.
        if (this.#closing || await this.#has(id)) return;
        await this.#store.write({ deleteRanges: [chunksOf(id)] }, "relaxed");
      },
    };
  }

  async #has(id: string): Promise<boolean> {
    return (await this.#load()).has(id);
  }

  async #commit(info: SnapshotInfo): Promise<void> {
    const snapshots = await this.#load();
    const old = [...snapshots.values()].map(({ info }) => info)
      .filter((other) => isSameSnapshot(other, info));
    await this.#replace(snapshots, old, info);
  }

  /** Takes some away and adds one, in one step. */
  async #replace(
    snapshots: Map<string, Kept>,
    replaced: readonly SnapshotInfo[],
    info?: SnapshotInfo,
  ): Promise<void> {
    const key = info && infoKey(info);
    const old = replaced.map(({ id }) => id);
    const idle = old.filter((id) => !this.#readers.has(id));
    // No stream begins on what is about to go.
    for (const id of old) snapshots.delete(id);
    try {
      await this.#store.write({
        put: key ? [{ key, bytes: seal(key) }] : [],
        delete: replaced.map(infoKey),
        deleteRanges: idle.map(chunksOf),
      }, "strict");
    } catch (error) {
      this.#snapshots = undefined;
      throw error;
    }
    if (info) snapshots.set(info.id, { info });
    for (const id of old) if (!idle.includes(id)) await this.#condemn(id);
  }

  /** Sees to it that the blocks of what was removed go with its last stream. */
  async #condemn(id: string): Promise<void> {
    this.#condemned.add(id);
    // It may have ended meanwhile.
    if (!this.#readers.has(id)) await this.#clear(id);
  }

  async #clear(id: string): Promise<void> {
    if (!this.#condemned.delete(id) || this.#closing) return;
    try {
      await this.#store.write({ deleteRanges: [chunksOf(id)] }, "relaxed");
    } catch {
      // The next one to use the store will find them.
    }
  }

  /** The complete snapshots of a cluster, as the port orders them. */
  async list(clusterID: bigint): Promise<readonly SnapshotInfo[]> {
    return [...(await this.#load()).values()].map(({ info }) => info)
      .filter((info) => info.clusterID === clusterID)
      .sort((a, b) => compareSnapshots(a, b) || (a.id < b.id ? 1 : -1));
  }

  /** Clusters that have a snapshot here, in order of their ids. */
  async clusters(): Promise<readonly bigint[]> {
    const kept = await this.#load();
    return clustersOf([...kept.values()].map(({ info }) => info));
  }

  /**
   * The container's bytes. A block that is missing is an `ErrSnapshotCorrupted`
   * out of the stream, whose cause names it; one that is damaged shows when the
   * container is read.
   *
   * @throws ErrSnapshotNotFound if it is not, or no longer, there
   * @throws ErrSnapshotCorrupted if what describes it is damaged
   */
  async open({ id }: SnapshotInfo): Promise<ReadableStream<Uint8Array>> {
    const kept = (await this.#load()).get(id);
    if (!kept) throw new ErrSnapshotNotFound(id);
    const { info, damage } = kept;
    if (damage) throw corrupted(0, damage);
    this.#readers.set(id, (this.#readers.get(id) ?? 0) + 1);
    let at = 0;
    const end = (): Promise<void> => this.#release(id);
    return new ReadableStream<Uint8Array>({
      pull: async (controller): Promise<void> => {
        try {
          if (at < info.size) {
            const bytes = await this.#chunk(info, at);
            controller.enqueue(bytes);
            at += bytes.length;
          }
        } catch (error) {
          controller.error(error);
          return await end();
        }
        if (at < info.size) return;
        controller.close();
        await end();
      },
      cancel: end,
    }, { highWaterMark: 0 });
  }

  async #chunk({ id, size }: SnapshotInfo, at: number): Promise<Uint8Array> {
    const key = chunkKey(id, at / SNAPSHOT_CHUNK_BYTES);
    let bytes: Uint8Array | undefined;
    try {
      [bytes] = await this.#store.get([key]);
    } catch (error) {
      throw error instanceof ErrStoreCorrupted ? corrupted(at, error) : error;
    }
    if (bytes?.length === Math.min(SNAPSHOT_CHUNK_BYTES, size - at)) {
      return bytes;
    }
    const what = `Block of a snapshot is ${bytes ? "cut off" : "missing"}`;
    throw corrupted(at, new ErrStoreCorrupted(key, what));
  }

  /** Says that a stream has ended; with the last one goes what was removed meanwhile. */
  async #release(id: string): Promise<void> {
    const readers = (this.#readers.get(id) ?? 1) - 1;
    if (readers > 0) return void this.#readers.set(id, readers);
    this.#readers.delete(id);
    await this.#clear(id);
  }

  /** Removes a snapshot; harmless when it is gone already. */
  async remove({ id }: SnapshotInfo): Promise<void> {
    await this.#load();
    await this.#changes.run(async () => {
      const snapshots = await this.#load();
      const kept = snapshots.get(id);
      if (kept) await this.#replace(snapshots, [kept.info]);
    });
  }

  /** Closes the store, after what is being committed or removed; idempotent. */
  close(): Promise<void> {
    return this.#closing ??= this.#end();
  }

  async #end(): Promise<void> {
    await this.#changes.settled();
    if (this.#ownsStore) await this.#store.close();
  }

  /** As `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** A stream that cuts what it gets into blocks. */
class ChunkWriter {
  readonly writable: WritableStream<Uint8Array>;
  /** How much was written, once that is all; in bytes. */
  size: number | undefined;
  readonly #store: BlockStore;
  readonly #id: string;
  readonly #chunk = new Uint8Array(SNAPSHOT_CHUNK_BYTES);
  #filled = 0;
  #chunks = 0;
  #controller: WritableStreamDefaultController | undefined;
  #failed = false;

  constructor(store: BlockStore, id: string) {
    this.#store = store;
    this.#id = id;
    this.writable = new WritableStream<Uint8Array>({
      start: (controller): void => void (this.#controller = controller),
      write: (bytes) => this.#write(bytes),
      close: async (): Promise<void> => {
        const size = this.#chunks * SNAPSHOT_CHUNK_BYTES + this.#filled;
        if (this.#filled > 0) await this.#flush();
        if (!this.#failed) this.size = size;
      },
    });
  }

  async #write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) {
      const count = Math.min(
        bytes.length - at,
        this.#chunk.length - this.#filled,
      );
      this.#chunk.set(bytes.subarray(at, at + count), this.#filled);
      at += count;
      this.#filled += count;
      if (this.#filled === this.#chunk.length) await this.#flush();
    }
  }

  /** One block at a time: whoever writes waits for storage, not for memory. */
  async #flush(): Promise<void> {
    if (this.#failed) return;
    const key = chunkKey(this.#id, this.#chunks++);
    const bytes = this.#chunk.subarray(0, this.#filled);
    this.#filled = 0;
    await this.#store.write({ put: [{ key, bytes }] }, "relaxed");
  }

  /** Fails the stream, also when somebody has it locked; nothing is written any more. */
  fail(reason: unknown): void {
    this.#failed = true;
    this.size = undefined;
    this.#controller?.error(reason);
  }
}
