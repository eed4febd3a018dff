/**
 * The in-memory twin of a block store.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { copyOf } from "../bytes.ts";
import { systemEnv } from "../env.ts";
import { ErrClusterClosed } from "../log/errors.ts";
import type {
  Block,
  BlockStore,
  Changes,
  Durability,
  ListOptions,
} from "./store.ts";

/** Blocks in memory, for tests and for pages that may keep nothing. */
export class MemoryBlockStore implements BlockStore {
  // Not `randomUUID()`: pages over plain http run on memory, and have none.
  readonly #identity: string = systemEnv.random64().toString(16);
  #blocks = new Map<string, Uint8Array>();
  /** The names in order; undefined when one came or went since they were last wanted. */
  #sorted: string[] | undefined = [];
  #closed = false;

  #check(): void {
    if (this.#closed) throw new ErrClusterClosed("Block store is closed");
  }

  /** The name this store was made with. */
  identity(): string {
    this.#check();
    return this.#identity;
  }

  /** The contents of the blocks of those names. */
  get(keys: readonly string[]): (Uint8Array | undefined)[] {
    this.#check();
    return keys.map((key) => this.#blocks.get(key)?.slice());
  }

  /** The blocks of a range of names. */
  list(from: string, to: string, options?: ListOptions): Block[] {
    return this.keys(from, to, options).map((key) => ({
      key,
      bytes: this.#blocks.get(key)!.slice(),
    }));
  }

  /** The names of a range. */
  keys(from: string, to: string, options: ListOptions = {}): string[] {
    this.#check();
    const { limit = Infinity, reverse = false } = options;
    const sorted = this.#sorted ??= [...this.#blocks.keys()].sort();
    const found = sorted.filter((key) => key >= from && key < to);
    if (reverse) found.reverse();
    return found.length > limit ? found.slice(0, limit) : found;
  }

  /** Makes changes in one step. */
  write(changes: Changes, _durability: Durability): void {
    this.#check();
    for (const [from, to] of changes.deleteRanges ?? []) {
      for (const key of this.keys(from, to)) this.#delete(key);
    }
    for (const key of changes.delete ?? []) this.#delete(key);
    for (const { key, bytes } of changes.put ?? []) {
      if (!this.#blocks.has(key)) this.#sorted = undefined;
      this.#blocks.set(key, copyOf(bytes));
    }
  }

  #delete(key: string): void {
    if (this.#blocks.delete(key)) this.#sorted = undefined;
  }

  /** Closes the store; what it held is gone. */
  close(): Promise<void> {
    this.#closed = true;
    this.#blocks = new Map();
    return Promise.resolve();
  }

  /** As `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
