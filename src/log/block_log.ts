/**
 * The durable log: records in blocks, over whatever keeps blocks.
 *
 * What storage is paid for is the write, not the byte. So what is appended while
 * a write is under way shares the next one: one block, in one atomic step, for
 * all of it. Since a write is whole or not there, a log never has a torn end;
 * since the name of a block tells which indexes it holds, opening a log reads
 * its names alone and sees whether one is missing. A block is checked whenever
 * it is read. What was appended last is in memory too, so that replicas which
 * keep up never read.
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
import { isPromise } from "../async.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import { ErrStoreCorrupted, ErrStoreVanished } from "../store/errors.ts";
import { clustersUnder, rangeOf } from "../store/names.ts";
import type { Block, BlockStore, Changes, Durability } from "../store/store.ts";
import {
  type BlockName,
  blockName,
  blockStart,
  decodeBlock,
  decodeMeta,
  encodeBlock,
  encodeMeta,
  type LogMeta,
  logPrefix,
  parseBlockName,
  verifyBlock,
} from "./block.ts";
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
import type { EpochMark, Log, LogBatch, LogDB, Records } from "./log.ts";
import { batchAfter, epochRecord, lastOf, packRecords } from "./records.ts";

/** What a {@linkcode BlockLogDB} takes besides its store. */
export interface BlockLogOptions {
  /**
   * What an append that is answered survives: `full` a power cut, `normal` a
   * process or browser that is killed.
   *
   * @default {"full"}
   */
  readonly durability?: "full" | "normal" | undefined;
  /** Gives the random numbers of its epochs. */
  readonly env?: Env | undefined;
  /** Where the hosts that share these logs share their snapshots; whoever made it closes it. */
  readonly snapshots?: SnapshotStore | undefined;
  /**
   * Waits, before a write, for others that are about to append; not called each
   * time where there are none. A store that writes while others run needs none:
   * they share the next write.
   */
  readonly gather?: (() => Promise<void>) | undefined;
  /**
   * Sets the timers by which an open log looks after its store; a program that has
   * nothing else to do should not be kept running by them. By default those of `env`.
   */
  readonly setTimer?: Env["setTimer"] | undefined;
}

/** The stored blocks of one log as of one moment, for a backup. */
export interface LogCopy {
  /** The cluster whose log it is. */
  readonly clusterID: bigint;
  /** Index of the last record before the first one in the copy. */
  readonly base: number;
  /** Index of the last record in the copy. */
  readonly last: number;
  /** Size of all blocks, in bytes. */
  readonly size: number;
  /**
   * The blocks, some at a time, each with its checksum verified. The log is not
   * compacted until they have been read to the end or given up.
   *
   * @throws ErrStoreCorrupted if a block is damaged or missing
   */
  readonly blocks: AsyncGenerator<Block[], void, void>;
}

type Options = Pick<BlockLogOptions, "gather"> & {
  readonly durability: Durability;
  readonly env: Env;
  readonly setTimer: Env["setTimer"];
};

/** An append that waits for its write. */
interface Waiting {
  readonly records: Records;
  resolve(first: number): void;
  reject(reason: unknown): void;
}

/** How many names of blocks are read at once, and how many blocks. */
const NAMES_MAX = 4096;
const BLOCKS_MAX = 256;

/** After so many writes that nobody has joined, one in so many waits for others. */
const ALONE_MAX = 8;

/** What a record costs beyond its bytes, in bytes: in a block at most, and in memory about. */
const RECORD_COST = 8;

function costOf({ bytes, ends }: Records): number {
  return bytes.length + ends.length * RECORD_COST;
}

function costOfAll(batches: readonly LogBatch[]): number {
  return batches.reduce((sum, { records }) => sum + costOf(records), 0);
}

class BlockClusterLog extends ClusterLog {
  readonly #store: BlockStore;
  readonly #clusterID: bigint;
  readonly #prefix: string;
  readonly #options: Options;
  /** The blocks there are, each following the one before it. */
  #blocks: BlockName[] = [];
  #base = 0;
  #last = 0;
  #isOpened = false;
  /** Whether this life of the log has its epoch. */
  #hasEpoch = false;
  /** What was appended last. There may be something between two of these that only the store has. */
  readonly #tail = new Batches();
  #tailBytes = 0;
  /** Appends that are not being written yet. */
  #waiting: Waiting[] = [];
  #isFlushing = false;
  /** How many writes one after the other nobody has joined. */
  #alone = 0;
  /** Whether the last write may or may not be in the store. */
  #isInDoubt = false;
  /** Set once a part of it did not read back: it takes no more appends, and its readers end. */
  #damage: Error | undefined;
  /** Ends the wait before the next try to write, while nothing can be stored. */
  #cancelProbe: (() => void) | undefined;
  /** Settles once all that changes the store, one after the other, is done. */
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(store: BlockStore, clusterID: bigint, options: Options) {
    super();
    this.#store = store;
    this.#clusterID = clusterID;
    this.#prefix = logPrefix(clusterID);
    this.#options = options;
  }

