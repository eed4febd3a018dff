/**
 * The host's file store, as a port: where the external files of snapshots are,
 * be it a file system, the Origin Private File System, or memory.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { MaybePromise } from "../statemachine/types.ts";

/** A file that was opened for reading. */
export interface OpenFile {
  /** Size of the file, in bytes. */
  readonly size: number;
  /** Its bytes. Whoever opens a file reads them to the end or cancels. */
  readonly content: ReadableStream<Uint8Array>;
}

/** Files under paths separated by "/". Whoever makes a store closes it. */
export interface FileStore extends AsyncDisposable {
  /**
   * Opens a file for reading.
   *
   * @throws ErrFileNotFound if there is nothing at `path`
   * @throws ErrFileIsDirectory if there is a directory
   */
  open(path: string): MaybePromise<OpenFile>;
  /**
   * Begins a file; it appears, whole and in the place of one that was there,
   * when the stream is closed, and never if that is aborted. Directories are made
   * as needed.
   *
   * @throws ErrFileIsDirectory if there is a directory at `path`
   */
  create(path: string): MaybePromise<WritableStream<Uint8Array>>;
  /** Removes a file, or a directory with all that is in it; harmless when it is gone already. */
  remove(path: string): MaybePromise<void>;
  /** The names of the files and directories right in a directory, sorted; none if it is not there. */
  list(directory: string): MaybePromise<readonly string[]>;
  /** Frees what the store holds, after which its other methods fail; idempotent. */
  close(): Promise<void>;
}
