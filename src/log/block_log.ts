/**
 * Durable log over a block store.
 *
 * Appends are written by group commit: those that arrive during a write share the
 * next one, as one block in one atomic step, so a log never has a torn end. The name
 * of a block has its indexes, so that opening a log only lists names and finds missing
 * blocks. Checksums are verified whenever a block is read. The newest batches are
 * also in memory, so that replicas that keep up never read from the store.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  checkOptions,
  isBlockStore,
  isEnv,
  isFunction,
  isOneOf,
  isSnapshotStore,
  optional,
  type OptionChecks,
} from "../options.ts";
import { type Env, systemEnv } from "../env.ts";
import {
  LOG_BLOCK_BYTES_MAX,
  LOG_COPY_BYTES,
  LOG_EPOCHS_MAX,
  LOG_READ_AHEAD_BYTES_MAX,
  LOG_TAIL_BYTES,
  LOG_VERIFY_MS,
  STORE_FULL_RETRY_MS,
} from "../limits.ts";
import type { SnapshotStore } from "../snapshot/store.ts";
import { chain, isPromise } from "../async.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import {
  ErrStoreCorrupted,
  ErrStoreLocked,
  ErrStoreVanished,
} from "../store/errors.ts";
import { GroupCommit } from "../store/group_commit.ts";
import type { StoreLease } from "../store/lease.ts";
import { clustersUnder, rangeOf } from "../store/names.ts";
import type { Block, BlockStore, Changes, Durability } from "../store/store.ts";
import { type BlockName, encodeBlock, logPrefix } from "./block.ts";
import { BlockRun, blocksFrom } from "./block_run.ts";
import {
  Batches,
  checkUnused,
  ClusterLog,
  OpenLogs,
  type ReadAhead,
} from "./cluster_log.ts";
import {
  ErrClusterAlreadyExist,
  ErrClusterClosed,
  ErrCompacted,
  ErrUnknownOutcome,
} from "./errors.ts";
import type { Log, LogBatch, LogDB, Records } from "./log.ts";
import type { Epoch } from "./history.ts";
import { batchAfter, epochRecord, lastOf, packRecords } from "./records.ts";

/** Options of {@linkcode BlockLogDB}. */
export interface BlockLogOptions {
  /**
   * Durability of a resolved append: `full` survives a power cut, `normal` the end
   * of the process or browser.
   *
   * @default {"full"}
   */
  readonly durability?: "full" | "normal" | undefined;
  /** Provides random numbers and timers. @default {systemEnv} */
  readonly env?: Env | undefined;
  /** Snapshot store shared by the hosts that share these logs; its creator closes it. */
  readonly snapshots?: SnapshotStore | undefined;
  /**
   * Called before a write, to wait for appends that are about to arrive; called less
   * often while none arrive. Only useful for a store that blocks while it writes.
   */
  readonly gather?: (() => Promise<void>) | undefined;
  /**
   * Sets the timers with which an open log verifies and retries its store; they
   * should not keep the process running. By default those of `env`.
   */
  readonly setTimer?: Env["setTimer"] | undefined;
}

/** Consistent copy of the stored blocks of one log, for a backup. */
export interface LogBackup {
  /** Id of the cluster. */
  readonly clusterID: bigint;
  /** Index of the record before the first one in the copy. */
  readonly base: number;
  /** Index of the last record in the copy. */
  readonly last: number;
  /** Size of all blocks, in bytes. */
  readonly size: number;
  /**
   * Groups of blocks with verified checksums.
   *
   * @throws ErrStoreCorrupted if a block is damaged or missing
   */
  readonly blocks: AsyncGenerator<Block[], void, void>;
  /** Allows the log to be compacted again, which it is not before, unless `blocks` has ended. Idempotent. */
  release(): void;
}

type Options = Pick<BlockLogOptions, "gather"> & {
  readonly durability: Durability;
  readonly env: Env;
  readonly setTimer: Env["setTimer"];
};

/** Overhead of a record, in bytes: an upper bound in a block, an estimate in memory. */
const RECORD_COST = 8;

