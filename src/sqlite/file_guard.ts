/**
 * Detection of other programs that change the files of an open database.
 *
 * SQLite reads its files only on a cache miss and trusts what it reads: it continues
 * with a database that was overwritten, truncated or removed, and its commits are
 * then lost. Nothing else may write to the files between two calls of a store, so a
 * changed identity, size or modification time reveals another program. If only the
 * time has changed, as by `touch`, pages from all over the file are compared.
 *
 * This module needs Deno or Node.
 *
 * @module
 */

import {
  closeSync,
  fstatSync,
  openSync,
  readFileSync,
  readSync,
  type Stats,
  statSync,
} from "node:fs";
import { crc32 } from "../bytes.ts";
import { isWALDamaged, isWALHeader } from "./wal.ts";

const PAGE_BYTES = 4096;
/** Number of pages of a database that are compared. */
const SAMPLES = 64;

function stateAt(path: string): Stats | undefined {
  return statSync(path, { throwIfNoEntry: false });
}

/** Change of a file of an open database by another program. */
export interface FileFault {
  /** Path of the file. */
  readonly path: string;
  /** Description of the change, to follow the name of the file. */
  readonly what: string;
  /** True if only the WAL is missing: SQLite still has it open, and can move its content into the database. */
  readonly isOnlyWALMissing?: boolean;
}

/** Guards a database and its WAL while SQLite has them open in exclusive mode. */
export class FileGuard implements Disposable {
  readonly #path: string;
  readonly #wal: string;
  /** Closed only after SQLite has closed the database: closing any descriptor of a file releases the process's locks on it. */
  readonly #file: number;
  readonly #walFile: number;
  #state: Stats;
  #walState: Stats;
  /** Set once SQLite has written to the WAL since its state was recorded: its modification time then proves nothing. */
  isWritten = false;
  /** Checksums of the compared pages, by page number. */
  #samples: ReadonlyMap<number, number> = new Map();
  readonly #page = new Uint8Array(PAGE_BYTES);

  /** Creates a guard of the database at `path`, which was just opened. */
  constructor(path: string) {
    this.#path = path;
    this.#wal = `${path}-wal`;
    this.#file = openSync(path, "r");
    try {
      this.#walFile = openSync(this.#wal, "r");
    } catch (error) {
      closeSync(this.#file);
      throw error;
    }
    this.#walState = fstatSync(this.#walFile);
    this.#state = fstatSync(this.#file);
    this.checkpointed();
  }

  /** Records the state of the files after SQLite has written to the database. */
  checkpointed(): void {
    this.#state = fstatSync(this.#file);
    const pages = Math.floor(this.#state.size / PAGE_BYTES);
    const step = Math.max(1, pages / SAMPLES);
    const samples = new Map<number, number>();
    // Always the first page, where a program that overwrites the file begins.
    samples.set(0, this.#checksum(0));
    for (let from = 0; from < pages; from += step) {
      const page = Math.min(pages - 1, Math.floor(from + Math.random() * step));
      samples.set(page, this.#checksum(page));
    }
    this.#samples = samples;
  }

  #checksum(page: number): number {
    const at = page * PAGE_BYTES;
    const count = readSync(this.#file, this.#page, 0, PAGE_BYTES, at);
    return crc32(this.#page, 0, 0, count);
  }

  /** Returns a change of the files by another program; undefined if there was no such change. */
  fault(): FileFault | undefined {
    const path = this.#path;
    const state = stateAt(path);
    const what = difference(this.#state, state);
    if (what !== undefined) return { path, what };
    if (
      state!.mtimeMs !== this.#state.mtimeMs || state!.size > this.#state.size
    ) {
      if (!this.#isSame()) {
        return { path, what: "was overwritten by another program" };
      }
      this.#state = state!;
    }
    return this.#walFault();
  }

  #isSame(): boolean {
    for (const [page, sum] of this.#samples) {
      if (this.#checksum(page) !== sum) return false;
    }
    return true;
  }

  #walFault(): FileFault | undefined {
    const path = this.#wal;
    const state = stateAt(path);
    if (state === undefined) {
      return { path, what: "was removed", isOnlyWALMissing: true };
    }
    const what = difference(this.#walState, state);
    if (what !== undefined) return { path, what };
    const { mtimeMs } = this.#walState;
    const isWritten = this.isWritten;
    this.#walState = state;
    this.isWritten = false;
    if (isWritten) {
      if (this.#hasHeader()) return undefined;
    } else {
      if (state.mtimeMs === mtimeMs) return undefined;
      const wal = readFileSync(path);
      if (isWALHeader(wal) && !isWALDamaged(wal)) return undefined;
    }
    return { path, what: "was overwritten by another program" };
  }

  #hasHeader(): boolean {
    const count = readSync(this.#walFile, this.#page, 0, PAGE_BYTES, 0);
    return isWALHeader(this.#page.subarray(0, count));
  }

  /** Closes the files, after SQLite has. */
  [Symbol.dispose](): void {
    closeSync(this.#file);
    closeSync(this.#walFile);
  }
}

/** Describes a change of a file's identity or size. */
function difference(
  before: Stats,
  now: Stats | undefined,
): string | undefined {
  if (now === undefined) return "was removed";
  if (now.ino !== before.ino || now.dev !== before.dev) {
    return "was replaced by another file";
  }
  if (now.size < before.size) {
    return `was truncated from ${before.size} to ${now.size} bytes`;
  }
  return undefined;
}
