/**
 * Local copy of the newest part of a log on a server, from which a machine in memory
 * starts offline. Received batches are stored in blocks.
 *
 * Indexes may have gaps between blocks, but not within one: the name of a block has
 * the index that it follows. A copy that is damaged, or that does not end where the
 * received records begin, is discarded; the server has its records.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { copyOf } from "../../bytes.ts";
import {
  LOG_EPOCHS_MAX,
  SYNC_COPY_BLOCK_BYTES,
  SYNC_COPY_BLOCK_COST_BYTES,
  SYNC_COPY_BYTES_MAX,
  SYNC_COPY_SNAPSHOT_BYTES,
} from "../../limits.ts";
import { type BlockName, encodeBlock } from "../../log/block.ts";
import { BlockRun, lastIn } from "../../log/block_run.ts";
import { ErrOtherHistory } from "../../log/errors.ts";
import type { LogBatch } from "../../log/log.ts";
import type { Epoch } from "../../log/history.ts";
import { batchAfter, lastOf } from "../../log/records.ts";
import { isPromise } from "../../async.ts";
import { ErrCopyFull } from "../errors.ts";
import { SampanError } from "../../statemachine/errors.ts";
import { ErrStoreCorrupted } from "../../store/errors.ts";
import { rangeOf } from "../../store/names.ts";
import type { Block, BlockStore, Changes } from "../../store/store.ts";
import { epochsIn } from "../../log/epochs.ts";

/** Batch that is not written yet; `done` is called once it is written or discarded. */
interface Pending {
  readonly batch: LogBatch;
  readonly done: () => void;
}

/** Prefix of the block names of all copies. */
export const COPIES = "copy/";

function prefixOf(clusterID: bigint): string {
  return `${COPIES}${clusterID.toString(16).padStart(16, "0")}/`;
}

/** Reader of a copy from an index to its end. */
export interface CopyReader {
  /** Returns the next batch; undefined at the end that the copy had when the reader was created, or where it is damaged. */
  next(): Promise<LogBatch | undefined>;
  /** Releases the records for compaction; idempotent. */
  close(): void;
}

/** Size of a batch in bytes: its records and their lengths. */
function sizeOf({ records: { bytes, ends } }: LogBatch): number {
  return bytes.length + ends.length;
}

/** Copy of the log of one cluster. */
export class LogCopy {
  readonly #store: BlockStore;
  readonly #clusterID: bigint;
  /** Complete blocks; the last block is in `#tail`. */
  readonly #run: BlockRun;
  #last = 0;
  /** Known epochs, oldest first; the first may lie at or before the start of the copy. */
  #epochs: Epoch[] = [];
  /** Last block, which is written again with more batches until it is full. */
  #tail: { block: BlockName | undefined; batches: LogBatch[]; bytes: number } =
    {
      block: undefined,
      batches: [],
      bytes: 0,
    };
  #pending: Pending[] = [];
  /** Size of the copy in bytes. */
  #bytes = 0;
  /** Bytes received since a snapshot was last requested. */
  #bytesSince = 0;
  #snapshotFrom = 0;
  /** Set while the copy has reached its size limit and discards records. */
  #isFull = false;
  /** Set if the next write deletes all blocks in the store. */
  #deletesAll = false;
  #isMetaDirty = false;
  #isWriting = false;
  #writing: Promise<void> | undefined;
  /** Set once a write has failed: records after it would follow a gap. */
  #isBroken = false;
  #error: unknown;
  /** Indexes after which readers and retentions need all records. */
  readonly #retained = new Set<{ after: number }>();