/** Size of a batch with the overhead of its records, in bytes. */
function costOf({ bytes, ends }: Records): number {
  return bytes.length + ends.length * RECORD_COST;
}

function costOfAll(batches: readonly LogBatch[]): number {
  return batches.reduce((sum, { records }) => sum + costOf(records), 0);
}

/** Log of one cluster in a block store. */
class BlockClusterLog extends ClusterLog {
  readonly #store: BlockStore;
  readonly #clusterID: bigint;
  readonly #options: Options;
  readonly #run: BlockRun;
  readonly #commit: GroupCommit<Records, number>;
  #isOpened = false;
  /** True once this process has written an epoch record. */
  #hasEpoch = false;
  /** Newest batches in memory; blocks that only the store has may lie between two of them. */
  readonly #tail = new Batches();
  #tailBytes = 0;
  /** Set while the outcome of the last write is unknown. */
  #isInDoubt = false;
  /** Set once a block is found damaged or missing: appends are refused, and readers end. */
  #damage: Error | undefined;
  /** Cancels the next test write, while the store rejects writes. */
  #cancelProbe: (() => void) | undefined;

  private constructor(store: BlockStore, clusterID: bigint, options: Options) {
    super();
    this.#store = store;
    this.#clusterID = clusterID;
    this.#options = options;
    this.#run = new BlockRun(store, clusterID, logPrefix(clusterID));
    this.#commit = new GroupCommit({
      write: (group) => this.#write(group),
      sizeOf: costOf,
      bytesMax: LOG_BLOCK_BYTES_MAX,
      gather: options.gather,
      onCommit: () => this.wake(),
    });
  }

  /** Opens the log as it is in the store. */
  static async open(
    store: BlockStore,
    clusterID: bigint,
    options: Options,
  ): Promise<BlockClusterLog> {
    const log = new BlockClusterLog(store, clusterID, options);
    await log.#load();
    return log;
  }

  get last(): number {
    return this.#run.last;
  }

  get first(): number {
    return this.#run.base + 1;
  }

  get isEmpty(): boolean {
    return !this.#isOpened;
  }

  /** True once a block was found damaged or missing. */
  get isDamaged(): boolean {
    return this.#damage !== undefined;
  }

  get bytes(): number {
    return this.#run.bytes;
  }

  /** Reads names and metadata of the blocks from the store. */
  async #load(): Promise<void> {
    const before = this.#run.last;
    const meta = await this.#run.load();
    const { last } = this.#run;
    if (last < before) {
      throw new ErrStoreVanished(
        `Log of cluster ${this.#clusterID} ended at index ${before}, and now ends at ${last}; restore a backup`,
      );
    }
    this.#isOpened = meta.opened;
    this.epochs = [...meta.epochs];
  }

  override settled(): Promise<void> {
    return this.#commit.settled();
  }

  append(records: Records): Promise<number> {
    return this.#commit.add(records);
  }

  /**
   * Refuses further appends and ends all readers if `error` says that a part of the
   * log is damaged or missing: records appended after it could not be recovered.
   */
  damaged(error: unknown): void {
    if (
      this.#damage !== undefined ||
      !(error instanceof ErrStoreCorrupted || error instanceof ErrStoreVanished)
    ) return;
    this.#damage = error;
    this.end();
    this.wake();
  }

  /** Ends the log, since another process may have changed what is stored. */
  leave(error: Error): void {
    this.#damage ??= error;
    this.end();
    this.wake();
  }

  /** Cancels the next test write. */
  end(): void {
    this.#cancelProbe?.();
    this.#cancelProbe = undefined;
  }

  /** Handles a failed write of `size` bytes. */
  #failed(error: unknown, size: number): void {
    this.damaged(error);
    if (this.#damage !== undefined || error instanceof ErrClusterClosed) return;
    this.storage.set(error);
    this.#probeLater(size);
  }

  /** Handles a successful write. */
  #stored(): void {
    if (this.storage.trouble === undefined) return;
    this.end();
    this.storage.set(undefined);
  }

  /** Schedules a test write of as many bytes as failed, since callers that wait for room append nothing themselves. */
  #probeLater(size: number): void {
    if (this.nodes.size === 0) return;
    this.#cancelProbe ??= this.#options.setTimer(() => {
      this.#cancelProbe = undefined;
      // Never rejects: a failed probe is repeated.
      void this.#commit.run(() => this.#probe(size)).catch(() => {});
    }, STORE_FULL_RETRY_MS);
  }

  /** Writes `size` bytes and deletes them: the store has room if that succeeds. */
  async #probe(size: number): Promise<void> {
    if (
      this.storage.trouble === undefined || this.#damage !== undefined ||
      this.nodes.size === 0
    ) return;
    const key = `${logPrefix(this.#clusterID)}room`;
    try {
      await this.#resolveDoubt();
      const bytes = new Uint8Array(size);
      await this.#store.write({ put: [{ key, bytes }] }, "strict");
      await this.#store.write({ delete: [key] }, "relaxed");
      this.#stored();
    } catch (error) {
      this.#failed(error, size);
    }
  }

  /** Writes batches as one block; returns the first index of each. Changes nothing if the write fails. */
  async #write(batches: readonly Records[]): Promise<number[]> {
    if (this.#damage !== undefined) throw this.#damage;
    await this.#resolveDoubt();
    const follows = this.last;
    const first = follows + 1;
    const added = [...batches];
    let epochs = this.epochs;
    if (!this.#hasEpoch) {
      const epoch = this.#options.env.random64();
      added.unshift(packRecords(epochRecord(epoch)));
      epochs = [...epochs, { index: first, id: epoch }];
    }
    const bytes = encodeBlock(this.#clusterID, first, added);
    const count = added.reduce((sum, { ends }) => sum + ends.length, 0);
    const name = { follows, first, count, size: bytes.length };
    const block = { key: this.#run.keyOf(name), bytes };
    await this.#change(
      this.#hasEpoch
        ? { put: [block] }
        // Epochs go into the metadata, so that opening the log need not read its blocks.
        : this.#withMeta(this.#run.base, true, epochs, block),
      this.#options.durability,
    );
    this.epochs = epochs;
    this.#hasEpoch = this.#isOpened = true;
    this.#run.blocks.push(name);
    return this.#push(follows, added).slice(added.length - batches.length);
  }

  /** Adds stored batches after index `follows` to the batches in memory; returns the first index of each. */
  #push(follows: number, batches: readonly Records[]): number[] {
    const firsts = batches.map((records) => {
      const first = follows + 1;
      this.#tail.all.push({ follows, first, records });
      this.#tailBytes += costOf(records);
      follows += records.ends.length;
      return first;
    });
    if (this.#tailBytes > 2 * LOG_TAIL_BYTES) this.#trimTail();
    return firsts;
  }

  /** Removes the oldest batches from memory, down to `LOG_TAIL_BYTES`. */
  #trimTail(): void {
    const { all } = this.#tail;
    let from = all.length;
    for (let size = 0; from > 0 && size < LOG_TAIL_BYTES;) {
      size += costOf(all[--from]!.records);
    }
    this.#tail.all = all.slice(from);
    this.#tailBytes = costOfAll(this.#tail.all);
  }

  /** Changes that write the metadata and `blocks`, and delete the blocks before `base`. */
  #withMeta(
    base: number,
    opened: boolean,
    epochs: readonly Epoch[],
    ...blocks: readonly Block[]
  ): Changes {
    return {
      deleteRanges: [this.#run.rangeBefore(base + 1)],
      put: [this.#run.meta({ base, opened, epochs }), ...blocks],
    };
  }

  /** Writes changes to the store, and handles the outcome. */
  async #change(changes: Changes, durability: Durability): Promise<void> {
    try {
      const written = this.#store.write(changes, durability);
      if (isPromise(written)) await written;
    } catch (error) {
      if (error instanceof ErrUnknownOutcome) this.#isInDoubt = true;
      const { put = [] } = changes;
      this.#failed(
        error,
        put.reduce((sum, { bytes }) => sum + bytes.length, 0),
      );
      throw error;
    }
    this.#stored();
  }

  /** Finds out whether the last write is in the store, if that is unknown. */
  async #resolveDoubt(): Promise<void> {
    if (!this.#isInDoubt) return;
    try {
      await this.#load();
    } catch (error) {
      this.damaged(error);
      throw error;
    }
    this.#isInDoubt = false;
    this.wake();
  }

  batch(after: number, ahead: ReadAhead): MaybePromise<LogBatch | undefined> {
    if (this.#damage !== undefined) throw this.#damage;
    if (after >= this.last) return undefined;
    if (after < this.#run.base) throw new ErrCompacted(this.first);
    return this.#tail.after(after) ?? takeAhead(ahead, after) ??
      this.#readAhead(after, ahead);
  }

  /** Reads the blocks after index `after`, as many as a reader may have in memory. */
  #readAhead(
    after: number,
    ahead: ReadAhead,
  ): MaybePromise<LogBatch | undefined> {
    const run = this.#run;
    const blocks = blocksFrom(
      run.blocks,
      run.firstAfter(after),
      LOG_READ_AHEAD_BYTES_MAX,
    );
    const failed = (error: unknown): never => {
      this.damaged(error);
      throw error;
    };
    try {
      const read = chain(run.read(blocks), (batches) => {
        ahead.batches = batches;
        return takeAhead(ahead, after);
      });
      return isPromise(read) ? read.catch(failed) : read;
    } catch (error) {
      return failed(error);
    }
  }

  compact(upTo: number): Promise<void> {
    return this.#commit.run(async () => {
      await this.#resolveDoubt();
      // No reader may begin before the new base, even if the write fails.
      if (this.#run.compact(this.unneeded(upTo)).length === 0) return;
      const { base } = this.#run;
      this.#tail.compact(base);
      this.#tailBytes = costOfAll(this.#tail.all);
      this.#forgetEpochs();
      await this.#change(this.#withMeta(base, true, this.epochs), "relaxed");
    });
  }

  /** Forgets the oldest epochs before the base: readers start at or after it, and know the last epoch before it, or a later one (H13). */
  #forgetEpochs(): void {
    const later = this.epochs.findIndex(({ index }) => index > this.#run.base);
    const before = later < 0 ? this.epochs.length : later;
    if (before > LOG_EPOCHS_MAX) {
      this.epochs = this.epochs.slice(before - LOG_EPOCHS_MAX);
    }
  }

  /** Copies the stored blocks; they are retained until the copy has been read or released. */
  copy(): Promise<LogBackup> {
    return this.#commit.run(async () => {
      await this.#resolveDoubt();
      const { base, last, bytes: size, blocks, metaKey } = this.#run;
      const [meta] = await this.#store.get([metaKey]);
      const first = meta === undefined ? [] : [{ key: metaKey, bytes: meta }];
      const stored = first.map((block) => this.#run.verifyMeta(block))[0] ?? 0;
      // Only the memory has a compaction whose write has failed.
      if (stored < base) {
        const { epochs } = this;
        first[0] = this.#run.meta({ base, opened: true, epochs });
      }
      const need = { after: base };
      this.needs.add(need);
      const release = (): void => void this.needs.delete(need);
      return {
        clusterID: this.#clusterID,
        base,
        last,
        size,
        blocks: this.#copyBlocks(first, [...blocks], release),
        release,
      };
    });
  }

  async *#copyBlocks(
    first: Block[],
    blocks: readonly BlockName[],
    release: () => void,
  ): AsyncGenerator<Block[], void, void> {
    const run = this.#run;
    try {
      yield first;
      for (let from = 0; from < blocks.length;) {
        const next = blocksFrom(blocks, from, LOG_COPY_BYTES);
        const found = await run.fetch(next);
        for (const block of found) run.verify(block);
        yield found;
        from += next.length;
      }
    } finally {
      release();
    }
  }

  startAt(index: number, epoch: Epoch | undefined): Promise<void> {
    return this.#commit.run(async () => {
      await this.#resolveDoubt();
      if (this.#isOpened) {
        throw new ErrClusterAlreadyExist(
          `Log of cluster ${this.#clusterID} has records up to ${this.last}; remove its data before importing`,
        );
      }
      const epochs = epoch === undefined ? [] : [epoch];
      await this.#change(
        this.#withMeta(index, false, epochs),
        "strict",
      );
      this.#run.base = index;
      this.epochs = epochs;
    });
  }
}

