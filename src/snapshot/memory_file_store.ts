/**
 * Files kept in memory: the twin of every {@linkcode FileStore}.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type Chunks, collectChunks, replayChunks } from "./memory_stream.ts";
import { ErrFileIsDirectory, ErrFileNotFound } from "./errors.ts";
import { type FileStore, type OpenFile, partsOfPath } from "./file_store.ts";

/**
 * A {@linkcode FileStore} in memory. A directory is there as long as a file is in
 * it; leading, trailing and doubled slashes of a path mean nothing. After
 * `close()` its methods throw.
 */
export class MemoryFileStore implements FileStore {
  readonly #files = new Map<string, [Chunks, number]>();
  #closed = false;

  /** The one spelling of a path. */
  #path(path: string): string {
    if (this.#closed) throw new Error("File store is closed");
    return partsOfPath(path).join("/");
  }

  /**
   * Opens a file for reading; it can be read to its end also when it is removed
   * or replaced meanwhile.
   *
   * @throws ErrFileNotFound if there is nothing at `path`
   * @throws ErrFileIsDirectory if there is a directory
   */
  open(path: string): OpenFile {
    const file = this.#files.get(this.#path(path));
    if (file) return { size: file[1], content: replayChunks(file[0]) };
    if (this.list(path).length) throw new ErrFileIsDirectory(path);
    throw new ErrFileNotFound(path);
  }

  /**
   * Begins a file, visible when the stream is closed.
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

  /** Removes a file, or a directory with all that is in it; harmless when it is gone already. */
  remove(path: string): void {
    const key = this.#path(path);
    for (const other of this.#files.keys()) {
      if (!key || `${other}/`.startsWith(`${key}/`)) this.#files.delete(other);
    }
  }

  /** The names of the files and directories right in a directory, sorted; none if it is not there. */
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

  /** Lets go of all files; idempotent. */
  // deno-lint-ignore require-await
  async close(): Promise<void> {
    this.#closed = true;
    this.#files.clear();
  }

  /** As `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
