/**
 * The host's file store, as a port: where the external files of snapshots are,
 * be it a file system, the Origin Private File System, or memory.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { describe, isWellFormed, wrongType } from "../describe.ts";
import type { MaybePromise } from "../statemachine/types.ts";

/** A file that was opened for reading. */
export interface OpenFile {
  /** Size of the file, in bytes. */
  readonly size: number;
  /** Its bytes. Whoever opens a file reads them to the end or cancels. */
  readonly content: ReadableStream<Uint8Array>;
}

/**
 * Directory of a file store in which the host puts the files of snapshots while a
 * machine recovers. It empties it as it likes, so no other file may be there, and
 * none of it can be added to a snapshot (F4).
 */
export const HOST_DIRECTORY = "sampan-host";

/** True if a path is that of the host's directory, or in it, in whatever case the letters are. */
export function isHostPath(path: string): boolean {
  const first = path.split("/").find((part) => part !== "" && part !== ".");
  return first?.toLowerCase() === HOST_DIRECTORY;
}

/**
 * Parts of a path of a file store, without empty ones.
 *
 * @throws TypeError if it is no string, or an ill-formed one: a file system knows no such names, and would take them for one another
 */
export function partsOfPath(path: string): string[] {
  if (typeof path !== "string") {
    throw wrongType("Path of a file", path, "a string");
  }
  if (!isWellFormed(path)) {
    throw new TypeError(
      `Path of a file ${
        describe(path)
      } has a lone surrogate; give a well-formed string`,
    );
  }
  return path.split("/").filter(Boolean);
}

/** Files under paths separated by "/", those in {@linkcode HOST_DIRECTORY} being the host's. The code that makes a store closes it. */
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
