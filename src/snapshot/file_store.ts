/**
 * Port of the host's file store, which holds the external files of snapshots: in a
 * file system, in the Origin Private File System, or in memory.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { describe, isWellFormed, wrongType } from "../describe.ts";
import type { MaybePromise } from "../statemachine/types.ts";

/** File opened for reading. */
export interface OpenFile {
  /** Size of the file, in bytes. */
  readonly size: number;
  /** Bytes of the file. The code that opens a file reads them to the end or cancels the stream. */
  readonly content: ReadableStream<Uint8Array>;
}

/**
 * Directory of a file store in which the host puts the files of a snapshot while a
 * state machine recovers from it. The host deletes everything in it, and its files
 * cannot be added to a snapshot (F4).
 */
export const HOST_DIRECTORY = "sampan-host";

/** True if a path is that of the host's directory or lies in it, ignoring case. */
export function isHostPath(path: string): boolean {
  const first = path.split("/").find((part) => part !== "" && part !== ".");
  return first?.toLowerCase() === HOST_DIRECTORY;
}

/**
 * Splits a path of a file store into its parts, without empty ones.
 *
 * @throws TypeError if it is not a string, or has a lone surrogate: file systems would map different such names to the same file
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

/**
 * Files under paths separated by "/". Those in {@linkcode HOST_DIRECTORY} belong to
 * the host. The code that creates a store closes it.
 */
export interface FileStore extends AsyncDisposable {
  /**
   * Opens a file for reading.
   *
   * @throws ErrFileNotFound if there is no file at `path`
   * @throws ErrFileIsDirectory if there is a directory
   */
  open(path: string): MaybePromise<OpenFile>;
  /**
   * Begins writing a file. Once the stream is closed the file appears, complete and
   * in place of an existing one; if the stream is aborted it never does.
   * Directories are created as needed.
   *
   * @throws ErrFileIsDirectory if there is a directory at `path`
   */
  create(path: string): MaybePromise<WritableStream<Uint8Array>>;
  /** Removes a file, or a directory with its content; does nothing if there is neither. */
  remove(path: string): MaybePromise<void>;
  /** Sorted names of the files and directories in a directory; empty if it does not exist. */
  list(directory: string): MaybePromise<readonly string[]>;
  /** Closes the store, after which its other methods fail; idempotent. */
  close(): Promise<void>;
}
