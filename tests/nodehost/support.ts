/**
 * What the tests of the host share: machines of the three kinds that remember
 * what was asked of them and fail where they are told to, logs and stores that
 * fail on request, and a world whose time a test turns by hand.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import {
  type Checkpoint,
  type Entry,
  ErrUnknownOutcome,
  type HostEvent,
  type HostRow,
  type HostState,
  type IConcurrentStateMachine,
  type IHash,
  type IHostState,
  type IOnDiskStateMachine,
  type ISnapshotFileCollection,
  type IStateMachine,
  type Log,
  type LogBatch,
  type LogDB,
  type LogReader,
  type MaybePromise,
  MemoryLogDB,
  MemorySnapshotStore,
  NodeHost,
  type NodeHostOptions,
  type ReadOptions,
  type Records,
  type Replica,
  type ReplicaConfig,
  type Result,
  type Retention,
  type SnapshotFile,
  type SnapshotHeader,
  type SnapshotInfo,
  type SnapshotSink,
  type SnapshotStore,
  type SnapshotTotals,
} from "../../mod.ts";
import { type Env, systemEnv } from "../../src/env.ts";

/** The bytes of a text. */
export function bytes(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}

/** The text of bytes. */
export function text(bytes: Uint8Array | undefined): string {
  return new TextDecoder().decode(bytes);
}

// ---------------------------------------------------------------- the world

const unhandled: unknown[] = [];
/** What machines saw that the contract forbids. */
export const violations: string[] = [];

globalThis.addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  unhandled.push(event.reason);
});

/** A test that also fails when a rejection was left unhandled, or a machine was called against the rules. */
export function checked(run: () => Promise<void>): () => Promise<void> {
  return async () => {
    unhandled.length = violations.length = 0;
    await run();
    // Rejections are reported after the event loop had a turn.
    await settle();
    assertEquals(unhandled.splice(0), []);
    assertEquals(violations.splice(0), []);
  };
}

/** Waits until everything that needs no timer has happened. */
export async function settle(turns = 3): Promise<void> {
  for (let i = 0; i < turns; i++) await systemEnv.turn();
}

/** What a promise settles with within a few turns, or "pending". */
export async function peek<T>(
  promise: Promise<T>,
): Promise<{ value: T } | { error: unknown } | "pending"> {
  let state: { value: T } | { error: unknown } | "pending" = "pending";
  promise.then((value) => state = { value }, (error) => state = { error });
  await settle();
  return state;
}

/** What a promise is rejected with; fails if it is not. */
export async function rejection(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("Was not rejected");
}

/** A small generator of 32-bit numbers (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6D2B79F5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  };
}

/** A world whose time goes on only when a test says so. */
export class ManualEnv implements Env {
  readonly #random: () => number;
  readonly #timers = new Set<{ at: number; callback: () => void }>();
  #now = 0;

  constructor(seed = 1) {
    this.#random = randomOf(seed);
  }

  now(): number {
    return this.#now;
  }