  /** The log as the store has it. */
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
    return this.#last;
  }

  get first(): number {
    return this.#base + 1;
  }

  get isEmpty(): boolean {
    return !this.#isOpened;
  }

  /** True once a part of it did not read back. */
  get isDamaged(): boolean {
    return this.#damage !== undefined;
  }

  get bytes(): number {
    return this.#blocks.reduce((sum, { size }) => sum + size, 0);
  }

  get #metaKey(): string {
    return `${this.#prefix}meta`;
  }

  #keyOf(block: BlockName): string {
    return this.#prefix + blockName(block);
  }

  async #load(): Promise<void> {
    const [bytes] = await this.#store.get([this.#metaKey]);
    const meta: LogMeta = bytes === undefined
      ? { base: 0, opened: false, marks: [] }
      : decodeMeta(bytes, this.#clusterID, this.#metaKey);
    const blocks: BlockName[] = [];
    let last = meta.base;
    let from = `${this.#prefix}b/`;
    while (from !== "") {
      const keys = await this.#store.keys(from, `${this.#prefix}b0`, {
        limit: NAMES_MAX,
      });
      for (const key of keys) {
        const block = this.#checkName(key, last, meta);
        blocks.push(block);
        last += block.count;
      }
      from = keys.length < NAMES_MAX ? "" : `${keys.at(-1)}~`;
    }
    if (last < this.#last) {
      throw new ErrStoreVanished(
        `Log ended at ${this.#last}, and now at ${last}`,
      );
    }
    this.#base = meta.base;
    this.#isOpened = meta.opened;
    this.marks = [...meta.marks];
    this.#blocks = blocks;
    this.#last = last;
  }

  /** What a name says, if it follows index `last`. */
  #checkName(key: string, last: number, meta: LogMeta): BlockName {
    if (!meta.opened) {
      throw new ErrStoreCorrupted(this.#metaKey, "Head of the log is missing");
    }
    const block = parseBlockName(key.slice(this.#prefix.length));
    if (block === undefined) {
      throw new ErrStoreCorrupted(key, "Name is none of a block of the log");
    }
    if (block.first !== last + 1) {
      throw new ErrStoreCorrupted(
        this.#prefix + blockStart(last + 1),
        "Block of the log is missing",
      );
    }
    return block;
  }

  /** Does something once what is under way is done, and before what comes. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => {});
    return done;
  }

  override async settled(): Promise<void> {
    for (let turn: unknown; turn !== this.#turn;) await (turn = this.#turn);
  }

  append(records: Records): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ records, resolve, reject });
      this.#flushLater();
    });
  }

  #flushLater(): void {
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    // Never rejects: the appends that it was for reject.
    void this.#inTurn(() => this.#flush());
  }

  /** Writes what waits, as much of it as one block may hold; never throws. */
  async #flush(): Promise<void> {
    await this.#gather();
    this.#isFlushing = false;
    const group = this.#takeGroup();
    if (this.#waiting.length > 0) this.#flushLater();
    let firsts: number[];
    try {
      firsts = await this.#write(group.map(({ records }) => records));
    } catch (error) {
      for (const { reject } of group) reject(error);
      return;
    }
    for (const [i, { resolve }] of group.entries()) resolve(firsts[i]!);
    this.wake();
  }

  /** Lets those join who are about to append; seldom, where nobody did for a while. */
  async #gather(): Promise<void> {
    const { gather } = this.#options;
    if (gather === undefined) return;
    if (this.#alone > ALONE_MAX && ++this.#alone % ALONE_MAX !== 0) return;
    const { length } = this.#waiting;
    await gather();
    this.#alone = this.#waiting.length > length ? 0 : this.#alone + 1;
  }

  #takeGroup(): Waiting[] {
    const waiting = this.#waiting;
    let count = 0;
    for (let size = 0; count < waiting.length; count++) {
      size += costOf(waiting[count]!.records);
      if (count > 0 && size > LOG_BLOCK_BYTES_MAX) break;
    }
    this.#waiting = waiting.slice(count);
    return waiting.slice(0, count);
  }

  /**
   * Takes no more appends, and ends all readers, if `error` says that a part of the
   * log is damaged or gone: what would be added would be lost with it.
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

  /** Stops trying to write. */
  end(): void {
    this.#cancelProbe?.();
    this.#cancelProbe = undefined;
  }

  /** Takes in that a write of `size` bytes has failed. */
  #failed(error: unknown, size: number): void {
    this.damaged(error);
    if (this.#damage !== undefined || error instanceof ErrClusterClosed) return;
    this.storage.set(error);
    this.#probeLater(size);
  }

  /** Takes in that a write has succeeded. */
  #stored(): void {
    if (this.storage.trouble === undefined) return;
    this.end();
    this.storage.set(undefined);
  }

  /** Tries later whether as much as what found no room can be stored: those who wait for that may append nothing. */
  #probeLater(size: number): void {
    if (this.nodes.size === 0) return;
    this.#cancelProbe ??= this.#options.setTimer(() => {
      this.#cancelProbe = undefined;
      // Never rejects: what fails is tried again.
      void this.#inTurn(() => this.#probe(size)).catch(() => {});
    }, STORE_FULL_RETRY_MS);
  }

  async #probe(size: number): Promise<void> {
    if (
      this.storage.trouble === undefined || this.#damage !== undefined ||
      this.nodes.size === 0
    ) return;
    const key = `${this.#prefix}room`;
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

  /** Writes batches as one block; returns the first index of each. Nothing is different if that fails. */
  async #write(batches: readonly Records[]): Promise<number[]> {
    if (this.#damage !== undefined) throw this.#damage;
    await this.#resolveDoubt();
    const first = this.#last + 1;
    const added = [...batches];
    let marks = this.marks;
    if (!this.#hasEpoch) {
      const epoch = this.#options.env.random64();
      added.unshift(packRecords(epochRecord(epoch)));
      marks = [...marks, { index: first, epoch }];
    }
    const bytes = encodeBlock(this.#clusterID, first, added);
    const count = added.reduce((sum, { ends }) => sum + ends.length, 0);
    const name = { first, count, size: bytes.length };
    const block = { key: this.#keyOf(name), bytes };
    await this.#change(
      this.#hasEpoch
        ? { put: [block] }
        // Opening the log must not have to look for its epochs in all its blocks.
        : this.#headed({ base: this.#base, opened: true, marks }, block),
      this.#options.durability,
    );
    this.marks = marks;
    this.#hasEpoch = this.#isOpened = true;
    this.#blocks.push(name);
    return this.#push(added).slice(added.length - batches.length);
  }

  /** Takes in batches that are in the store; returns the first index of each. */
  #push(batches: readonly Records[]): number[] {
    const firsts = batches.map((records) => {
      const follows = this.#last;
      this.#last += records.ends.length;
      this.#tail.all.push({ follows, first: follows + 1, records });
      this.#tailBytes += costOf(records);
      return follows + 1;
    });
    if (this.#tailBytes > 2 * LOG_TAIL_BYTES) this.#trimTail();
    return firsts;
  }

  #trimTail(): void {
    const { all } = this.#tail;
    let from = all.length;
    for (let size = 0; from > 0 && size < LOG_TAIL_BYTES;) {
      size += costOf(all[--from]!.records);
    }
    this.#tail.all = all.slice(from);
    this.#tailBytes = costOfAll(this.#tail.all);
  }

  /** The changes that write the head of the log, and of its blocks leave none from before it. */
  #headed(meta: LogMeta, ...blocks: readonly Block[]): Changes {
    const bytes = encodeMeta(this.#clusterID, meta);
    return {
      deleteRanges: [[
        `${this.#prefix}b/`,
        this.#prefix + blockStart(meta.base + 1),
      ]],
      put: [{ key: this.#metaKey, bytes }, ...blocks],
    };
  }

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

  /** Looks whether what was written last is in the store, if that is not known. */
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
    if (after >= this.#last) return undefined;
    if (after < this.#base) throw new ErrCompacted(this.first);
    return this.#tail.after(after) ?? takeAhead(ahead, after) ??
      this.#readAhead(after, ahead);
  }

  /** Reads the blocks that come after index `after`, as much of them as a reader may have at hand. */
  #readAhead(
    after: number,
    ahead: ReadAhead,
  ): MaybePromise<LogBatch | undefined> {
    const from = this.#firstBlockAfter(after);
    let upTo = from;
    for (
      let size = 0;
      upTo < this.#blocks.length && upTo < from + BLOCKS_MAX &&
      size < LOG_READ_AHEAD_BYTES_MAX;
      upTo++
    ) size += this.#blocks[upTo]!.size;
    const wanted = this.#blocks.slice(from, upTo);
    const take = (found: readonly Block[]): LogBatch | undefined => {
      ahead.batches = [];
      for (const [i, name] of wanted.entries()) {
        const key = this.#keyOf(name);
        if (found[i]?.key !== key) {
          throw new ErrStoreCorrupted(key, "Block of the log is missing");
        }
        const { bytes } = found[i]!;
        for (const batch of decodeBlock(bytes, this.#clusterID, key, name)) {
          ahead.batches.push(batch);
        }
      }
      return takeAhead(ahead, after);
    };
    const failed = (error: unknown): never => {
      this.damaged(error);
      throw error;
    };
    try {
      const found = this.#store.list(
        this.#keyOf(wanted[0]!),
        `${this.#keyOf(wanted.at(-1)!)}~`,
        { limit: wanted.length },
      );
      return isPromise(found) ? found.then(take).catch(failed) : take(found);
    } catch (error) {
      return failed(error);
    }
  }

  /** The place of the first block with something after index `after`. */
  #firstBlockAfter(after: number): number {
    let low = 0;
    let high = this.#blocks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const { first, count } = this.#blocks[middle]!;
      if (first + count - 1 > after) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  compact(upTo: number): Promise<void> {
    return this.#inTurn(async () => {
      await this.#resolveDoubt();
      const count = this.#firstBlockAfter(this.unneeded(upTo));
      if (count === 0) return;
      const { first, count: records } = this.#blocks[count - 1]!;
      // From now on nobody begins to read there, whatever becomes of the write.
      this.#base = first + records - 1;
      this.#blocks = this.#blocks.slice(count);
      this.#tail.cut(this.#base);
      this.#tailBytes = costOfAll(this.#tail.all);
      this.#forgetEpochs();
      const { marks } = this;
      await this.#change(
        this.#headed({ base: this.#base, opened: true, marks }),
        "relaxed",
      );
    });
  }

  /** Whoever reads from the start or later knows the last epoch before it, or one after that (H13). */
  #forgetEpochs(): void {
    const later = this.marks.findIndex(({ index }) => index > this.#base);
    const before = later < 0 ? this.marks.length : later;
    if (before > LOG_EPOCHS_MAX) {
      this.marks = this.marks.slice(before - LOG_EPOCHS_MAX);
    }
  }

  /** The stored blocks as of now. They are retained until the copy has been read or given up. */
  copy(): Promise<LogCopy> {
    return this.#inTurn(async () => {
      await this.#resolveDoubt();
      const [meta] = await this.#store.get([this.#metaKey]);
      const need = { after: this.#base };
      this.needs.add(need);
      const names = [...this.#blocks];
      const head = meta === undefined
        ? []
        : [{ key: this.#metaKey, bytes: meta }];
      return {
        clusterID: this.#clusterID,
        base: this.#base,
        last: this.#last,
        size: names.reduce((sum, { size }) => sum + size, 0),
        blocks: this.#copied(head, names, () => this.needs.delete(need)),
      };
    });
  }

  async *#copied(
    head: Block[],
    names: readonly BlockName[],
    release: () => void,
  ): AsyncGenerator<Block[], void, void> {
    try {
      for (const { key, bytes } of head) {
        verifyBlock(bytes, this.#clusterID, key);
      }
      yield head;
      for (let from = 0; from < names.length;) {
        let upTo = from;
        for (
          let size = 0;
          upTo < names.length && size < LOG_COPY_BYTES;
          upTo++
        ) size += names[upTo]!.size;
        const wanted = names.slice(from, upTo).map((name) => this.#keyOf(name));
        const found = await this.#store.list(
          wanted[0]!,
          `${wanted.at(-1)!}~`,
          { limit: wanted.length },
        );
        for (const [i, key] of wanted.entries()) {
          if (found[i]?.key !== key) {
            throw new ErrStoreCorrupted(key, "Block of the log is missing");
          }
          verifyBlock(found[i].bytes, this.#clusterID, key);
        }
        yield found;
        from = upTo;
      }
    } finally {
      release();
    }
  }

  startAt(index: number, mark: EpochMark | undefined): Promise<void> {
    return this.#inTurn(async () => {
      await this.#resolveDoubt();
      if (this.#isOpened) {
        throw new ErrClusterAlreadyExist("Log of the cluster is not empty");
      }
      const marks = mark === undefined ? [] : [mark];
      await this.#change(
        this.#headed({ base: index, opened: false, marks }),
        "strict",
      );
      this.#base = this.#last = index;
      this.marks = marks;
    });
  }
}

