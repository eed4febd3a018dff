/**
 * Notices that another program has changed the files of an open database.
 *
 * SQLite reads its files only where its caches have nothing, and takes whatever
 * is at their place: it goes on with a database that was overwritten, cut off or
 * removed, and what it commits then is lost. Between two calls of one store
 * nothing else may write to its files, so their identity, size and time of change
 * say whether something did. A time alone, which a `touch` changes, too, is
 * followed by a look at pages from all over the file.
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
/** Pages of a database that are compared with what they were. */
const SAMPLES = 64;

function stateAt(path: string): Stats | undefined {
  return statSync(path, { throwIfNoEntry: false });
}

/** Fault of a file of an open database. */
export interface FileFault {
  /** Path of the file. */
  readonly path: string;
  /** Description of what happened to it. */
  readonly what: string;
  /** True if it is the WAL that is missing, and the database is as it was: what SQLite has of it can still be moved into the database. */
  readonly isOnlyWALMissing?: boolean;
}

/** Guards a database and its WAL while SQLite has them open in exclusive mode. */
export class FileGuard implements Disposable {
  readonly #path: string;
  readonly #wal: string;
  /** Closed only after SQLite has closed the database: to close any descriptor of a file ends the locks that the process has on it. */
  readonly #file: number;
  readonly #walFile: number;
  #state: Stats;
  #walState: Stats;
  /** Set once SQLite has written to the WAL since its state was taken: its time of change says nothing then. */
  isWritten = false;
  /** Checksums of some pages, by their numbers. */
  #samples: ReadonlyMap<number, number> = new Map();
  readonly #page = new Uint8Array(PAGE_BYTES);

  /** A guard of the database at `path`, which has just been opened. */
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

  /** Takes in that SQLite has written to the database. */
  checkpointed(): void {
    this.#state = fstatSync(this.#file);
    const pages = Math.floor(this.#state.size / PAGE_BYTES);
    const step = Math.max(1, pages / SAMPLES);
    const samples = new Map<number, number>();
    // The first one always, since a program that overwrites a file begins there.
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

  /** Fault that the files have now; undefined if no other program has changed them. */
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

  /** Lets go of the files, once SQLite has. */
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
    return `was cut off from ${before.size} to ${now.size} bytes`;
  }
  return undefined;
}