  random64(): bigint {
    return BigInt(this.#random()) << 32n | BigInt(this.#random());
  }

  setTimer(callback: () => void, delay: number): () => void {
    const timer = { at: this.#now + delay, callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  turn(): Promise<void> {
    return Promise.resolve();
  }

  /** How many timers wait. */
  get timers(): number {
    return this.#timers.size;
  }

  /** Lets time pass, and what happens in it happen. */
  async advance(ms: number): Promise<void> {
    const until = this.#now + ms;
    await settle(1);
    for (;;) {
      let next: { at: number; callback: () => void } | undefined;
      for (const timer of this.#timers) {
        if (timer.at <= until && !(next && next.at <= timer.at)) next = timer;
      }
      if (next === undefined) break;
      this.#timers.delete(next);
      this.#now = Math.max(this.#now, next.at);
      next.callback();
      await settle(1);
    }
    this.#now = until;
  }

  /** Has the clock go on while nothing happens, as when a process was suspended. */
  jump(ms: number): void {
    this.#now += ms;
  }

  /** Lets time pass until a promise has settled. */
  async until<T>(promise: Promise<T>, step = 10_000): Promise<T> {
    let done = false;
    const end = (): void => {
      done = true;
    };
    promise.then(end, end);
    await settle();
    for (let i = 0; !done && i < 1000; i++) await this.advance(step);
    if (!done) throw new Error("Did not settle however long it took");
    return await promise;
  }
}

/** A promise that never settles. */
export function never<T>(): Promise<T> {
  return new Promise(() => {});
}

/** A promise, and what opens it. */
export class Gate {
  #open!: () => void;
  readonly opened: Promise<void> = new Promise((resolve) =>
    this.#open = resolve
  );

  open(): void {
    this.#open();
  }
}

// ------------------------------------------------------------- the machines

/** What a machine is made to do wrong. */
export interface Manners {
  /** Called at the start of each method: may throw, or return a promise, also one that never settles. */
  before?(method: string, machine: Journal): MaybePromise<void>;
  /** Called with each command before it is applied: may throw. */
  apply?(command: string): void;
  /** Replaces what a method returns. */
  result?(method: string, value: unknown, machine: Journal): unknown;
  /** Reason of a result that is a refusal; without it the machine refuses nothing. */
  refusal?(result: Result): string | undefined;
  /** Files to add to each snapshot. */
  addFiles?(files: ISnapshotFileCollection): void;
  /** Bytes of filling in each snapshot, so that it does not fit into a stream's queue. */
  filling?: number;
}

/** What all machines of the tests are: the list of the commands they applied, in order. */
export class Journal {
  list: string[] = [];
  readonly calls: string[] = [];
  readonly files: { fileID: bigint; metadata: string }[] = [];
  readonly manners: Manners;
  readonly ids: readonly [bigint, bigint];
  closed = false;
  refusal?: (result: Result) => string | undefined;

  constructor(manners: Manners, clusterID: bigint, nodeID: bigint) {
    this.manners = manners;
    this.ids = [clusterID, nodeID];
    if (manners.refusal !== undefined) this.refusal = manners.refusal;
  }

  /** Notes a call, and lets the test have its way with it. */
  call<T>(method: string, work: () => T): MaybePromise<T> {
    this.calls.push(method);
    if (this.closed && !(method === "lookup" && this instanceof DiskJournal)) {
      violations.push(`${method} after close`);
    }
    if (method === "close") this.closed = true;
    const { manners } = this;
    const run = (): T => {
      const value = work();
      return manners.result === undefined
        ? value
        : manners.result(method, value, this) as T;
    };
    const before = manners.before?.(method, this);
    return before instanceof Promise ? before.then(run) : run();
  }

  apply(cmd: Uint8Array): Result {
    const command = text(cmd);
    this.manners.apply?.(command);
    this.list.push(command);
    return { value: BigInt(this.list.length), data: bytes(command) };
  }

  answer(query: unknown): unknown {
    if (typeof query === "number") throw new TypeError(`Number ${query}`);
    return query === "count" ? this.list.length : [...this.list];
  }

  hash(): bigint {
    let hash = 14695981039346656037n;
    for (const byte of bytes(this.list.join("\n"))) {
      hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 1099511628211n);
    }
    return hash;
  }

  async write(
    w: WritableStream<Uint8Array>,
    list: readonly string[],
  ): Promise<void> {
    const writer = w.getWriter();
    await writer.write(bytes(JSON.stringify(list) + "\n"));
    for (let left = this.manners.filling ?? 0; left > 0; left -= 65_536) {
      await writer.write(new Uint8Array(Math.min(left, 65_536)).fill(32));
    }
    writer.releaseLock();
  }

  async readAll(r: ReadableStream<Uint8Array>): Promise<string[]> {
    return JSON.parse(await new Response(r as BodyInit).text()) as string[];
  }
}

/** A regular machine. */
export class RegularJournal extends Journal implements IStateMachine, IHash {
  update(cmd: Uint8Array): MaybePromise<Result> {
    return this.call("update", () => this.apply(cmd));
  }
  lookup(query: unknown): MaybePromise<unknown> {
    return this.call("lookup", () => this.answer(query));
  }
  getHash(): MaybePromise<bigint> {
    return this.call("getHash", () => this.hash());
  }
  async saveSnapshot(
    w: WritableStream<Uint8Array>,
    files: ISnapshotFileCollection,
    stopped: AbortSignal,
  ): Promise<void> {
    const list = await this.call("saveSnapshot", () => [...this.list]);
    stopped.throwIfAborted();
    this.manners.addFiles?.(files);
    await this.write(w, list);
  }
  async recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    files: readonly SnapshotFile[],
  ): Promise<void> {
    await this.call("recoverFromSnapshot", () => {});
    this.list = await this.readAll(r);
    for (const { fileID, metadata } of files) {
      this.files.push({ fileID, metadata: text(metadata) });
    }
  }
  close(): MaybePromise<void> {
    return this.call("close", () => {});
  }
}

