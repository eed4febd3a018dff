/**
 * Write-ahead log of a packed store, with the directory and the head block that
 * name what the store consists of.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { PACKED_FLUSH_BYTES, PACKED_LOG_BLOCK_BYTES } from "../../limits.ts";
import type { Block, BlockStore, Durability } from "../../store/store.ts";
import { viewOf } from "../view.ts";
import {
  BASE,
  beginBlock,
  corrupted,
  endBlock,
  HEAD,
  LOG,
  readBlock,
} from "./block.ts";
import {
  Directory,
  type DirectoryEntry,
  type Install,
  readInstalls,
  writeInstalls,
} from "./directory.ts";
import type { BlockKeys, KeyRange } from "./keys.ts";
import type { PageBlocks } from "./page_blocks.ts";
import type { Table } from "./table.ts";

/** Record of the log. */
interface LogRecord {
  readonly seq: number;
  readonly bytes: number;
}

/** Row changes of a record: its block, and the offset at which they start. */
export interface RecordChanges {
  readonly seq: number;
  readonly view: DataView;
  readonly at: number;
}

/** Stored state as of its last write. */
export interface StoredState {
  readonly meta: Uint8Array;
  /** True if the last write survives a power failure. */
  readonly durable: boolean;
  /** Row changes of the records, oldest first. */
  readonly changes: readonly RecordChanges[];
}

/** Records of changes since pages were written, and the directory of pages. */
export class WriteAheadLog {
  directory: Directory;
  /** Number of the last record made. */
  seq = 0;
  /** Size of the records, in bytes. */
  bytes = 0;
  /** Set once head and base are in the store. */
  isCreated = false;
  readonly #store: BlockStore;
  readonly #keys: BlockKeys;
  readonly #blocks: PageBlocks;
  /** Records in the store, oldest first. */
  #records: LogRecord[] = [];
  /** Record as of which the directory was written; -1 if it was not. */
  #base = -1;
  /** Size of that directory block, in bytes. */
  #baseBytes = 0;

  constructor(store: BlockStore, keys: BlockKeys, blocks: PageBlocks) {
    this.#store = store;
    this.#keys = keys;
    this.#blocks = blocks;
    this.directory = this.#newDirectory();
  }

  #newDirectory(): Directory {
    return new Directory((ref) => this.#blocks.discard(ref));
  }

