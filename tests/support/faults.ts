/**
 * Logs and snapshot stores in memory that fail on request.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  ErrUnknownOutcome,
  type MaybePromise,
  MemoryLogDB,
  MemorySnapshotStore,
} from "../../mod.ts";
import type {
  Log,
  LogBatch,
  LogDB,
  LogReader,
  ReadOptions,
  Records,
  Retention,
  SnapshotHeader,
  SnapshotInfo,
  SnapshotSink,
  SnapshotStore,
  SnapshotTotals,
} from "../../src/ports/mod.ts";
import type { Env } from "../../src/env.ts";
import { flipByte } from "./streams.ts";

/** Fault of one append. */
export type AppendFault =
  /** Fails; nothing was appended. */
  | "fail"
  /** Fails with an unknown outcome after the batch was committed. */
  | "committed"
  /** Fails with an unknown outcome; nothing was appended. */
  | "lost"
  /** Commits the batch twice. */
  | "twice"
  | undefined;

/** Faults of a log, which a test may change at any time. */
export class LogFaults {
  /** Chooses the fault of each append; a promise delays it and those after it. */
  append: (records: Records, nodeID: bigint) => MaybePromise<AppendFault> =
    () => undefined;
  /** Changes each batch that is read; undefined skips it. */
  batch: (batch: LogBatch, nodeID: bigint) => LogBatch | undefined = (batch) =>
    batch;
  /** Set to have appends return promises. */
  slow = false;
  /** Called by `readIndex()`: fails or delays it. */
  readIndex: (nodeID: bigint) => MaybePromise<void> = () => {};
  /** Called by `read()`, with its signal: delays it. */
  read: (nodeID: bigint, signal?: AbortSignal) => Promise<void> | undefined =
    () => undefined;
  /** Called by `verify()`: fails or delays it. */
  verify: (nodeID: bigint) => MaybePromise<void> = () => {};
  /** Called before a log is closed. */
  close: (nodeID: bigint) => MaybePromise<void> = () => {};
  /** Called by `isEmpty()`. */
  isEmpty: () => MaybePromise<void> = () => {};
  readonly #broken = new Set<bigint>();
  readonly #readers = new Map<bigint, Set<(error: Error) => void>>();

  /** Fails every read of a replica until `mend()`. */
  break(nodeID: bigint): void {
    this.#broken.add(nodeID);
    const waiting = this.#readers.get(nodeID);
    this.#readers.delete(nodeID);
    for (const fail of waiting ?? []) {
      fail(new Error("ECONNRESET: connection lost"));
    }
  }

  /** Ends `break()`. */
  mend(nodeID: bigint): void {
    this.#broken.delete(nodeID);
  }

  check(nodeID: bigint): void {
    if (this.#broken.has(nodeID)) {
      throw new Error("ECONNRESET: connection lost");
    }
  }

  /** Calls `fail` when reads of the replica break. */
  watch(nodeID: bigint, fail: (error: Error) => void): () => void {
    let readers = this.#readers.get(nodeID);
    if (readers === undefined) this.#readers.set(nodeID, readers = new Set());
    readers.add(fail);
    return () => readers.delete(fail);
  }
}

class FaultyReader implements LogReader {
  readonly #inner: LogReader;
  readonly #faults: LogFaults;
  readonly #nodeID: bigint;

  constructor(inner: LogReader, faults: LogFaults, nodeID: bigint) {
    this.#inner = inner;
    this.#faults = faults;
    this.#nodeID = nodeID;
  }

  get lastAtStart(): number {
    return this.#inner.lastAtStart;
  }

  next(): MaybePromise<LogBatch> {
    this.#faults.check(this.#nodeID);
    const batch = this.#inner.next();
    return batch instanceof Promise ? this.#wait(batch) : this.#pass(batch);
  }

  #pass(batch: LogBatch): MaybePromise<LogBatch> {
    const { batch: change } = this.#faults;
    return change(batch, this.#nodeID) ?? this.next();
  }

  #wait(batch: Promise<LogBatch>): Promise<LogBatch> {
    return new Promise((resolve, reject) => {
      const end = this.#faults.watch(this.#nodeID, reject);
      batch.then((batch) => resolve(this.#pass(batch))).catch(reject)
        .finally(end);
    });
  }

  close(): void {
    this.#inner.close();
  }
}

class FaultyLog implements Log {
  readonly #inner: Log;
  readonly #faults: LogFaults;
  readonly #nodeID: bigint;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(inner: Log, faults: LogFaults, nodeID: bigint) {
    this.#inner = inner;
    this.#faults = faults;
    this.#nodeID = nodeID;
  }

  verify(): MaybePromise<void> {
    return this.#faults.verify(this.#nodeID);
  }

