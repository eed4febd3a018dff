/**
 * On-disk state machines on a disk in memory that can crash, with and without
 * host rows.
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

/** Content of the disk after one atomic step. */
export interface Stored extends State {
  /** Index of the last entry applied. */
  readonly index: number;
  /** Rows of the host. */
  readonly rows: ReadonlyMap<string, Uint8Array>;
}

/** Disk in memory that loses steps that are not synced when it crashes. */
export class Disk {
  /** Durable content, then each step that is only in memory. */
  steps: Stored[] = [{ ...EMPTY, index: 0, rows: new Map() }];

  /** Content after the newest step. */
  get last(): Stored {
    return this.steps.at(-1)!;
  }

  /** Appends one atomic step, in memory only. */
  commit(stored: Stored): void {
    this.steps.push(stored);
  }

  /** Makes all steps durable. */
  sync(): void {
    this.steps = [this.last];
  }

  /** Loses the steps that are not synced, except for the first `kept` (D5). */
  crash(kept = 0): void {
    this.steps = [this.steps[Math.min(kept, this.steps.length - 1)]!];
  }
}

/** On-disk state machine without host rows. */
export class DiskMachine implements IOnDiskStateMachine, IHash {
  readonly contexts: Set<Stored> = new Set();
  readonly batches: number[][] = [];
  saved = 0;
  synced = 0;
  closed = 0;
  /** True if it answers with promises. */
  readonly slow: boolean;
  protected readonly disk: Disk;
  #opened = false;
  #busy = false;

  constructor(disk: Disk, slow = false) {
    this.disk = disk;
    this.slow = slow;
  }

  /** Runs a call at the machine's pace; fails if another one is running. */
  protected alone<T>(call: () => MaybePromise<T>): MaybePromise<T> {
    if (this.#busy) {
      throw new Error("A call was made while another, such as update(), ran");
    }
    if (!this.slow) return call();
    this.#busy = true;
    return ticks(3).then(call).finally(() => this.#busy = false);
  }

  open(): MaybePromise<number> {
    if (this.#opened) throw new Error("open() was called twice");
    this.#opened = true;
    return this.alone(() => this.disk.last.index);
  }

  /** Applies entries to a copy of the state; fails on an entry that is applied already (D3). */
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
    if (!this.contexts.delete(stored)) {
      throw new Error(
        "Context was not returned by prepareSnapshot(), or was saved before",
      );
    }
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

/** On-disk state machine that writes the host's rows in the same step as its state. */
export class HostDiskMachine extends DiskMachine implements IHostState {
  readHostRows(): readonly HostRow[] {
    return [...this.disk.last.rows].map(([key, value]) => ({ key, value }));
  }
  override update(): never {
    throw new Error("update() was called on a machine with updateWithHost()");
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
