/**
 * The in-memory twin of a block store.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { copyOf } from "../bytes.ts";
import { type Env, systemEnv } from "../env.ts";
import { ErrClusterClosed } from "../log/errors.ts";
import type {
  Block,
  BlockStore,
  Changes,
  Durability,
  ListOptions,
  UpdateFound,
  UpdateReads,
} from "./store.ts";

/** In-memory {@linkcode BlockStore}, for tests and for pages without persistent storage. */
export class MemoryBlockStore implements BlockStore {
  // Not `randomUUID()`, which pages served over plain HTTP lack.
  readonly #identity: string;
  #blocks = new Map<string, Uint8Array>();
  /** All names in order; undefined once a name was added or removed. */
  #sorted: string[] | undefined = [];
  #closed = false;

  /** Creates an empty store, whose identity is drawn from `env`. */
  constructor(options: { readonly env?: Env | undefined } = {}) {
    this.#identity = (options.env ?? systemEnv).random64()
      .toString(16).padStart(16, "0");
  }

  #check(): void {
    if (this.#closed) {
      throw new ErrClusterClosed(
        "MemoryBlockStore is closed; create another one",
      );
    }
  }

  /** Random name given to the store when it was created. */
  identity(): string {
    this.#check();
    return this.#identity;
  }

  /** Contents of the named blocks. */
  get(keys: readonly string[]): (Uint8Array | undefined)[] {
    this.#check();
    return keys.map((key) => this.#blocks.get(key)?.slice());
  }

  /** Blocks of a range of names. */
  list(from: string, to: string, options?: ListOptions): Block[] {
    return this.keys(from, to, options).map((key) => ({
      key,
      bytes: this.#blocks.get(key)!.slice(),
    }));
  }

  /** Names of the blocks of a range. */
  keys(from: string, to: string, options: ListOptions = {}): string[] {
    this.#check();
    const { limit = Infinity, reverse = false } = options;
    const sorted = this.#sorted ??= [...this.#blocks.keys()].sort();
    const found = sorted.filter((key) => key >= from && key < to);
    if (reverse) found.reverse();
    return found.length > limit ? found.slice(0, limit) : found;
  }

  /** Makes changes in one atomic step. */
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

  /** Reads blocks and makes the changes that `decide` returns for them, in one atomic step. */
  update(
    { keys, range: [from, to] = ["", ""], ...options }: UpdateReads,
    decide: (found: UpdateFound) => Changes | undefined,
    durability: Durability,
  ): boolean {
    const inRange = this.list(from, to, options);
    const changes = decide({ blocks: this.get(keys), inRange });
    if (changes !== undefined) this.write(changes, durability);
    return changes !== undefined;
  }

  #delete(key: string): void {
    if (this.#blocks.delete(key)) this.#sorted = undefined;
  }

  /** Closes the store and discards its blocks. */
  close(): Promise<void> {
    this.#closed = true;
    this.#blocks = new Map();
    return Promise.resolve();
  }

  /** Closes the store. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