/** A concurrent machine. */
export class ConcurrentJournal extends Journal
  implements IConcurrentStateMachine, IHash {
  /** Contexts prepared and not saved yet (C5). */
  readonly contexts: Set<readonly string[]> = new Set();

  update(entries: Entry[]): MaybePromise<Entry[]> {
    return this.call("update", () => {
      for (const entry of entries) entry.result = this.apply(entry.cmd);
      return entries;
    });
  }
  lookup(query: unknown): MaybePromise<unknown> {
    return this.call("lookup", () => this.answer(query));
  }
  getHash(): MaybePromise<bigint> {
    return this.call("getHash", () => this.hash());
  }
  prepareSnapshot(): MaybePromise<unknown> {
    return this.call("prepareSnapshot", () => {
      const context = [...this.list];
      this.contexts.add(context);
      return context;
    });
  }
  async saveSnapshot(
    context: unknown,
    w: WritableStream<Uint8Array>,
    files: ISnapshotFileCollection,
    stopped: AbortSignal,
  ): Promise<void> {
    if (!this.contexts.delete(context as string[])) {
      violations.push("saveSnapshot twice for a context");
    }
    await this.call("saveSnapshot", () => {});
    stopped.throwIfAborted();
    this.manners.addFiles?.(files);
    await this.write(w, context as string[]);
  }
  async recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    files: readonly SnapshotFile[],
  ): Promise<void> {
    await this.call("recoverFromSnapshot", () => {});
    this.list = await this.readAll(r);
    for (const { fileID, metadata } of files) {
      this.files.push({ fileID, metadata: text(metadata) });
    }
  }
  close(): MaybePromise<void> {
    return this.call("close", () => {});
  }
}

interface Step {
  readonly index: number;
  readonly list: readonly string[];
  readonly rows: ReadonlyMap<string, Uint8Array>;
}

const EMPTY: Step = { index: 0, list: [], rows: new Map() };

/** A disk in memory: what was written since the last sync may be lost in a crash, but only from the end. */
export class Disk {
  #steps: Step[] = [EMPTY];

  get newest(): Step {
    return this.#steps.at(-1)!;
  }

  write(step: Step): void {
    this.#steps.push(step);
  }

  sync(): void {
    this.#steps = [this.newest];
  }

  /** Loses some of what was not synced: all of it, or as much as `random` says. */
  crash(random: () => number = () => 0): void {
    this.#steps = [this.#steps[random() % this.#steps.length]!];
  }

  /** Its files are deleted. */
  erase(): void {
    this.#steps = [EMPTY];
  }

  /** What is durable, to be restored later. */
  backup(): () => void {
    const steps = [this.newest];
    return () => this.#steps = [...steps];
  }
}

/** An on-disk machine. */
export class DiskJournal extends Journal implements IOnDiskStateMachine, IHash {
  readonly disk: Disk;
  readonly contexts: Set<readonly string[]> = new Set();
  rows: Map<string, Uint8Array> = new Map();
  #opened = 0;

  constructor(
    disk: Disk,
    manners: Manners,
    clusterID: bigint,
    nodeID: bigint,
  ) {
    super(manners, clusterID, nodeID);
    this.disk = disk;
  }

  async open(_stopped: AbortSignal): Promise<number> {
    return await this.call("open", () => {
      // What is found when opening is there for good.
      this.disk.sync();
      const { index, list, rows } = this.disk.newest;
      this.list = [...list];
      this.rows = new Map(rows);
      return this.#opened = index;
    });
  }

  store(index: number): void {
    this.disk.write({ index, list: [...this.list], rows: new Map(this.rows) });
  }