/** The batch after index `after`, if a reader has it at hand. */
function takeAhead(ahead: ReadAhead, after: number): LogBatch | undefined {
  const { batches } = ahead;
  while (batches.length > 0 && lastOf(batches[0]!) <= after) batches.shift();
  const [next] = batches;
  return next === undefined ? undefined : batchAfter(next, after);
}

/**
 * Logs of clusters in blocks, over a {@linkcode BlockStore}: the one durable log
 * of this library, which `SqliteLogDB` and `IndexedDBLogDB` are by other names.
 * Several clusters share one store, and several hosts of one process one of these.
 *
 * An append that fails added nothing, and the log goes on with the next; only
 * where the store cannot tell is it `ErrUnknownOutcome`. What is read is checked:
 * a block that is damaged or missing is `ErrStoreCorrupted` that names it.
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
  /** Where the hosts that share these logs share their snapshots, if there is such a place. */
  readonly snapshots: SnapshotStore | undefined;
  readonly #options: Options;
  readonly #makeStore: (() => BlockStore) | undefined;
  #store: BlockStore | undefined;
  readonly #clusters = new Map<bigint, Promise<BlockClusterLog>>();
  readonly #open = new OpenLogs();
  #cancelVerify: (() => void) | undefined;
  #closing: Promise<void> | undefined;

  /** Logs over a store, which stays open when they are closed, or over one that is made for them and closed with them. */
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
      throw new ErrClusterClosed("LogDB is closed");
    }
  }

  /**
   * Opens the log of a cluster for one of its replicas.
   *
   * @throws ErrClusterAlreadyExist if that replica has it open already
   * @throws ErrStoreCorrupted if a block of the log is missing, or its head is damaged
   * @throws ErrStoreLocked if somebody else has the store open
   * @throws ErrClusterClosed after `close()`
   */
  async open(clusterID: bigint, nodeID: bigint): Promise<Log> {
    this.#check();
    for (;;) {
      const opening = this.#cluster(clusterID);
      const cluster = await opening;
      this.#check();
      // Its data may have been removed while it was being opened.
      if (this.#clusters.get(clusterID) !== opening) continue;
      if (cluster.isDamaged && cluster.nodes.size === 0) {
        // It may have been repaired.
        this.#clusters.delete(clusterID);
        continue;
      }
      const log = this.#open.add(cluster, clusterID, nodeID);
      this.#verifyLater();
      return log;
    }
  }

  /**
   * The stored blocks of a log as of now, while the log goes on: what was
   * appended before the call is in the copy, and nothing is half in it.
   *
   * @throws ErrStoreCorrupted if the log is damaged
   * @throws ErrStoreLocked if another process has the store open
   * @throws ErrClusterClosed after `close()`
   */
  async copy(clusterID: bigint): Promise<LogCopy> {
    this.#check();
    return await (await this.#cluster(clusterID)).copy();
  }

  /** Looks from time to time whether the store is still in place: a log to which nothing is added finds out, too. */
  #verifyLater(): void {
    if (this.#store?.verify === undefined) return;
    this.#cancelVerify ??= this.#options.setTimer(() => {
      this.#cancelVerify = undefined;
      // Never rejects: what it finds fails the logs.
      void this.#verify();
    }, LOG_VERIFY_MS);
  }

  /** Never rejects. */
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

  #opened(): BlockStore {
    return this.#store ??= this.#makeStore!();
  }

  #cluster(clusterID: bigint): Promise<BlockClusterLog> {
    let opening = this.#clusters.get(clusterID);
    if (opening === undefined) {
      const store = this.#opened();
      opening = BlockClusterLog.open(store, clusterID, this.#options);
      this.#clusters.set(clusterID, opening);
      // It may be tried again.
      opening.catch(() => this.#clusters.delete(clusterID));
    }
    return opening;
  }

  /** Clusters of which something is kept, in order of their ids. */
  async clusters(): Promise<readonly bigint[]> {
    this.#check();
    return await clustersUnder(this.#opened(), "log/");
  }

  /**
   * Removes all that is kept of the log of a cluster, in one step that survives
   * a power cut.
   *
   * @throws ErrClusterAlreadyExist if a replica has it open
   */
  async removeData(clusterID: bigint): Promise<void> {
    this.#check();
    const opening = this.#clusters.get(clusterID);
    const cluster = await opening?.catch(() => undefined);
    checkUnused(clusterID, cluster);
    // From now on an opening loads what is left: nothing.
    this.#clusters.delete(clusterID);
    await cluster?.settled();
    await this.#opened().write(
      { deleteRanges: [rangeOf(logPrefix(clusterID))] },
      "strict",
    );
  }

  /** Closes every open log, after what is under way; idempotent. */
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

  /** As `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
