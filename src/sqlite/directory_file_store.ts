/**
 * File store of a host in a directory of the file system.
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

/** Directory of unfinished files, invisible to callers. */
const HIDDEN = ".sampan";

/**
 * {@linkcode FileStore} in a directory, for one process at a time. State machines may
 * create and read its files directly, at {@linkcode DirectoryFileStore.pathOf}. A path
 * that leads out of the directory, also through links, is a `RangeError`. A
 * directory exists while there is a file in it.
 */
export class DirectoryFileStore implements FileStore {
  /** Absolute path of the directory. */
  readonly directory: string;
  #lock: FileLock | undefined;
  readonly #sinks = new Set<FileSink>();
  #closed = false;

  /** Creates a store in `directory`, which is created at its first use. */
  constructor(directory: string | URL) {
    this.directory = resolve(pathFrom(directory, "Directory of the files"));
  }

  /**
   * Absolute path in the file system of a path of this store.
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

  /** True if a path, whether it exists or not, is in the directory once links are resolved. */
  #isInside(full: string): boolean {
    let at = full;
    while (at !== this.directory && !exists(at)) at = dirname(at);
    if (at === this.directory) return true;
    const root = realpathSync(this.directory);
    return `${realpathSync(at)}/`.startsWith(`${root}/`);
  }

  #open(): void {
    if (this.#closed) {
      throw new ErrClosed(`File store is closed: ${this.directory}`);
    }
    const hidden = join(this.directory, HIDDEN);
    if (this.#lock !== undefined) {
      if (this.#lock.isInPlace) return;
      // The directory was removed while it was in use: create it again.
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
   * Opens a file for reading; the stream is not affected if the file is removed or
   * replaced.
   *
   * @throws ErrFileNotFound if there is no file at `path`
   * @throws ErrFileIsDirectory if there is a directory
   * @throws ErrStoreLocked if another process has the directory open
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
   * Begins writing a file, which becomes visible once the stream is closed.
   *
   * @throws ErrFileIsDirectory if there is a directory at `path`
   * @throws ErrStoreLocked if another process has the directory open
   */
  create(path: string): WritableStream<Uint8Array> {
    this.#open();
    const full = this.pathOf(path);
    if (isDirectory(full)) throw new ErrFileIsDirectory(path);
    const temporary = join(this.directory, HIDDEN, crypto.randomUUID());
    const sink = new FileSink(temporary, this.#sinks, () => {
      this.#sinks.delete(sink);
      // Created only now, since a directory exists while there is a file in it.
      makeDirectory(dirname(full));
      renameSync(temporary, full);
      syncDirectory(dirname(full));
    });
    return sink.writable;
  }

  /** Removes a file, or a directory with its content; does nothing if there is neither. */
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
      // The directory is not empty.
    }
  }

  /** Sorted names of the files and directories in a directory; empty if it does not exist. */
  list(directory: string): readonly string[] {
    this.#open();
    const full = this.pathOf(directory);
    if (!isDirectory(full)) return [];
    return readdirSync(full)
      .filter((name) => name !== HIDDEN || full !== this.directory).sort();
  }

  /** Discards unfinished files and unlocks the directory; idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const sink of [...this.#sinks]) {
      await sink.abort(
        new ErrClosed(`File store is closed: ${this.directory}`),
      );
    }
    this.#lock?.close();
    this.#lock = undefined;
  }

  /** Closes the store. */
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
