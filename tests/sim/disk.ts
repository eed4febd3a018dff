/**
 * Simulated storage of one process, which survives the process: it can be slow,
 * fail, lose what was not synced when power is cut, and be copied.
 *
 * @module
 */

import {
  type Block,
  type BlockStore,
  type Changes,
  type Durability,
  type ListOptions,
  MemoryBlockStore,
} from "../../src/store/mod.ts";
import type { MaybePromise } from "../../src/statemachine/types.ts";
import type { Env } from "../../src/env.ts";
import { FaultyBlockStore } from "../../src/testing/faulty_block_store.ts";

/** Store whose calls take time and run one after the other. */
class SlowStore implements BlockStore {
  readonly #inner: FaultyBlockStore;
  readonly #env: Env;
  readonly #delay: () => number;
  #last: Promise<unknown> = Promise.resolve();

  constructor(inner: FaultyBlockStore, env: Env, delay: () => number) {
    this.#inner = inner;
    this.#env = env;
    this.#delay = delay;
  }

  #call<T>(call: () => MaybePromise<T>): Promise<T> {
    const called = this.#last.then(async () => {
      await new Promise<void>((resolve) => {
        this.#env.setTimer(resolve, this.#delay());
      });
      return await call();
    });
    this.#last = called.catch(() => {});
    return called;
  }

  identity(): Promise<string> {
    return this.#call(() => this.#inner.identity());
  }

  get(keys: readonly string[]): Promise<(Uint8Array | undefined)[]> {
    return this.#call(() => this.#inner.get(keys));
  }

  list(from: string, to: string, options?: ListOptions): Promise<Block[]> {
    return this.#call(() => this.#inner.list(from, to, options));
  }

  keys(from: string, to: string, options?: ListOptions): Promise<string[]> {
    return this.#call(() => this.#inner.keys(from, to, options));
  }

  write(changes: Changes, durability: Durability): Promise<void> {
    // The caller may change its bytes once the call has returned.
    const put = (changes.put ?? []).map(({ key, bytes }) => ({
      key,
      bytes: bytes.slice(),
    }));
    return this.#call(() => this.#inner.write({ ...changes, put }, durability));
  }

  async close(): Promise<void> {
    await this.#last;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Storage that processes open one after the other. */
export class SimulatedDisk {
  readonly #inner: MemoryBlockStore;
  /** Store of the process that opened it, with injected faults. */
  faulty: FaultyBlockStore;

  constructor(inner: MemoryBlockStore = new MemoryBlockStore()) {
    this.#inner = inner;
    this.faulty = new FaultyBlockStore({ store: inner });
  }

  /** Opens it for a process; with `delay`, each call takes that many milliseconds. */
  open(env: Env, delay?: () => number): BlockStore {
    return delay === undefined
      ? this.faulty
      : new SlowStore(this.faulty, env, delay);
  }

  /** Closes the store by force; of the writes that are not synced, the first `written` survive. */
  crash(written: number): void {
    this.faulty = this.faulty.crash(written);
  }

  /** Makes another one with the same content. */
  copy(): SimulatedDisk {
    const copy = new MemoryBlockStore();
    copy.write({ put: this.#inner.list("", "\x7f") }, "strict");
    return new SimulatedDisk(copy);
  }
}