  /**
   * Reads directory and records, given head and base block.
   *
   * @throws ErrStoreCorrupted if a block is missing or damaged
   */
  async open(
    head: Uint8Array | undefined,
    base: Uint8Array | undefined,
  ): Promise<StoredState> {
    const keys = this.#keys;
    let first = 0;
    let meta: Uint8Array | undefined;
    let durable = false;
    readBlock(keys.head, HEAD, head, (r) => {
      durable = r.u8() === 1;
      this.seq = r.varint();
      first = r.varint();
      this.#base = r.varint();
      this.#blocks.nextID = r.varint();
      meta = r.raw(r.remaining).slice();
    });
    readBlock(keys.base, BASE, base, (r) => {
      if (r.varint() !== this.#base) throw corrupted(keys.base);
      this.directory.read(r);
    });
    this.isCreated = true;
    // Not from the start of the log: browsers may scan deleted keys.
    const blocks = await this.#store.list(keys.log(first), keys.logs[1]);
    return { meta: meta!, durable, changes: this.#read(first, blocks) };
  }

  /** Applies the directory changes of the log; returns its row changes. */
  #read(first: number, blocks: readonly Block[]): RecordChanges[] {
    const changes: RecordChanges[] = [];
    for (let seq = first; seq <= this.seq; seq++) {
      const key = this.#keys.log(seq);
      const block = blocks[seq - first];
      const found = block?.key === key ? block.bytes : undefined;
      readBlock(key, LOG, found, (r) => {
        if (r.varint() !== seq) throw corrupted(key);
        for (const install of readInstalls(r)) {
          if (seq > this.#base) this.directory.install(install);
        }
        changes.push({ seq, view: viewOf(found!), at: r.offset });
      });
      this.#addRecord(seq, found!.length);
    }
    if (blocks.length > changes.length) {
      throw corrupted(
        blocks.at(-1)!.key,
        "Record is beyond the end of the log",
      );
    }
    return changes;
  }

  #addRecord(seq: number, size: number): void {
    const bytes = size + PACKED_LOG_BLOCK_BYTES;
    this.#records.push({ seq, bytes });
    this.bytes += bytes;
  }

  /** Adds log records of changes of the directory and of the pending rows of the table, which it clears. */
  putRecords(
    put: Block[],
    table: Table,
    installs: readonly Install[],
  ): void {
    const log = table.log.finish();
    let from = 0;
    let first = installs;
    for (const to of [...table.recordEnds, log.length]) {
      const seq = ++this.seq;
      const w = beginBlock(LOG, to - from + 1024).varint(seq);
      writeInstalls(w, first);
      const bytes = endBlock(w.raw(log.subarray(from, to)).finish());
      put.push({ key: this.#keys.log(seq), bytes });
      this.#addRecord(seq, bytes.length);
      first = [];
      from = to;
    }
    table.clearLog();
    table.next = this.seq + 1;
  }

  /**
   * Returns the range of records before `keep` that are no longer needed;
   * writes the directory if they contain changes of it.
   */
  trim(keep: number, put: Block[]): KeyRange[] {
    const records = this.#records;
    let count = 0;
    let bytes = 0;
    for (const record of records) {
      if (record.seq >= keep) break;
      if (record.seq > this.#base) bytes += record.bytes;
      count++;
    }
    if (
      this.#base < 0 ||
      bytes > Math.max(PACKED_FLUSH_BYTES / 2, this.#baseBytes)
    ) {
      this.#putBase(put);
    } else {
      const end = records.findIndex(({ seq }) => seq > this.#base);
      if (end >= 0) count = Math.min(count, end);
    }
    const gone = records.splice(0, count);
    for (const { bytes } of gone) this.bytes -= bytes;
    if (gone.length === 0) return [];
    const keys = this.#keys;
    return [[keys.log(gone[0]!.seq), keys.log(gone.at(-1)!.seq + 1)]];
  }

  #putBase(put: Block[]): void {
    const w = beginBlock(BASE).varint(this.seq);
    this.directory.write(w);
    const bytes = endBlock(w.finish());
    put.push({ key: this.#keys.base, bytes });
    this.#base = this.seq;
    this.#baseBytes = bytes.length;
  }

  /** Adds the head block. */
  putHead(put: Block[], meta: Uint8Array, durability: Durability): void {
    const first = this.#records[0]?.seq ?? this.seq + 1;
    const strict = durability === "strict" ? 1 : 0;
    const w = beginBlock(HEAD).u8(strict).varint(this.seq).varint(first)
      .varint(this.#base).varint(this.#blocks.nextID).raw(meta);
    put.push({ key: this.#keys.head, bytes: endBlock(w.finish()) });
  }

  /** Adds an empty head and base if there are none: before the first record there may already be pages. */
  putFirstHead(put: Block[]): void {
    if (this.isCreated) return;
    const base = beginBlock(BASE).varint(0);
    new Directory(() => {}).write(base);
    const head = beginBlock(HEAD).u8(0).varint(0).varint(1).varint(0).varint(1);
    put.push({ key: this.#keys.base, bytes: endBlock(base.finish()) });
    put.push({ key: this.#keys.head, bytes: endBlock(head.finish()) });
  }

  /**
   * Starts a log without records over another directory, whose blocks it adds.
   * Returns a function that undoes this if they are not written.
   */
  restart(
    spaces: readonly (readonly DirectoryEntry[])[],
    put: Block[],
    meta: Uint8Array,
    durability: Durability,
  ): () => void {
    const old = this.directory;
    const base = this.#base;
    const baseBytes = this.#baseBytes;
    const records = this.#records;
    const { seq, bytes } = this;
    this.directory = this.#newDirectory();
    this.directory.replace(spaces);
    this.seq++;
    this.#putBase(put);
    this.#records = [];
    this.bytes = 0;
    this.putHead(put, meta, durability);
    return () => {
      this.directory = old;
      this.#base = base;
      this.#baseBytes = baseBytes;
      this.#records = records;
      this.seq = seq;
      this.bytes = bytes;
    };
  }
}
