/**
 * Machines of every kind that record the commands they applied and fail where a
 * test says.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type {
  Entry,
  HostRow,
  HostState,
  IConcurrentStateMachine,
  IHash,
  IHostState,
  IOnDiskStateMachine,
  ISnapshotFileCollection,
  IStateMachine,
  MaybePromise,
  Result,
  SnapshotFile,
} from "../../mod.ts";
import { bytes, text } from "../support/bytes.ts";
import { violations } from "../support/environment.ts";

/** Faults of a machine. */
export interface MachineFaults {
  /** Called at the start of each method; may throw, or return a promise, even one that never settles. */
  before?(method: string, machine: Journal): MaybePromise<void>;
  /** Called with each command before it is applied; may throw. */
  apply?(command: string): void;
  /** Replaces the return value of a method. */
  result?(method: string, value: unknown, machine: Journal): unknown;
  /** Returns the reason of a result that is a refusal; without it no result is one. */
  refusal?(result: Result): string | undefined;
  /** Files to add to each snapshot. */
  addFiles?(files: ISnapshotFileCollection): void;
  /** Bytes of filling in each snapshot, so that it does not fit into a stream's queue. */
  filling?: number;
}

/** Base of the machines: the list of applied commands, and the calls received. */
export class Journal {
  list: string[] = [];
  readonly calls: string[] = [];
  readonly files: { fileID: bigint; metadata: string }[] = [];
  readonly faults: MachineFaults;
  readonly ids: readonly [bigint, bigint];
  closed = false;
  refusal?: (result: Result) => string | undefined;

  constructor(faults: MachineFaults, clusterID: bigint, nodeID: bigint) {
    this.faults = faults;
    this.ids = [clusterID, nodeID];
    if (faults.refusal !== undefined) this.refusal = faults.refusal;
  }

  /** Records a call and applies the faults of the test to it. */
  call<T>(method: string, work: () => T): MaybePromise<T> {
    this.calls.push(method);
    if (this.closed && !(method === "lookup" && this instanceof DiskJournal)) {
      violations.push(`${method} after close`);
    }
    if (method === "close") this.closed = true;
    const { faults } = this;
    const run = (): T => {
      const value = work();
      return faults.result === undefined
        ? value
        : faults.result(method, value, this) as T;
    };
    const before = faults.before?.(method, this);
    return before instanceof Promise ? before.then(run) : run();
  }

  apply(cmd: Uint8Array): Result {
    const command = text(cmd);
    this.faults.apply?.(command);
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
    for (let left = this.faults.filling ?? 0; left > 0; left -= 65_536) {
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
    this.faults.addFiles?.(files);
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
    this.faults.addFiles?.(files);
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

/** Disk in memory: a crash may lose writes since the last sync, latest first. */
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

  /** Loses unsynced writes: all of them, or as many as `random` says. */
  crash(random: () => number = () => 0): void {
    this.#steps = [this.#steps[random() % this.#steps.length]!];
  }

  /** Deletes everything. */
  erase(): void {
    this.#steps = [EMPTY];
  }

  /** Captures the newest state; returns a function that restores it. */
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
    faults: MachineFaults,
    clusterID: bigint,
    nodeID: bigint,
  ) {
    super(faults, clusterID, nodeID);
    this.disk = disk;
  }

  async open(_stopped: AbortSignal): Promise<number> {
    return await this.call("open", () => {
      // The state found by open() is durable.
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
