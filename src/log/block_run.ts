/**
 * Contiguous run of log blocks in a block store. Used by the durable log and by
 * the local copy of a remote log.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { chain } from "../async.ts";
import { isSameBytes } from "../bytes.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import { ErrStoreCorrupted } from "../store/errors.ts";
import type { Block, BlockStore } from "../store/store.ts";
import {
  type BlockName,
  blockName,
  blockStart,
  decodeBlock,
  decodeMeta,
  encodeMeta,
  type LogMeta,
  parseBlockName,
  verifyBlock,
} from "./block.ts";
import type { LogBatch } from "./log.ts";
import { firstAfter } from "./records.ts";

const MISSING = "Block of the log is missing";

/** Names of blocks that one request to the store lists. */
const NAMES_MAX = 4096;

/** Most blocks that one request to the store fetches. */
const BLOCKS_MAX = 256;

/** Index of the last record in a block. */
export function lastIn({ first, count }: BlockName): number {
  return first + count - 1;
}

/** Blocks from position `from` on: at least one, then more until they have `bytesMax` bytes. */
export function blocksFrom(
  blocks: readonly BlockName[],
  from: number,
  bytesMax: number,
): BlockName[] {
  let end = from;
  for (
    let size = 0;
    end < blocks.length && end < from + BLOCKS_MAX && size < bytesMax;
    end++
  ) size += blocks[end]!.size;
  return blocks.slice(from, end);
}

/** Blocks of one log, each following the one before it. */
export class BlockRun {
  /** Index after which the run starts. */
  base = 0;
  /** Names of the blocks, oldest first. */
  blocks: BlockName[] = [];
  /** Name of the block that holds the log's metadata. */
  readonly metaKey: string;
  readonly #store: BlockStore;
  readonly #clusterID: bigint;
  readonly #prefix: string;
  readonly #hasGaps: boolean;

  /**
   * Creates an empty run. The names of its blocks begin with `prefix`; with
   * `hasGaps` they carry the index that the block follows, since it may not be the
   * one before the block's first.
   */
  constructor(
    store: BlockStore,
    clusterID: bigint,
    prefix: string,
    options: { readonly hasGaps?: boolean } = {},
  ) {
    this.#store = store;
    this.#clusterID = clusterID;
    this.#prefix = prefix;
    this.#hasGaps = options.hasGaps ?? false;
    this.metaKey = `${prefix}meta`;
  }

  /** Index of the last record, or `base` if there are no blocks. */
  get last(): number {
    const block = this.blocks.at(-1);
    return block === undefined ? this.base : lastIn(block);
  }

  /** Size of all blocks, in bytes. */
  get bytes(): number {
    return this.blocks.reduce((sum, { size }) => sum + size, 0);
  }

  /** Range of names of all blocks. */
  get range(): [from: string, to: string] {
    return [`${this.#prefix}b/`, `${this.#prefix}b0`];
  }

