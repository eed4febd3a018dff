/**
 * Rebuild of a packed store: another state, written beside the present one.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { PACKED_PAGE_BYTES, PACKED_REBUILD_BYTES } from "../../limits.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import { separate } from "../tree.ts";
import { type DirectoryEntry, emptyRef, LEAST, type Ref } from "./directory.ts";
import { Packer, type Page } from "./pages.ts";

/** Functions of the store that a rebuild uses. */
export interface RebuildInit {
  readonly write: (pages: readonly Page[]) => Promise<Ref[]>;
  readonly swap: (
    spaces: DirectoryEntry[][],
    meta: Uint8Array,
    swapped: () => void,
  ) => Promise<void>;
  readonly abort: () => Promise<unknown>;
}

/** Rebuild: another state of a packed store, built beside the present one from rows in key order. */
export class Rebuild {
  readonly #init: RebuildInit;
  readonly #spaces: DirectoryEntry[][] = [];
  #entries: DirectoryEntry[] = [];
  #packer = new Packer();
  #last: Page | undefined;

  /** Starts a state without rows. */
  constructor(init: RebuildInit) {
    this.#init = init;
  }

  /** Packer of the current space. */
  get packer(): Packer {
    return this.#packer;
  }

  /** Writes buffered pages if there are enough. */
  drain(): MaybePromise<void> {
    const bytes = this.#packer.pages.length * PACKED_PAGE_BYTES;
    if (bytes >= PACKED_REBUILD_BYTES) return this.#write();
  }

  async #write(): Promise<void> {
    const { pages } = this.#packer;
    this.#packer.pages = [];
    const refs = await this.#init.write(pages);
    pages.forEach((leaf, i) => {
      const first = this.#last ? separate(this.#last, leaf) : LEAST;
      this.#entries.push({ first, ref: refs[i]! });
      this.#last = leaf;
    });
  }

  /** Ends a space; later rows belong to the next one. */
  async endSpace(): Promise<void> {
    this.#packer.endPage();
    if (this.#packer.pages.length > 0) await this.#write();
    if (this.#entries.length === 0) {
      this.#entries.push({ first: LEAST, ref: emptyRef(0) });
    }
    this.#spaces.push(this.#entries);
    this.#entries = [];
    this.#last = undefined;
  }

  /** Replaces the present state in one atomic step with the metadata; calls `swapped` at that moment. */
  swap(meta: Uint8Array, swapped: () => void): Promise<void> {
    return this.#init.swap(this.#spaces, meta, swapped);
  }

  /** Aborts the rebuild: its blocks are deleted, now or when the store is opened next. */
  async abort(): Promise<void> {
    await this.#init.abort();
  }
}
