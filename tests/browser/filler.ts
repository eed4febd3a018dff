/**
 * Fills a block store until its quota is used up, and verifies its content.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrStoreFull } from "../../src/store/errors.ts";
import type { BlockStore } from "../../src/store/store.ts";
import { check } from "../../src/testing/conformance.ts";
import { equalBytes } from "../../src/testing/value.ts";

/** Size of the largest block, in bytes; most are far smaller. */
const BLOCK_BYTES_MAX = 200_000;

/**
 * Returns false if `work` fails with `ErrStoreFull`; rethrows any other error.
 */
export async function fits(work: () => unknown): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (error) {
    if (!(error instanceof ErrStoreFull)) throw error;
    return false;
  }
}

/**
 * Writes blocks of random sizes, strict and relaxed. A write adds one block,
 * changes one, and may remove one.
 */
export class Filler {
  readonly #next: () => number;
  readonly #kept = new Map<string, Uint8Array>();
  #made = 0;
  /** Number of writes that failed because the store was full. */
  failures = 0;

  constructor(next: () => number) {
    this.#next = next;
  }

  /** Makes one write, which must be atomic; returns true if it succeeded. */
  async write(store: BlockStore): Promise<boolean> {
    const next = this.#next;
    const made = ++this.#made;
    const put = [`new/${made}`, `again/${made % 4}`].map((key) => {
      const bytes = new Uint8Array(1 + next() ** 4 * BLOCK_BYTES_MAX);
      // Random bytes: compressible data would not fill the store.
      for (let at = 0; at < bytes.length; at++) bytes[at] = next() * 256;
      return { key, bytes };
    });
    const gone = [...this.#kept.keys()]
      .filter((key) => key.startsWith("new")).slice(0, made % 2);
    const durability = next() < 1 / 2 ? "strict" : "relaxed";
    if (!await fits(() => store.write({ put, delete: gone }, durability))) {
      this.failures++;
      await this.check(store);
      return false;
    }
    for (const key of gone) this.#kept.delete(key);
    for (const { key, bytes } of put) this.#kept.set(key, bytes);
    return true;
  }

  /** Writes until the store is full, then makes `more` further attempts. */
  async fill(store: BlockStore, more: number): Promise<void> {
    while (await this.write(store)) {
      // There is room.
    }
    for (let i = 0; i < more; i++) await this.write(store);
  }

  /** Fails unless the store has exactly the blocks that were written. */
  async check(store: BlockStore): Promise<void> {
    const found = await store.list("", "~");
    check(
      found.length === this.#kept.size,
      `Store has ${found.length} blocks, expected ${this.#kept.size}`,
    );
    for (const { key, bytes } of found) {
      const kept = this.#kept.get(key);
      check(
        kept && equalBytes(bytes, kept),
        `Block ${key} has other content than was written`,
      );
    }
  }
}