  applyEntries(entries: Entry[]): void {
    for (const entry of entries) {
      if (entry.index <= this.#opened) {
        violations.push(`entry ${entry.index} is in the machine already`);
      }
      this.#opened = entry.index;
      entry.result = this.apply(entry.cmd);
    }
  }

  update(entries: Entry[]): MaybePromise<Entry[]> {
    return this.call("update", () => {
      this.applyEntries(entries);
      this.store(entries.at(-1)!.index);
      return entries;
    });
  }
  lookup(query: unknown): MaybePromise<unknown> {
    return this.call("lookup", () => this.answer(query));
  }
  getHash(): MaybePromise<bigint> {
    return this.call("getHash", () => this.hash());
  }
  sync(): MaybePromise<void> {
    return this.call("sync", () => this.disk.sync());
  }
  prepareSnapshot(): MaybePromise<unknown> {
    return this.call("prepareSnapshot", () => {
      const context = [...this.list];
      this.contexts.add(context);
      return context;
    });
  }
  async saveSnapshot(
    context: unknown,
    w: WritableStream<Uint8Array>,
    stopped: AbortSignal,
  ): Promise<void> {
    if (!this.contexts.delete(context as string[])) {
      violations.push("saveSnapshot twice for a context");
    }
    await this.call("saveSnapshot", () => {});
    stopped.throwIfAborted();
    await this.write(w, context as string[]);
  }
  async recoverFromSnapshot(r: ReadableStream<Uint8Array>): Promise<void> {
    await this.call("recoverFromSnapshot", () => {});
    this.list = await this.readAll(r);
    this.disk.write({ index: this.#opened, list: this.list, rows: new Map() });
  }
  /** The index a recovery is to leave behind. */
  recovered(index: number): void {
    this.#opened = index;
    this.store(index);
  }
  close(): MaybePromise<void> {
    return this.call("close", () => {});
  }
}

/**
 * An on-disk machine whose payload holds its index, as one without the host's
 * rows needs: it is not told the index otherwise.
 */
export class PlainDiskJournal extends DiskJournal {
  override async write(
    w: WritableStream<Uint8Array>,
    list: readonly string[],
  ): Promise<void> {
    await super.write(w, [`${this.saved}`, ...list]);
  }

  /** Index as of the last `prepareSnapshot()`. */
  saved = 0;

  override prepareSnapshot(): MaybePromise<unknown> {
    this.saved = this.disk.newest.index;
    return super.prepareSnapshot();
  }

  override async recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
  ): Promise<void> {
    await this.call("recoverFromSnapshot", () => {});
    const [index, ...list] = await this.readAll(r);
    this.list = list;
    this.recovered(Number(index));
  }
}

/** An on-disk machine that keeps the host's rows. */
export class HostedDiskJournal extends DiskJournal implements IHostState {
  readHostRows(): readonly HostRow[] {
    return [...this.rows].map(([key, value]) => ({ key, value }));
  }

  #keep({ index, rows }: HostState): void {
    for (const { key, value } of rows) {
      if (value === undefined) this.rows.delete(key);
      else this.rows.set(key, value.slice());
    }
    this.store(index);
  }

  updateWithHost(
    entries: Entry[],
    host: () => HostState,
  ): MaybePromise<Entry[]> {
    return this.call("update", () => {
      this.applyEntries(entries);
      this.#keep(host());
      return entries;
    });
  }

  async recoverWithHost(
    r: ReadableStream<Uint8Array>,
    host: HostState,
  ): Promise<void> {
    await this.call("recoverFromSnapshot", () => {});
    this.list = await this.readAll(r);
    this.rows.clear();
    this.#keep(host);
    this.recovered(host.index);
  }
}

// ------------------------------------------------------------------ the log

/** What becomes of an append. */
export type AppendFault =
  /** It fails, and nothing was added. */
  | "fail"
  /** It fails after it was committed. */
  | "committed"
  /** It fails, nothing was added, and nobody can know that. */
  | "lost"
  /** Its batch is committed twice. */
  | "twice"
  | undefined;

