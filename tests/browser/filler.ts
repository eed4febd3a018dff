/**
 * Fills a block store until there is no room, and knows what must be in it.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrStoreFull } from "../../src/store/errors.ts";
import type { BlockStore } from "../../src/store/store.ts";
import { check } from "../../src/testing/conformance.ts";
import { equalBytes } from "../../src/testing/value.ts";

/** The largest block, in bytes; most are far smaller. */
const BLOCK_BYTES_MAX = 200_000;

/** Runs what fails with `ErrStoreFull`, or not at all; whether it did not. */
export async function fits(work: () => unknown): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (error) {
    if (!(error instanceof ErrStoreFull)) throw error;
    return false;
  }
}

/** Writes blocks of random sizes, strict and relaxed; a write adds one, changes one, and may remove one. */
export class Filler {
  readonly #next: () => number;
  readonly #kept = new Map<string, Uint8Array>();
  #made = 0;
  /** How many writes there was no room for. */
  failures = 0;

  constructor(next: () => number) {
    this.#next = next;
  }

  /** One write, which must have been made whole or not at all; whether it was made. */
  async write(store: BlockStore): Promise<boolean> {
    const next = this.#next;
    const made = ++this.#made;
    const put = [`new/${made}`, `again/${made % 4}`].map((key) => {
      const bytes = new Uint8Array(1 + next() ** 4 * BLOCK_BYTES_MAX);
      // What compresses would take no room.
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

  /** Writes until there is no room, and then some more. */
  async fill(store: BlockStore, more: number): Promise<void> {
    while (await this.write(store)) {
      // There is room.
    }
    for (let i = 0; i < more; i++) await this.write(store);
  }

  /** Fails unless the store holds all that was written, and nothing else. */
  async check(store: BlockStore): Promise<void> {
    const found = await store.list("", "~");
    check(
      found.length === this.#kept.size,
      `${found.length} blocks are there, not ${this.#kept.size}`,
    );
    for (const { key, bytes } of found) {
      const kept = this.#kept.get(key);
      check(kept && equalBytes(bytes, kept), `${key} is another one`);
    }
  }
}
