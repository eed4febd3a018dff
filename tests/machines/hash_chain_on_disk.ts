/**
 * An on-disk machine on a disk in memory that can crash, with and without a
 * place for the host's rows.
 *
 * @module
 */

import type { HostRow, HostState, IHostState } from "../../src/rsm/mod.ts";
import type {
  Entry,
  IHash,
  IOnDiskStateMachine,
  MaybePromise,
} from "../../src/statemachine/mod.ts";
import {
  EMPTY,
  read,
  type State,
  stateOf,
  step,
  textOf,
  write,
} from "./hash_chain.ts";
import { ticks } from "../support/turns.ts";

/** What is on the disk after one atomic step. */
export interface Stored extends State {
  /** Index of the last entry in it. */
  readonly index: number;
  /** The host's rows. */
  readonly rows: ReadonlyMap<string, Uint8Array>;
}

/** A disk that holds a state, and loses what is not synced when it crashes. */
export class Disk {
  /** What is durable, then what is in core, step by step. */
  steps: Stored[] = [{ ...EMPTY, index: 0, rows: new Map() }];

  /** The newest step. */
  get last(): Stored {
    return this.steps.at(-1)!;
  }

  /** Takes one atomic step, in core. */
  commit(stored: Stored): void {
    this.steps.push(stored);
  }

  /** Makes all steps durable. */
  sync(): void {
    this.steps = [this.last];
  }

  /** Loses what is not synced, all of it or but for the first `kept` steps (D5). */
  crash(kept = 0): void {
    this.steps = [this.steps[Math.min(kept, this.steps.length - 1)]!];
  }
}

/** Keeps its own state on the disk, and nothing of the host's. */
export class DiskMachine implements IOnDiskStateMachine, IHash {
  readonly contexts: Set<Stored> = new Set();
  readonly batches: number[][] = [];
  saved = 0;
  synced = 0;
  closed = 0;
  /** Whether it answers later. */
  readonly slow: boolean;
  protected readonly disk: Disk;
  #opened = false;
  #busy = false;

  constructor(disk: Disk, slow = false) {
    this.disk = disk;
    this.slow = slow;
  }

  /** Runs alone, at the machine's pace. */
  protected alone<T>(call: () => MaybePromise<T>): MaybePromise<T> {
    if (this.#busy) throw new Error("Two calls at once");
    if (!this.slow) return call();
    this.#busy = true;
    return ticks(3).then(call).finally(() => this.#busy = false);
  }

  open(): MaybePromise<number> {
    if (this.#opened) throw new Error("Opened twice");
    this.#opened = true;
    return this.alone(() => this.disk.last.index);
  }

  /** Applies entries in a copy of the state; an entry it has already is the host's mistake (D3). */
  protected advance(entries: Entry[]): Stored {
    let { index, rows, ...state }: Stored = this.disk.last;
    this.batches.push(entries.map(({ index }) => index));
    for (const entry of entries) {
      if (entry.index <= index) {
        throw new Error(`Entry ${entry.index} comes after ${index}`);
      }
      index = entry.index;
      [state, entry.result] = step(state, entry.cmd);
    }
    return { ...state, index, rows };
  }

  update(entries: Entry[]): MaybePromise<Entry[]> {
    return this.alone(() => {
      this.disk.commit(this.advance(entries));
      return entries;
    });
  }
  sync(): MaybePromise<void> {
    this.synced++;
    return this.alone(() => this.disk.sync());
  }
  lookup(): State {
    const { count, hash } = this.disk.last;
    return { count, hash };
  }
  getHash(): bigint {
    return this.disk.last.hash;
  }
  prepareSnapshot(): MaybePromise<unknown> {
    const context = { ...this.disk.last };
    this.contexts.add(context);
    return context;
  }
  saveSnapshot(
    context: unknown,
    w: WritableStream<Uint8Array>,
    _stopped?: AbortSignal,
  ): Promise<void> {
    const stored = context as Stored;
    if (!this.contexts.delete(stored)) throw new Error("Not a context");
    this.saved++;
    return write(w, `${textOf(stored)} ${stored.index}`);
  }
  async recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    _stopped?: AbortSignal,
  ): Promise<void> {
    const text = await read(r);
    const index = Number(text.split(" ")[2]);
    this.disk.commit({ ...stateOf(text), index, rows: new Map() });
  }
  close(): void {
    this.closed++;
  }
}

function store(
  rows: ReadonlyMap<string, Uint8Array>,
  changes: readonly HostRow[],
): Map<string, Uint8Array> {
  const next = new Map(rows);
  for (const { key, value } of changes) {
    if (value === undefined) next.delete(key);
    else next.set(key, value.slice());
  }
  return next;
}

/** Keeps the host's rows in the same step as its own state. */
export class HostDiskMachine extends DiskMachine implements IHostState {
  readHostRows(): readonly HostRow[] {
    return [...this.disk.last.rows].map(([key, value]) => ({ key, value }));
  }
  override update(): never {
    throw new Error("Not with the host's rows");
  }
  updateWithHost(
    entries: Entry[],
    host: () => HostState,
  ): MaybePromise<Entry[]> {
    return this.alone(() => {
      const stored = this.advance(entries);
      const { index, rows } = host();
      if (index < stored.index) {
        throw new Error(`Host goes back from ${stored.index} to ${index}`);
      }
      this.disk.commit({ ...stored, index, rows: store(stored.rows, rows) });
      return entries;
    });
  }
  async recoverWithHost(
    r: ReadableStream<Uint8Array>,
    { index, rows }: HostState,
    _stopped?: AbortSignal,
  ): Promise<void> {
    const state = stateOf(await read(r));
    this.disk.commit({ ...state, index, rows: store(new Map(), rows) });
  }
}