/** How a log misbehaves; a test sets what it wants at any time. */
export class LogFaults {
  /** Decides on each append; a promise delays it, and those behind it. */
  append: (records: Records, nodeID: bigint) => MaybePromise<AppendFault> =
    () => undefined;
  /** Changes each batch that is read; undefined skips it. */
  batch: (batch: LogBatch, nodeID: bigint) => LogBatch | undefined = (batch) =>
    batch;
  /** Whether appends are promises. */
  slow = false;
  /** Fails `readIndex()`, when set. */
  readIndex: (nodeID: bigint) => MaybePromise<void> = () => {};
  /** Called by `verify()`: fails it, or delays it. */
  verify: (nodeID: bigint) => MaybePromise<void> = () => {};
  /** Called before a log is closed. */
  close: (nodeID: bigint) => MaybePromise<void> = () => {};
  /** Called by `isEmpty()`. */
  isEmpty: () => MaybePromise<void> = () => {};
  readonly #broken = new Set<bigint>();
  readonly #readers = new Map<bigint, Set<(error: Error) => void>>();

  /** Cuts a replica off from reading, until `mend()`. */
  break(nodeID: bigint): void {
    this.#broken.add(nodeID);
    const waiting = this.#readers.get(nodeID);
    this.#readers.delete(nodeID);
    for (const fail of waiting ?? []) fail(new Error("Connection lost"));
  }

  /** Lets a replica read again. */
  mend(nodeID: bigint): void {
    this.#broken.delete(nodeID);
  }

