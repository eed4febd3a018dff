/**
 * Blocks of pages: their numbers, their content, and those that can be reused
 * because neither the directory nor a version refers to them any more.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Block } from "../../store/store.ts";
import { viewOf } from "../view.ts";
import { emptyRef, type Ref } from "./directory.ts";
import type { BlockKeys } from "./keys.ts";
import { type Page, pageBlock } from "./pages.ts";

/** Page that gets a new block. */
export interface NewPage {
  readonly ref: Ref;
  readonly bytes: Uint8Array;
}

/** Versions in use, as far as the reuse of blocks depends on them. */
export interface VersionEpochs {
  /** Number of versions created. */
  readonly epoch: number;
  /** Epoch of the oldest version in use; `Infinity` without one. */
  readonly oldest: number;
}

/** Allocates and frees the blocks of pages. */
export class PageBlocks {
  /** Number of the next new block. */
  nextID = 1;
  readonly #keys: BlockKeys;
  readonly #versions: VersionEpochs;
  /** Blocks that only versions of this epoch or older still read. */
  #garbage: { readonly id: number; readonly epoch: number }[] = [];

  constructor(keys: BlockKeys, versions: VersionEpochs) {
    this.#keys = keys;
    this.#versions = versions;
  }

  /** Schedules a block for reuse or deletion once no version needs it. */
  discard({ id }: Ref): void {
    if (id > 0) this.#garbage.push({ id, epoch: this.#versions.epoch });
  }

  /** True if there are blocks to reuse or delete. */
  get hasGarbage(): boolean {
    const [oldest] = this.#garbage;
    return oldest !== undefined && oldest.epoch < this.#versions.oldest;
  }

  /** Removes and returns the numbers of the blocks that no version reads any more. */
  collectGarbage(): number[] {
    const { oldest } = this.#versions;
    const keep = this.#garbage.findIndex(({ epoch }) => epoch >= oldest);
    const gone = this.#garbage.splice(0, keep < 0 ? Infinity : keep);
    return gone.map(({ id }) => id);
  }

  /** Forgets discarded blocks, which were deleted otherwise. */
  forgetGarbage(): void {
    this.#garbage = [];
  }

  /** Encodes a page, adds it to `pages` and returns its reference, which gets a number from {@linkcode put}. */
  encode(leaf: Page, seq: number, pages: NewPage[]): Ref {
    if (leaf.rows === 0) return emptyRef(seq);
    const bytes = pageBlock(leaf);
    const crc = viewOf(bytes).getUint32(0, true);
    const size = bytes.length;
    const ref = { id: -1, crc, size, seq, uses: 0, written: false };
    pages.push({ ref, bytes });
    return ref;
  }

  /** Assigns blocks to pages: first those of `free`, because overwriting costs less than deleting. */
  put(pages: readonly NewPage[], free: number[] = []): Block[] {
    return pages.map(({ ref, bytes }) => {
      ref.id = free.pop() ?? this.nextID++;
      return { key: this.#keys.page(ref.id), bytes };
    });
  }
}
