/**
 * The host's file store in a directory of the file system.
 *
 * This module needs Deno or Node.
 *
 * @module
 */

import { ErrClosed } from "../statemachine/errors.ts";
import {
  fstatSync,
  openSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import { ErrFileIsDirectory, ErrFileNotFound } from "../snapshot/errors.ts";
import {
  type FileStore,
  type OpenFile,
  partsOfPath,
} from "../snapshot/file_store.ts";
import {
  exists,
  type FileLock,
  FileSink,
  fileSource,
  hasCode,
  lockFile,
  makeDirectory,
  pathFrom,
  syncDirectory,
} from "./files.ts";

/** Where files are before they have their names; not to be seen from outside. */
const HIDDEN = ".sampan";

/**
 * A {@linkcode FileStore} in a directory, for one process at a time. A machine
 * may make files there itself, and reads what it was given there, by
 * {@linkcode DirectoryFileStore.pathOf}. No path leads out of the directory,
 * links of the file system included: one that would is a `RangeError`. A
 * directory is there as long as a file is in it.
 */
export class DirectoryFileStore implements FileStore {
  /** Where the files are. */
  readonly directory: string;
  #lock: FileLock | undefined;
  readonly #sinks = new Set<FileSink>();
  #closed = false;

  /** A store in `directory`, which is made when it is first needed. */
  constructor(directory: string | URL) {
    this.directory = resolve(pathFrom(directory, "Directory of the files"));
  }

  /**
   * Where in the file system a path of this store is.
   *
   * @throws RangeError if it leads out of the directory
   */
  pathOf(path: string): string {
    const parts = partsOfPath(path);
    const isBad = parts[0] === HIDDEN ||
      parts.some((part) =>
        part === "." || part === ".." || /[\0\\]/.test(part)
      );
    const full = join(this.directory, ...parts);
    if (isBad || !this.#isInside(full)) {
      throw new RangeError(`Path leads out of the file store: "${path}"`);
    }
    return full;
  }

  /** Whether what a path leads to, or would, is in the directory, wherever links lead. */
  #isInside(full: string): boolean {
    let at = full;
    while (at !== this.directory && !exists(at)) at = dirname(at);
    if (at === this.directory) return true;
    const root = realpathSync(this.directory);
    return `${realpathSync(at)}/`.startsWith(`${root}/`);
  }

  #open(): void {
    if (this.#closed) throw new ErrClosed("File store is closed");
    const hidden = join(this.directory, HIDDEN);
    if (this.#lock !== undefined) {
      if (this.#lock.isInPlace) return;
      // The directory was removed while it was in use: it is made again.
      this.#lock.close();
      this.#lock = undefined;
    }
    makeDirectory(hidden);
    this.#lock = lockFile(join(hidden, "lock"));
    for (const name of readdirSync(hidden)) {
      if (name !== "lock") rmSync(join(hidden, name));
    }
  }

  /**
   * Opens a file for reading; it can be read to its end also when it is removed
   * or replaced meanwhile.
   *
   * @throws ErrFileNotFound if there is nothing at `path`
   * @throws ErrFileIsDirectory if there is a directory
   * @throws ErrStoreLocked if another process has the directory
   */
  open(path: string): OpenFile {
    this.#open();
    const full = this.pathOf(path);
    if (isDirectory(full)) throw new ErrFileIsDirectory(path);
    let file: number;
    try {
      file = openSync(full, "r");
    } catch (cause) {
      throw isMissing(cause) ? new ErrFileNotFound(path, { cause }) : cause;
    }
    return { size: fstatSync(file).size, content: fileSource(file) };
  }

  /**
   * Begins a file, visible when the stream is closed.
   *
   * @throws ErrFileIsDirectory if there is a directory at `path`
   * @throws ErrStoreLocked if another process has the directory
   */
  create(path: string): WritableStream<Uint8Array> {
    this.#open();
    const full = this.pathOf(path);
    if (isDirectory(full)) throw new ErrFileIsDirectory(path);
    const temporary = join(this.directory, HIDDEN, crypto.randomUUID());
    const sink = new FileSink(temporary, this.#sinks, () => {
      this.#sinks.delete(sink);
      // Made only now: a directory is there as long as a file is in it.
      makeDirectory(dirname(full));
      renameSync(temporary, full);
      syncDirectory(dirname(full));
    });
    return sink.writable;
  }

  /** Removes a file, or a directory with all that is in it; harmless when it is gone already. */
  remove(path: string): void {
    this.#open();
    const full = this.pathOf(path);
    if (full === this.directory) {
      for (const name of this.list("")) this.remove(name);
      return;
    }
    try {
      rmSync(full, { recursive: true });
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
    this.#removeEmpty(dirname(full));
  }

  #removeEmpty(directory: string): void {
    try {
      for (let at = directory; at !== this.directory; at = dirname(at)) {
        rmdirSync(at);
      }
    } catch {
      // Something is in it.
    }
  }

  /** The names of the files and directories right in a directory, sorted; none if it is not there. */
  list(directory: string): readonly string[] {
    this.#open();
    const full = this.pathOf(directory);
    if (!isDirectory(full)) return [];
    return readdirSync(full)
      .filter((name) => name !== HIDDEN || full !== this.directory).sort();
  }

  /** Drops what is being written and lets go of the directory; idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const sink of [...this.#sinks]) {
      await sink.abort(new ErrClosed("File store is closed"));
    }
    this.#lock?.close();
    this.#lock = undefined;
  }

  /** As `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function isMissing(error: unknown): boolean {
  return hasCode(error, "ENOENT", "ENOTDIR");
}

function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}