  append(records: Records): MaybePromise<number> {
    const fault = this.#faults.append(records, this.#nodeID);
    if (!this.#faults.slow && !(fault instanceof Promise)) {
      return this.#append(records, fault);
    }
    const appended = this.#turn.then(async () =>
      await this.#append(records, await fault)
    );
    this.#turn = appended.catch(() => {});
    return appended;
  }

  #append(records: Records, fault: AppendFault): MaybePromise<number> {
    if (fault === "fail") throw new Error("append() failed");
    if (fault === "lost") throw new ErrUnknownOutcome("append() got no answer");
    const index = this.#inner.append(records);
    if (fault === "twice") this.#inner.append(records);
    if (fault === "committed") {
      throw new ErrUnknownOutcome("append() got no answer");
    }
    return index;
  }

  read(after: number, options?: ReadOptions): MaybePromise<LogReader> {
    this.#faults.check(this.#nodeID);
    const read = (): LogReader => {
      const inner = this.#inner.read(after, options) as LogReader;
      return new FaultyReader(inner, this.#faults, this.#nodeID);
    };
    const delay = this.#faults.read(this.#nodeID, options?.signal);
    return delay === undefined ? read() : delay.then(read);
  }

  readIndex(): MaybePromise<number> {
    const fault = this.#faults.readIndex(this.#nodeID);
    return fault instanceof Promise
      ? fault.then(() => this.#inner.readIndex())
      : this.#inner.readIndex();
  }

  retain(after: number): Retention {
    return this.#inner.retain(after);
  }

  compact(upTo: number): MaybePromise<void> {
    return this.#inner.compact!(upTo);
  }

  startAt(
    index: number,
    epoch: Parameters<Log["startAt"]>[1],
  ): MaybePromise<void> {
    return this.#inner.startAt(index, epoch);
  }

  isEmpty(): MaybePromise<boolean> {
    const fault = this.#faults.isEmpty();
    return fault instanceof Promise
      ? fault.then(() => this.#inner.isEmpty())
      : this.#inner.isEmpty();
  }

  get checkpoints(): Log["checkpoints"] {
    return this.#inner.checkpoints;
  }

  async close(): Promise<void> {
    try {
      await this.#faults.close(this.#nodeID);
    } finally {
      await this.#inner.close();
    }
  }
}

/** Log in memory with faults. */
export class FaultyLogDB implements LogDB {
  readonly faults: LogFaults = new LogFaults();
  readonly inner: MemoryLogDB;
  readonly snapshots: SnapshotStore | undefined;

  constructor(
    options: { env?: Env; snapshots?: SnapshotStore | "none" } = {},
  ) {
    this.inner = new MemoryLogDB(options.env ? { env: options.env } : {});
    const { snapshots = this.inner.snapshots } = options;
    this.snapshots = snapshots === "none" ? undefined : snapshots;
  }

  async open(clusterID: bigint, nodeID: bigint): Promise<Log> {
    const log = await this.inner.open(clusterID, nodeID);
    return new FaultyLog(log, this.faults, nodeID);
  }

  close(): Promise<void> {
    return this.inner.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Snapshot store in memory with faults. */
export class FaultySnapshotStore<
  S extends SnapshotStore = MemorySnapshotStore,
> implements SnapshotStore {
  readonly inner: S;
  /** Called at the start of each step ("create", "write", "commit", "list", "open", "remove"): may throw, delay or hang. */
  before: (
    step: string,
    info?: SnapshotHeader,
  ) => MaybePromise<void> = () => {};
  /** Selects the snapshots that are read with one byte changed. */
  damaged: (info: SnapshotInfo) => boolean = () => false;

  constructor(inner?: S) {
    this.inner = inner ?? new MemorySnapshotStore() as SnapshotStore as S;
  }

  async create(
    header: SnapshotHeader,
    options?: { readonly imported?: boolean },
  ): Promise<SnapshotSink> {
    await this.before("create", header);
    const sink = await this.inner.create(header, options);
    const writer = sink.writable.getWriter();
    let controller!: WritableStreamDefaultController;
    const writable = new WritableStream<Uint8Array>({
      start: (c) => void (controller = c),
      write: async (chunk) => {
        await this.before("write", header);
        await writer.write(chunk);
      },
      close: () => writer.close(),
      abort: (reason) => writer.abort(reason),
    });
    return {
      writable,
      commit: async (totals: SnapshotTotals) => {
        await this.before("commit", header);
        return await sink.commit(totals);
      },
      abort: async (reason) => {
        controller.error(reason);
        await sink.abort(reason);
      },
    };
  }

  async list(clusterID: bigint): Promise<readonly SnapshotInfo[]> {
    await this.before("list");
    return await this.inner.list(clusterID);
  }

  async open(info: SnapshotInfo): Promise<ReadableStream<Uint8Array>> {
    await this.before("open", info);
    const stream = await this.inner.open(info);
    return this.damaged(info)
      ? stream.pipeThrough(flipByte(info.size >> 1))
      : stream;
  }

  async remove(info: SnapshotInfo): Promise<void> {
    await this.before("remove", info);
    await this.inner.remove(info);
  }

  close(): Promise<void> {
    return this.inner.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
