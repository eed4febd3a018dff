/**
 * In-memory twin of the {@linkcode FileStore}.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrClosed } from "../statemachine/errors.ts";
import { type Chunks, collectChunks, replayChunks } from "./memory_stream.ts";
import { ErrFileIsDirectory, ErrFileNotFound } from "./errors.ts";
import { type FileStore, type OpenFile, partsOfPath } from "./file_store.ts";

/**
 * {@linkcode FileStore} in memory. A directory exists while there is a file in it;
 * leading, trailing and repeated slashes of a path are ignored. After `close()` its
 * methods throw.
 */
export class MemoryFileStore implements FileStore {
  readonly #files = new Map<string, [Chunks, number]>();
  #closed = false;

  /** Normalized spelling of a path. */
  #path(path: string): string {
    if (this.#closed) {
      throw new ErrClosed("MemoryFileStore is closed; create another one");
    }
    return partsOfPath(path).join("/");
  }

  /**
   * Opens a file for reading; the stream is not affected if the file is removed or
   * replaced.
   *
   * @throws ErrFileNotFound if there is no file at `path`
   * @throws ErrFileIsDirectory if there is a directory
   */
  open(path: string): OpenFile {
    const file = this.#files.get(this.#path(path));
    if (file) return { size: file[1], content: replayChunks(file[0]) };
    if (this.list(path).length) throw new ErrFileIsDirectory(path);
    throw new ErrFileNotFound(path);
  }

  /**
   * Begins writing a file, which becomes visible once the stream is closed.
   *
   * @throws ErrFileIsDirectory if there is a directory at `path`
   */
  create(path: string): WritableStream<Uint8Array> {
    if (this.list(path).length) throw new ErrFileIsDirectory(path);
    const key = this.#path(path);
    return collectChunks((...file) => {
      if (!this.#closed) this.#files.set(key, file);
    })[0];
  }

  /** Removes a file, or a directory with its content; does nothing if there is neither. */
  remove(path: string): void {
    const key = this.#path(path);
    for (const other of this.#files.keys()) {
      if (!key || `${other}/`.startsWith(`${key}/`)) this.#files.delete(other);
    }
  }

  /** Sorted names of the files and directories in a directory; empty if it does not exist. */
  list(directory: string): readonly string[] {
    const path = this.#path(directory);
    const prefix = path && `${path}/`;
    const names = new Set<string>();
    for (const key of this.#files.keys()) {
      if (!key.startsWith(prefix)) continue;
      names.add(key.slice(prefix.length).split("/", 1)[0] as string);
    }
    return [...names].sort();
  }

  /** Closes the store and discards its files; idempotent. */
  // deno-lint-ignore require-await
  async close(): Promise<void> {
    this.#closed = true;
    this.#files.clear();
  }

  /** Closes the store. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