/** Returns the batch after index `after` from the batches read ahead. */
function takeAhead(ahead: ReadAhead, after: number): LogBatch | undefined {
  const { batches } = ahead;
  while (batches.length > 0 && lastOf(batches[0]!) <= after) batches.shift();
  const [next] = batches;
  return next === undefined ? undefined : batchAfter(next, after);
}

/**
 * Durable logs of clusters over a {@linkcode BlockStore}; the base class of
 * `SqliteLogDB` and `IndexedDBLogDB`. Several clusters share one store, and several
 * hosts of a process may share one `BlockLogDB`.
 *
 * A failed append added nothing, and the log continues with the next one; if the
 * store cannot tell, the append fails with `ErrUnknownOutcome`. Reading a damaged
 * or missing block fails with an `ErrStoreCorrupted` that names the block.
 *
 * ```ts
 * import { BlockLogDB } from "./block_log.ts";
 * import { packRecords } from "./mod.ts";
 * import { MemoryBlockStore } from "../store/mod.ts";
 *
 * await using logDB = new BlockLogDB(() => new MemoryBlockStore());
 * const log = await logDB.open(1n, 1n);
 * console.log(await log.append(packRecords(new Uint8Array([1])))); // 2
 * ```
 */
export class BlockLogDB implements LogDB {
  /** Snapshot store shared by the hosts that share these logs, if there is one. */
  readonly snapshots: SnapshotStore | undefined;
  readonly #options: Options;
  readonly #makeStore: (() => BlockStore) | undefined;
  #store: BlockStore | undefined;
  readonly #clusters = new Map<bigint, Promise<BlockClusterLog>>();
  readonly #open = new OpenLogs();
  #cancelVerify: (() => void) | undefined;
  #closing: Promise<void> | undefined;