  /** Range of names of the blocks before index `first`. */
  rangeBefore(first: number): [from: string, to: string] {
    return [this.range[0], this.#prefix + blockStart(first)];
  }

  /** Name of a block in the store. */
  keyOf(block: BlockName): string {
    return this.#prefix + blockName(block, this.#hasGaps);
  }

  /** Block that holds the log's metadata. */
  meta(meta: LogMeta): Block {
    return { key: this.metaKey, bytes: encodeMeta(this.#clusterID, meta) };
  }

  /**
   * Loads metadata and names from the store, replacing those in memory.
   *
   * @throws ErrStoreCorrupted if the metadata is damaged, or a block is missing
   */
  async load(): Promise<LogMeta> {
    const { metaKey } = this;
    const [bytes] = await this.#store.get([metaKey]);
    const meta: LogMeta = bytes === undefined
      // A copy that starts at index 0 has no metadata before its first epoch.
      ? { base: 0, opened: this.#hasGaps, epochs: [] }
      : decodeMeta(bytes, this.#clusterID, metaKey);
    const loaded = new BlockRun(this.#store, this.#clusterID, this.#prefix, {
      hasGaps: this.#hasGaps,
    });
    loaded.base = meta.base;
    const [start, end] = this.range;
    for (let from = start; from !== "";) {
      const keys = await this.#store.keys(from, end, { limit: NAMES_MAX });
      if (keys.length > 0 && !meta.opened) {
        throw new ErrStoreCorrupted(metaKey, "Metadata of the log is missing");
      }
      if (from === start && bytes !== undefined && keys.length > 0) {
        await this.#checkMeta(bytes, meta, keys[0]!);
      }
      for (const key of keys) loaded.#pushKey(key);
      from = keys.length < NAMES_MAX ? "" : `${keys.at(-1)}~`;
    }
    // Each epoch is written together with the block that begins with it.
    if ((meta.epochs.at(-1)?.index ?? 0) > loaded.last) {
      throw loaded.#missing(loaded.last + 1);
    }
    this.base = meta.base;
    this.blocks = loaded.blocks;
    return meta;
  }

  /** Checks that the metadata are not the first block: one that begins at index 1 can be read as metadata with a base. */
  async #checkMeta(
    bytes: Uint8Array,
    { base }: LogMeta,
    key: string,
  ): Promise<void> {
    if (base === 0 || !key.startsWith(this.#prefix + blockStart(1))) return;
    const [block] = await this.#store.get([key]);
    if (block === undefined || !isSameBytes(block, bytes)) return;
    throw new ErrStoreCorrupted(
      this.metaKey,
      "Metadata of the log is a block of records",
    );
  }

  #pushKey(key: string): void {
    const block = parseBlockName(key.slice(this.#prefix.length), this.#hasGaps);
    if (block === undefined) {
      throw new ErrStoreCorrupted(key, "Name is not that of a log block");
    }
    // Compacted, and not yet deleted.
    if (this.#hasGaps && lastIn(block) <= this.base) return;
    if (block.follows !== this.last) {
      throw this.#hasGaps
        ? new ErrStoreCorrupted(key, MISSING)
        : this.#missing(this.last + 1);
    }
    this.blocks.push(block);
  }

  #missing(first: number): ErrStoreCorrupted {
    return new ErrStoreCorrupted(this.#prefix + blockStart(first), MISSING);
  }

  /** Position of the first block with records after `index`. */
  firstAfter(index: number): number {
    return firstAfter(this.blocks, lastIn, index);
  }

  /**
   * Reads neighbouring blocks, without decoding them.
   *
   * @throws ErrStoreCorrupted if one is missing
   */
  fetch(blocks: readonly BlockName[]): MaybePromise<Block[]> {
    const keys = blocks.map((block) => this.keyOf(block));
    const found = this.#store.list(keys[0]!, `${keys.at(-1)}~`, {
      limit: keys.length,
    });
    return chain(found, (found) => {
      for (const [i, key] of keys.entries()) {
        if (found[i]?.key === key) continue;
        throw new ErrStoreCorrupted(key, MISSING);
      }
      return found;
    });
  }

  /**
   * Reads the batches of neighbouring blocks.
   *
   * @throws ErrStoreCorrupted if a block is missing or damaged
   */
  read(blocks: readonly BlockName[]): MaybePromise<LogBatch[]> {
    return chain(
      this.fetch(blocks),
      (found) =>
        found.flatMap(({ key, bytes }, i) =>
          decodeBlock(bytes, this.#clusterID, key, blocks[i]!)
        ),
    );
  }

  /**
   * Verifies a block of this log, or its metadata.
   *
   * @throws ErrStoreCorrupted if it is damaged, or another block
   */
  verify(block: Block): void {
    const { key, bytes } = block;
    if (key === this.metaKey) this.verifyMeta(block);
    else verifyBlock(bytes, this.#clusterID, key);
  }

  /**
   * Verifies the stored metadata, and returns the base they have: an older one than
   * that of the run if the write of a compaction has failed.
   *
   * @throws ErrStoreCorrupted if they are damaged, or of a later compaction
   */
  verifyMeta({ key, bytes }: Block): number {
    const { base } = decodeMeta(bytes, this.#clusterID, key);
    if (base <= this.base) return base;
    throw new ErrStoreCorrupted(
      key,
      `Metadata of the log say that it starts after ${base}, not ${this.base}`,
    );
  }

  /** Removes the blocks that end at or before `upTo` from the run, not from the store; returns them. */
  compact(upTo: number): BlockName[] {
    const removed = this.blocks.slice(0, this.firstAfter(upTo));
    if (removed.length > 0) {
      this.base = lastIn(removed.at(-1)!);
      this.blocks = this.blocks.slice(removed.length);
    }
    return removed;
  }
}