  check(nodeID: bigint): void {
    if (this.#broken.has(nodeID)) throw new Error("Connection lost");
  }

  /** Calls `fail` when the replica is cut off. */
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

  get held(): number {
    return this.#inner.held;
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
    if (fault === "fail") throw new Error("Append failed");
    if (fault === "lost") throw new ErrUnknownOutcome("Answer is lost");
    const index = this.#inner.append(records);
    if (fault === "twice") this.#inner.append(records);
    if (fault === "committed") throw new ErrUnknownOutcome("Answer is lost");
    return index;
  }

  read(after: number, options?: ReadOptions): MaybePromise<LogReader> {
    this.#faults.check(this.#nodeID);
    const inner = this.#inner.read(after, options) as LogReader;
    return new FaultyReader(inner, this.#faults, this.#nodeID);
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

/** A log in memory that misbehaves as it is told. */
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

// ---------------------------------------------------------------- the store

/** How a store misbehaves. */
export class FaultySnapshotStore implements SnapshotStore {
  readonly inner: MemorySnapshotStore = new MemorySnapshotStore();
  /** Called at the start of each step ("create", "write", "commit", "list", "open", "remove"): may throw, delay or hang. */
  before: (
    step: string,
    info?: SnapshotHeader,
  ) => MaybePromise<void> = () => {};
  /** Which snapshots come back with a byte changed. */
  damaged: (info: SnapshotInfo) => boolean = () => false;

  async create(
    header: SnapshotHeader,
    options?: { readonly imported?: boolean },
  ): Promise<SnapshotSink> {
    await this.before("create", header);
    const sink = this.inner.create(header, options);
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
    return this.inner.list(clusterID);
  }

  async open(info: SnapshotInfo): Promise<ReadableStream<Uint8Array>> {
    await this.before("open", info);
    const stream = this.inner.open(info);
    return this.damaged(info)
      ? stream.pipeThrough(flipByte(info.size >> 1))
      : stream;
  }

  async remove(info: SnapshotInfo): Promise<void> {
    await this.before("remove", info);
    this.inner.remove(info);
  }

  close(): Promise<void> {
    return this.inner.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Passes bytes through, one of them changed. */
export function flipByte(
  at: number,
): TransformStream<Uint8Array, Uint8Array> {
  let offset = 0;
  return new TransformStream({
    transform: (chunk, controller) => {
      const copy = chunk.slice();
      if (at >= offset && at < offset + copy.length) copy[at - offset]! ^= 0x40;
      offset += copy.length;
      controller.enqueue(copy);
    },
  });
}

/** All bytes of a stream. */
export async function collect(
  stream: ReadableStream<Uint8Array>,
): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await new Response(stream as BodyInit).arrayBuffer());
}

/** Bytes as a stream, in chunks. */
export function streamOf(
  bytes: Uint8Array,
  chunk = 1000,
): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream({
    pull: (controller) => {
      if (at >= bytes.length) controller.close();
      else controller.enqueue(bytes.slice(at, at += chunk));
    },
  });
}

// -------------------------------------------------------------- the clusters

/** A host, what happened at it, and its first replica. */
export interface Started {
  readonly host: NodeHost;
  readonly replica: Replica;
  readonly events: HostEvent[];
  /** Every machine that was made, in order. */
  readonly machines: Journal[];
}

/** Which machine a replica gets. */
export interface StartOptions extends NodeHostOptions {
  readonly kind?: "regular" | "concurrent" | "disk" | "hosted";
  readonly manners?: Manners;
  readonly disk?: Disk;
  readonly config?: Partial<ReplicaConfig>;
}

/** Makes a host; what happens at it goes into `events`. */
export function hostOf(
  options: NodeHostOptions,
  events: HostEvent[] = [],
): NodeHost {
  return new NodeHost({ ...options, onEvent: (event) => events.push(event) });
}

/** Starts a replica on a host that is there. */
export async function startOn(
  host: NodeHost,
  options: StartOptions,
  machines: Journal[] = [],
): Promise<Replica> {
  const { kind = "regular", manners = {}, disk = new Disk() } = options;
  const config = { clusterID: 1n, nodeID: 1n, ...options.config };
  const keep = <T extends Journal>(machine: T): T => {
    machines.push(machine);
    return machine;
  };
  switch (kind) {
    case "regular":
      return await host.startCluster(
        (c, n) => keep(new RegularJournal(manners, c, n)),
        config,
      );
    case "concurrent":
      return await host.startConcurrentCluster(
        (c, n) => keep(new ConcurrentJournal(manners, c, n)),
        config,
      );
    case "disk":
      return await host.startOnDiskCluster(
        (c, n) => keep(new PlainDiskJournal(disk, manners, c, n)),
        config,
      );
    case "hosted":
      return await host.startOnDiskCluster(
        (c, n) => keep(new HostedDiskJournal(disk, manners, c, n)),
        config,
      );
  }
}

/** Makes a host and starts a replica on it. */
export async function start(options: StartOptions = {}): Promise<Started> {
  const { kind: _, manners: __, disk: ___, config: ____, ...rest } = options;
  const events: HostEvent[] = [];
  const machines: Journal[] = [];
  const host = hostOf(rest, events);
  try {
    const replica = await startOn(host, options, machines);
    return { host, replica, events, machines };
  } catch (error) {
    await host.stop();
    throw error;
  }
}

/** Three replicas, each on a host of its own, on one log. */
export async function startThree(
  logDB: LogDB,
  options: StartOptions = {},
): Promise<Started[]> {
  const started: Started[] = [];
  for (const nodeID of [1n, 2n, 3n]) {
    const config = { ...options.config, nodeID };
    started.push(await start({ ...options, logDB, config }));
  }
  return started;
}

/** Stops the hosts. */
export async function stopAll(started: readonly Started[]): Promise<void> {
  for (const { host } of started) await host.stop();
}

/** The types of events, in order. */
export function typesOf(events: readonly HostEvent[]): string[] {
  return events.map(({ type }) => type);
}

/** What applied commands a replica holds, without asking the log. */
export async function listOf(replica: Replica): Promise<string[]> {
  return await replica.staleRead(null) as string[];
}

/** Proposes commands one after the other. */
export async function proposeAll(
  replica: Replica,
  ...commands: readonly string[]
): Promise<void> {
  for (const command of commands) await replica.propose(bytes(command));
}

/** The three kinds, the on-disk one twice. */
export const KINDS = ["regular", "concurrent", "disk", "hosted"] as const;

/** Puts records into the log of a cluster behind everybody's back. */
export async function forge(
  logDB: LogDB,
  records: Records,
  clusterID = 1n,
): Promise<number> {
  const log = await logDB.open(clusterID, 0n);
  try {
    return await log.append(records);
  } finally {
    await log.close();
  }
}

/** Puts a checkpoint on the board behind everybody's back. */
export async function publish(
  logDB: LogDB,
  checkpoint: Checkpoint,
  clusterID = 1n,
): Promise<void> {
  const log = await logDB.open(clusterID, 0n);
  log.checkpoints!.publish(checkpoint);
  await log.close();
}
