/**
 * A block store on which everything goes wrong that can: writes that fail, with
 * and without having taken effect, power cuts that take back what was not
 * strict, blocks that are damaged or lost.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { systemEnv } from "../env.ts";
import { MemoryBlockStore } from "../store/memory_block_store.ts";
import type {
  Block,
  BlockStore,
  Changes,
  Durability,
  ListOptions,
} from "../store/store.ts";
import type { MaybePromise } from "../statemachine/types.ts";

/** How a faulty store is to be. */
export interface FaultyBlockStoreOptions {
  /** Where the blocks are; it must be synchronous. @default {a new `MemoryBlockStore`} */
  readonly store?: BlockStore | undefined;
  /** Whether calls settle some turns of the event loop later, in order. @default {false} */
  readonly asynchronous?: boolean | undefined;
}

/** Which write fails, and how. */
export interface Fault {
  /** The number of the write, counted from 1 since the store was made. */
  readonly at: number;
  /** Whether it takes effect all the same. @default {false} */
  readonly after?: boolean | undefined;
  /** How many writes in a row fail. @default {1} */
  readonly times?: number | undefined;
  /** What it fails with. */
  readonly error: unknown;
}

/** A block store that can be made to fail. */
export class FaultyBlockStore implements BlockStore {
  readonly #inner: BlockStore;
  readonly #asynchronous: boolean;
  /** For each write since the last strict one, what takes it back. */
  #undo: Changes[] = [];
  #tail: Promise<unknown> = Promise.resolve();
  #crashed = false;
  /** The fault to come. */
  fault: Fault | undefined;
  /** Writes that were asked for. */
  writes = 0;
  /** Blocks that were read one by one, in blocks. */
  reads = 0;
  /** Bytes that were written. */
  bytesWritten = 0;

  /** A store that works until it is told otherwise. */
  constructor(options: FaultyBlockStoreOptions = {}) {
    this.#inner = options.store ?? new MemoryBlockStore();
    this.#asynchronous = options.asynchronous ?? false;
  }

  /** Cuts the power: nothing that was asked for and has not happened does; what was not strict is lost but for the first `kept` writes. Gives the store as it is found afterwards. */
  crash(kept = 0): FaultyBlockStore {
    this.#crashed = true;
    for (const changes of this.#undo.splice(kept).reverse()) {
      // Never rejects: the store below is in memory and synchronous.
      this.#inner.write(changes, "strict");
    }
    return new FaultyBlockStore({
      store: this.#inner,
      asynchronous: this.#asynchronous,
    });
  }

  /** Writes that a crash may take back. */
  get unsynced(): number {
    return this.#undo.length;
  }

  /** The names of all blocks. */
  names(): string[] {
    return this.#inner.keys("", "\x7f") as string[];
  }

  /** Changes one bit of a block. */
  flip(key: string, bit = 0): void {
    const [bytes] = this.#inner.get([key]) as [Uint8Array | undefined];
    if (!bytes) throw new Error(`There is no block ${key}`);
    const at = bit % (bytes.length * 8);
    bytes[at >> 3]! ^= 1 << (at & 7);
    // Never rejects: the store below is in memory and synchronous.
    this.#inner.write({ put: [{ key, bytes }] }, "strict");
  }

  /** Removes a block. */
  remove(key: string): void {
    // Never rejects: the store below is in memory and synchronous.
    this.#inner.write({ delete: [key] }, "strict");
  }

  #call<T>(call: () => MaybePromise<T>): MaybePromise<T> {
    const checked = (): MaybePromise<T> => {
      if (this.#crashed) throw new Error("Power was cut");
      return call();
    };
    if (!this.#asynchronous) return checked();
    const called = this.#tail.then(() => systemEnv.turn()).then(checked);
    this.#tail = called.catch(() => {});
    return called;
  }

  /** As the store within. */
  identity(): MaybePromise<string> {
    return this.#call(() => this.#inner.identity());
  }

  /** As the store within. */
  get(keys: readonly string[]): MaybePromise<(Uint8Array | undefined)[]> {
    this.reads += keys.length;
    return this.#call(() => this.#inner.get(keys));
  }

  /** As the store within. */
  list(
    from: string,
    to: string,
    options?: ListOptions,
  ): MaybePromise<Block[]> {
    return this.#call(() => this.#inner.list(from, to, options));
  }

  /** As the store within. */
  keys(
    from: string,
    to: string,
    options?: ListOptions,
  ): MaybePromise<string[]> {
    return this.#call(() => this.#inner.keys(from, to, options));
  }

  /** As the store within, unless a fault is due. */
  write(changes: Changes, durability: Durability): MaybePromise<void> {
    const number = ++this.writes;
    // What is given may change when the call has returned.
    const put = changes.put?.map(({ key, bytes }) => ({
      key,
      bytes: this.#asynchronous ? bytes.slice() : bytes,
    }));
    return this.#call(() => {
      const { fault } = this;
      const fails = fault !== undefined && number >= fault.at &&
        number < fault.at + (fault.times ?? 1);
      if (!fails || fault.after) {
        this.#write({ ...changes, put: put ?? [] }, durability);
      }
      if (fails) throw fault.error;
    });
  }

  #write(changes: Changes, durability: Durability): void {
    if (durability === "strict") this.#undo = [];
    else this.#undo.push(this.#inverse(changes));
    for (const { bytes } of changes.put ?? []) {
      this.bytesWritten += bytes.length;
    }
    // Never rejects: the store below is in memory and synchronous.
    this.#inner.write(changes, durability);
  }

  /** What takes changes back. */
  #inverse(changes: Changes): Changes {
    const names = new Set(changes.delete);
    for (const { key } of changes.put ?? []) names.add(key);
    for (const [from, to] of changes.deleteRanges ?? []) {
      for (const key of this.#inner.keys(from, to) as string[]) names.add(key);
    }
    const keys = [...names];
    const found = this.#inner.get(keys) as (Uint8Array | undefined)[];
    const put: Block[] = [];
    found.forEach((bytes, i) => bytes && put.push({ key: keys[i]!, bytes }));
    return { delete: keys, put };
  }

  /** Closes nothing: what is within may be opened again. */
  async close(): Promise<void> {
    await this.#tail;
  }

  /** As `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