  /**
   * Creates logs over a store, which the caller closes, or over a function that
   * creates a store, which is closed with the logs.
   */
  constructor(
    store: BlockStore | (() => BlockStore),
    options: BlockLogOptions = {},
  ) {
    const checks: OptionChecks<BlockLogOptions> = {
      durability: optional(isOneOf("full", "normal")),
      env: optional(isEnv),
      snapshots: optional(isSnapshotStore),
      gather: optional(isFunction),
      setTimer: optional(isFunction),
    };
    isBlockStore("Store of the logs", store);
    checkOptions("Options of the logs", options, checks);
    const { durability = "full", env = systemEnv, snapshots, gather } = options;
    const { setTimer } = options;
    if (typeof store === "function") this.#makeStore = store;
    else this.#store = store;
    this.snapshots = snapshots;
    this.#options = {
      durability: durability === "full" ? "strict" : "relaxed",
      env,
      gather,
      setTimer: setTimer ??
        ((callback, delay) => env.setTimer(callback, delay)),
    };
  }

  #check(): void {
    if (this.#closing !== undefined) {
      throw new ErrClusterClosed("BlockLogDB is closed; create another one");
    }
  }

  /**
   * Opens the log of a cluster for one of its replicas.
   *
   * @throws ErrClusterAlreadyExist if that replica has it open already
   * @throws ErrStoreCorrupted if a block of the log is missing, or its metadata is damaged
   * @throws ErrStoreLocked if another process or page has the store open
   * @throws ErrClusterClosed after `close()`
   */
  async open(clusterID: bigint, nodeID: bigint): Promise<Log> {
    this.#check();
    for (;;) {
      const opening = this.#cluster(clusterID);
      const cluster = await opening;
      this.#check();
      // The data may have been removed during the opening.
      if (this.#clusters.get(clusterID) !== opening) continue;
      if (cluster.isDamaged && cluster.nodes.size === 0) {
        // The store may have been repaired since.
        this.#clusters.delete(clusterID);
        continue;
      }
      const log = this.#open.add(cluster, clusterID, nodeID);
      this.#verifyLater();
      return log;
    }
  }

  /**
   * Copies the stored blocks of a log while it is in use: the copy has every append
   * that was made before the call, and no partial one.
   *
   * @throws ErrStoreCorrupted if the log is damaged
   * @throws ErrStoreLocked if another process has the store open
   * @throws ErrClusterClosed after `close()`
   */
  async copy(clusterID: bigint): Promise<LogBackup> {
    this.#check();
    return await (await this.#cluster(clusterID)).copy();
  }

  /** Verifies the store periodically, so that damage is noticed without appends. */
  #verifyLater(): void {
    if (this.#store?.verify === undefined) return;
    this.#cancelVerify ??= this.#options.setTimer(() => {
      this.#cancelVerify = undefined;
      // Never rejects: errors fail the logs.
      void this.#verify();
    }, LOG_VERIFY_MS);
  }

  /** Verifies the store; never rejects. */
  async #verify(): Promise<void> {
    let isOpen = false;
    for (const opening of this.#clusters.values()) {
      const cluster = await opening.catch(() => undefined);
      if (cluster !== undefined && cluster.nodes.size > 0) isOpen = true;
    }
    if (!isOpen || this.#closing !== undefined) return;
    try {
      await this.#store!.verify!();
      this.#verifyLater();
    } catch (error) {
      for (const opening of this.#clusters.values()) {
        (await opening.catch(() => undefined))?.damaged(error);
      }
    }
  }

  /** Shares the logs between processes under a lease. */
  share(lease: StoreLease): void {
    this.#opened().share?.(lease);
    lease.add({
      release: () => {
        for (const [clusterID, opening] of this.#clusters) {
          const error = new ErrStoreLocked(
            `Another process may have changed the log of cluster ${clusterID}: nothing was written`,
          );
          opening.then((cluster) => cluster.leave(error), () => {});
        }
      },
      forget: () => this.#clusters.clear(),
    });
  }

  #opened(): BlockStore {
    return this.#store ??= this.#makeStore!();
  }

  #cluster(clusterID: bigint): Promise<BlockClusterLog> {
    let opening = this.#clusters.get(clusterID);
    if (opening === undefined) {
      const store = this.#opened();
      opening = BlockClusterLog.open(store, clusterID, this.#options);
      this.#clusters.set(clusterID, opening);
      // A failed opening may be repeated.
      opening.catch(() => this.#clusters.delete(clusterID));
    }
    return opening;
  }

  /** Ids of the clusters that have data, in ascending order. */
  async clusters(): Promise<readonly bigint[]> {
    this.#check();
    return await clustersUnder(this.#opened(), "log/");
  }

  /**
   * Removes all data of a cluster's log in one step that survives a power cut.
   *
   * @throws ErrClusterAlreadyExist if a replica has it open
   */
  async removeData(clusterID: bigint): Promise<void> {
    this.#check();
    const opening = this.#clusters.get(clusterID);
    const cluster = await opening?.catch(() => undefined);
    checkUnused(clusterID, cluster?.nodes);
    // The next opening loads an empty log.
    this.#clusters.delete(clusterID);
    await cluster?.settled();
    await this.#opened().write(
      { deleteRanges: [rangeOf(logPrefix(clusterID))] },
      "strict",
    );
  }

  /** Closes every open log after the writes under way; idempotent. */
  close(): Promise<void> {
    return this.#closing ??= this.#end();
  }

  async #end(): Promise<void> {
    this.#cancelVerify?.();
    await this.#open.close();
    for (const opening of this.#clusters.values()) {
      const cluster = await opening.catch(() => undefined);
      await cluster?.settled();
      cluster?.end();
    }
    if (this.#makeStore !== undefined) await this.#store?.close();
  }

  /** Closes every open log. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
