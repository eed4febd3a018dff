/**
 * Block store with faults: writes that fail with or without effect, power
 * failures that undo relaxed writes, damaged and missing blocks.
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

/** Options of a faulty store. */
export interface FaultyBlockStoreOptions {
  /** Store of the blocks; it must be synchronous. @default {a new `MemoryBlockStore`} */
  readonly store?: BlockStore | undefined;
  /** True for calls that settle some turns of the event loop later, in order. @default {false} */
  readonly asynchronous?: boolean | undefined;
}

/** Fault of one or more writes. */
export interface Fault {
  /** Number of the first write that fails, counted from 1 since the store was created. */
  readonly at: number;
  /** True for a write that takes effect although it fails. @default {false} */
  readonly after?: boolean | undefined;
  /** Number of consecutive writes that fail. @default {1} */
  readonly times?: number | undefined;
  /** Error of the write. */
  readonly error: unknown;
}

/** Block store in memory with faults. */
export class FaultyBlockStore implements BlockStore {
  readonly #inner: BlockStore;
  readonly #asynchronous: boolean;
  /** Inverse of each write since the last strict one. */
  #undo: Changes[] = [];
  #tail: Promise<unknown> = Promise.resolve();
  #crashed = false;
  /** Fault that is due next. */
  fault: Fault | undefined;
  /** Number of writes requested. */
  writes = 0;
  /** Number of blocks read by `get()`. */
  reads = 0;
  /** Number of bytes written. */
  bytesWritten = 0;

  /** Creates a store without faults. */
  constructor(options: FaultyBlockStoreOptions = {}) {
    this.#inner = options.store ?? new MemoryBlockStore();
    this.#asynchronous = options.asynchronous ?? false;
  }

  /**
   * Simulates a power failure: pending calls have no effect, and relaxed writes
   * are lost except the first `kept`. Returns the store as it is found
   * afterwards.
   */
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

  /** Number of writes that a crash may undo. */
  get unsynced(): number {
    return this.#undo.length;
  }

  /** Keys of all blocks. */
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
      if (this.#crashed) {
        throw new Error("Store lost power: crash() was called");
      }
      return call();
    };
    if (!this.#asynchronous) return checked();
    const called = this.#tail.then(() => systemEnv.turn()).then(checked);
    this.#tail = called.catch(() => {});
    return called;
  }

  /** Forwards to the inner store. */
  identity(): MaybePromise<string> {
    return this.#call(() => this.#inner.identity());
  }

  /** Forwards to the inner store. */
  get(keys: readonly string[]): MaybePromise<(Uint8Array | undefined)[]> {
    this.reads += keys.length;
    return this.#call(() => this.#inner.get(keys));
  }

  /** Forwards to the inner store. */
  list(
    from: string,
    to: string,
    options?: ListOptions,
  ): MaybePromise<Block[]> {
    return this.#call(() => this.#inner.list(from, to, options));
  }

  /** Forwards to the inner store. */
  keys(
    from: string,
    to: string,
    options?: ListOptions,
  ): MaybePromise<string[]> {
    return this.#call(() => this.#inner.keys(from, to, options));
  }

  /** Forwards to the inner store, unless a fault is due. */
  write(changes: Changes, durability: Durability): MaybePromise<void> {
    const number = ++this.writes;
    // Copied: the caller may change the bytes after the call has returned.
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

  /** Builds the inverse of changes. */
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

  /** Does not close the inner store, which may be reopened. */
  async close(): Promise<void> {
    await this.#tail;
  }

  /** Closes the store like `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