  private constructor(store: BlockStore, clusterID: bigint) {
    this.#store = store;
    this.#clusterID = clusterID;
    this.#run = new BlockRun(store, clusterID, prefixOf(clusterID), {
      hasGaps: true,
    });
  }

  /**
   * Opens the copy that the store has. A damaged one starts empty; one that the
   * platform cannot read is left as it is and not used, so that the replica starts
   * from the server.
   *
   * @throws what the store throws of its own accord, for example `ErrStoreLocked`
   */
  static async open(store: BlockStore, clusterID: bigint): Promise<LogCopy> {
    const copy = new LogCopy(store, clusterID);
    try {
      await copy.#load();
    } catch (error) {
      copy.#readFailed(error);
    }
    return copy;
  }

  /** Discards a copy that is damaged, and ceases to use one that cannot be read. Rethrows other errors of the store. */
  #readFailed(error: unknown): void {
    if (error instanceof ErrStoreCorrupted) {
      this.#restart(this.#run.base, this.epochAt(this.#run.base));
    } else if (error instanceof SampanError) throw error;
    else this.leave();
    this.#error = error;
  }

  /** Removes the copy of a cluster, which must not be open. */
  static async remove(store: BlockStore, clusterID: bigint): Promise<void> {
    await store.write(
      { deleteRanges: [rangeOf(prefixOf(clusterID))] },
      "strict",
    );
  }

  /** First index of the copy, or the next one if it is empty. */
  get first(): number {
    return this.#run.base + 1;
  }

  /** Size of the copy in bytes. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Index of the last record. */
  get last(): number {
    return this.#last;
  }

  /** Reason why the copy was discarded or is no longer written; undefined otherwise. */
  get error(): unknown {
    return this.#error;
  }

  /** Index at which a snapshot is needed, so that the copy can be compacted; 0 if none is. */
  get snapshotFrom(): number {
    return this.#snapshotFrom;
  }

  /** True if the copy has the records after `after`, up to its end. */
  has(after: number): boolean {
    return !this.#isBroken && after >= this.#run.base && after <= this.#last;
  }

  /** Returns the last epoch at or before index `after`, if it is known. */
  epochAt(after: number): Epoch | undefined {
    return this.#epochs.findLast(({ index }) => index <= after);
  }

  /** Throws `ErrOtherHistory` if `epoch` is known to be that of another log (H13). */
  check(after: number, epoch: Epoch | undefined): void {
    const known = this.epochAt(after);
    if (epoch === undefined || known === undefined) return;
    if (known.index === epoch.index && known.id === epoch.id) return;
    throw new ErrOtherHistory(
      `Copy of the log does not have epoch ${epoch.id} at ${epoch.index}`,
      { upTo: epoch.index, known: { index: after, epoch } },
    );
  }

  /** Retains the records after `after` until they are released. */
  retain(after: number): { after: number; release(): void } {
    const retention = {
      after,
      release: (): void => void this.#retained.delete(retention),
    };
    this.#retained.add(retention);
    return retention;
  }

  async #load(): Promise<void> {
    const { epochs } = await this.#run.load();
    for (const block of this.#run.blocks) {
      const size = SYNC_COPY_BLOCK_COST_BYTES + block.size;
      this.#bytes += size;
      this.#count(size, lastIn(block));
    }
    this.#epochs = [...epochs];
    this.#last = this.#run.last;
  }

  /** Adds a batch that was received; `epoch` is the last one before it. `done` is called once it is written or discarded. */
  add(batch: LogBatch, epoch: Epoch | undefined, done: () => void): void {
    const last = lastOf(batch);
    const isKnown = batch.follows >= this.#run.base && last <= this.#last;
    if (isKnown || this.#isBroken) return done();
    // A batch that does not follow the copy restarts it.
    const next = this.has(batch.follows) && batch.first <= this.#last
      ? batchAfter(batch, this.#last)
      : batch;
    const size = sizeOf(next);
    this.#count(size, last);
    if (this.#isFull) return done();
    if (next.follows !== this.#last) this.#restart(next.follows, epoch);
    else if (this.#bytes + size > SYNC_COPY_BYTES_MAX) {
      this.#isFull = true;
      this.#error = new ErrCopyFull(
        `Copy of the log ends at index ${this.#last}: its ${this.#bytes} bytes have reached the limit of ${SYNC_COPY_BYTES_MAX}; the next snapshot frees it`,
      );
      return done();
    }
    this.#bytes += size;
    this.#last = last;
    this.#addEpochs(next);
    this.#pending.push({ batch: next, done });
    this.#write();
  }

  /** Counts received bytes, and requests a snapshot after each `SYNC_COPY_SNAPSHOT_BYTES`. */
  #count(size: number, last: number): void {
    this.#bytesSince += size;
    if (this.#bytesSince < SYNC_COPY_SNAPSHOT_BYTES) return;
    this.#bytesSince = 0;
    this.#snapshotFrom = last;
  }

  #addEpochs(batch: LogBatch): void {
    const epochs = epochsIn(batch);
    if (epochs.length === 0) return;
    this.#epochs.push(...epochs);
    this.#isMetaDirty = true;
  }

  /** Discards the copy and starts it again after index `base`; `epoch` is the last one at or before it. */
  #restart(base: number, epoch: Epoch | undefined): void {
    this.#run.base = this.#last = base;
    this.#epochs = epoch === undefined ? [] : [epoch];
    this.#run.blocks = [];
    this.#tail = { block: undefined, batches: [], bytes: 0 };
    this.#bytes = 0;
    for (const { done } of this.#pending.splice(0)) done();
    this.#deletesAll = this.#isMetaDirty = true;
  }

  #write(): void {
    if (this.#isWriting) return;
    this.#isWriting = true;
    this.#writing = this.#writeAll();
  }

  /** Writes all pending batches; never rejects. */
  async #writeAll(): Promise<void> {
    while (this.#pending.length > 0 || this.#isMetaDirty) {
      if (this.#isBroken) break;
      const pending = this.#pending.splice(0);
      const changes = this.#changes(pending.map(({ batch }) => batch));
      try {
        const written = this.#store.write(changes, "relaxed");
        if (isPromise(written)) await written;
      } catch (error) {
        // The stored copy ends before this batch, and a start may use it; no later
        // record may be added to it.
        this.#error = error;
        this.#isBroken = true;
        this.#isMetaDirty = false;
        for (const { done } of this.#pending.splice(0)) done();
      }
      for (const { done } of pending) done();
    }
    this.#isWriting = false;
  }

  /** Adds batches to the last block, and to others once it is full; returns the changes of the store. */
  #changes(batches: readonly LogBatch[]): Changes {
    const put: Block[] = [];
    const remove: string[] = [];
    const deleteRanges: [string, string][] = [];
    if (this.#deletesAll) {
      deleteRanges.push(this.#run.range);
      this.#deletesAll = false;
    }
    const putTail = (): void => {
      const { block, batches } = this.#tail;
      if (batches.length === 0) return;
      const stored = this.#blockOf(batches);
      const key = this.#run.keyOf(stored);
      const before = block && this.#run.keyOf(block);
      if (key === before) return;
      if (before !== undefined) remove.push(before);
      const bytes = encodeBlock(
        this.#clusterID,
        stored.first,
        batches.map(({ records }) => records),
      );
      put.push({ key, bytes });
      this.#tail.block = stored;
    };
    for (const batch of batches) {
      const { batches, bytes } = this.#tail;
      const before = batches.at(-1);
      if (
        before !== undefined &&
        (batch.first !== lastOf(before) + 1 || bytes >= SYNC_COPY_BLOCK_BYTES)
      ) {
        putTail();
        this.#run.blocks.push(this.#tail.block!);
        this.#tail = { block: undefined, batches: [], bytes: 0 };
      }
      if (this.#tail.batches.length === 0) {
        this.#bytes += SYNC_COPY_BLOCK_COST_BYTES;
      }
      this.#tail.batches.push(batch);
      this.#tail.bytes += sizeOf(batch);
    }
    putTail();
    if (this.#isMetaDirty) put.push(this.#meta());
    return { deleteRanges, delete: remove, put };
  }

  #meta(): Block {
    this.#isMetaDirty = false;
    if (this.#epochs.length > LOG_EPOCHS_MAX) {
      this.#epochs = this.#epochs.slice(-LOG_EPOCHS_MAX);
    }
    return this.#run.meta({
      base: this.#run.base,
      opened: true,
      epochs: this.#epochs,
    });
  }

  #blockOf(batches: readonly LogBatch[]): BlockName {
    const { follows, first } = batches[0]!;
    const count = lastOf(batches.at(-1)!) - first + 1;
    // Not the size of the encoded block: counted like the batches in memory.
    const size = this.#tail.bytes;
    return { follows, first, count, size };
  }

  /** Creates a reader of the records after `after`, up to the present end. */
  read(after: number): CopyReader {
    const upTo = this.#last;
    const retention = this.retain(after);
    let ahead: LogBatch[] = [];
    const next = async (): Promise<LogBatch | undefined> => {
      while (retention.after < upTo) {
        const batch = ahead.shift();
        if (batch === undefined) {
          ahead = await this.#batches(retention.after);
          if (ahead.length === 0) return undefined;
        } else if (lastOf(batch) > retention.after) {
          const part = batch.follows < retention.after
            ? batchAfter(batch, retention.after)
            : batch;
          if (part.follows !== retention.after) return undefined;
          retention.after = lastOf(part);
          return part;
        }
      }
      return undefined;
    };
    return { next, close: () => retention.release() };
  }

  /** Reads the batches of the block after index `after`; none if it was compacted, or is damaged, which discards the copy. */
  async #batches(after: number): Promise<LogBatch[]> {
    const { blocks } = this.#run;
    const block = blocks[this.#run.firstAfter(after)];
    if (block === undefined) {
      // Copied: a machine that changes the bytes of its commands must not change
      // batches that are not written yet.
      return [...this.#tail.batches, ...this.#pending.map((p) => p.batch)]
        .map((batch) => {
          const { bytes, ends } = batch.records;
          return { ...batch, records: { bytes: copyOf(bytes), ends } };
        });
    }
    await this.settled();
    if (!this.#run.blocks.includes(block)) return [];
    try {
      return await this.#run.read([block]);
    } catch (error) {
      // It may have been compacted or restarted while it was read.
      if (this.#run.blocks.includes(block) && !this.#isBroken) {
        this.#readFailed(error);
        this.#write();
      }
      return [];
    }
  }

  /** Removes the records up to `upTo` that no reader or retention needs (H7). */
  async compact(upTo: number): Promise<void> {
    for (const { after } of this.#retained) upTo = Math.min(upTo, after);
    if (this.#isFull && upTo >= this.#last) {
      // A snapshot covers the whole copy, and the next batch restarts it.
      this.#isFull = false;
      this.#error = undefined;
    }
    if (this.#isBroken) return;
    const removed = this.#run.compact(upTo);
    const last = removed.at(-1);
    if (last === undefined) return;
    for (const { size } of removed) {
      this.#bytes -= SYNC_COPY_BLOCK_COST_BYTES + size;
    }
    const before = this.#epochs.findLastIndex(({ index }) =>
      index <= this.#run.base
    );
    this.#epochs = this.#epochs.slice(Math.max(0, before));
    await this.#store.write({
      deleteRanges: [[this.#run.range[0], `${this.#run.keyOf(last)}~`]],
      put: [this.#meta()],
    }, "relaxed");
  }

  /** Neither reads nor writes the stored copy any more. */
  leave(): void {
    this.#isBroken = true;
    this.#isMetaDirty = false;
    for (const { done } of this.#pending.splice(0)) done();
  }

  /** Waits for the writes under way. */
  async settled(): Promise<void> {
    while (this.#isWriting) await this.#writing;
  }
}
