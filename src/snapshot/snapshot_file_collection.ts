/**
 * Collection of the external files of a snapshot while a state machine saves it.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { copyOf, isU64 } from "../bytes.ts";
import {
  SNAPSHOT_FILE_METADATA_BYTES_MAX,
  SNAPSHOT_FILES_MAX,
} from "../limits.ts";
import type {
  ISnapshotFileCollection,
  SnapshotFile,
} from "../statemachine/types.ts";
import { ErrSnapshotFile } from "./errors.ts";
import { HOST_DIRECTORY, isHostPath } from "./file_store.ts";

/**
 * Checks that a container can hold a file with this id and metadata.
 *
 * @throws TypeError if the metadata is not a `Uint8Array`
 * @throws RangeError if the id is not in 0…2^64-1, or the metadata is too large
 */
export function checkFile(fileID: bigint, metadata: Uint8Array): void {
  if (typeof fileID !== "bigint" || !isU64(fileID)) {
    throw new RangeError(`File id ${fileID} is not in 0…2^64-1`);
  }
  if (!(metadata instanceof Uint8Array)) {
    throw new TypeError(
      `Metadata of file ${fileID} is a ${typeof metadata}; give a Uint8Array`,
    );
  }
  if (metadata.length > SNAPSHOT_FILE_METADATA_BYTES_MAX) {
    throw new RangeError(
      `File ${fileID} has ${metadata.length} bytes of metadata, more than ${SNAPSHOT_FILE_METADATA_BYTES_MAX}`,
    );
  }
}

/** Files that a state machine adds to a snapshot; the host copies them into it later (F1). */
export class SnapshotFileCollection implements ISnapshotFileCollection {
  readonly #files = new Map<bigint, SnapshotFile>();
  #failure: unknown;
  #sealed = false;

  /** Added files, in order. */
  get files(): readonly SnapshotFile[] {
    return [...this.#files.values()];
  }

  /** First error of `addFile()`, if any; it fails the snapshot even if the machine swallows it (F2). */
  get failure(): unknown {
    return this.#failure;
  }

  /**
   * Adds a file.
   *
   * @throws ErrSnapshotFile if the id is taken, the path is in the host's directory, there are too many files, or `saveSnapshot()` has returned (F2, F4)
   * @throws TypeError if the path is not a string, or the metadata is not a `Uint8Array`
   * @throws RangeError if the id is not in 0…2^64-1, or the metadata is too large
   */
  addFile(fileID: bigint, path: string, metadata: Uint8Array): void {
    try {
      checkFile(fileID, metadata);
      if (typeof path !== "string") {
        throw new TypeError(
          `Path of file ${fileID} is a ${typeof path}; give a string`,
        );
      }
      const problem = this.#sealed
        ? "saveSnapshot() has returned already; add files before"
        : this.#files.has(fileID)
        ? "File id is taken"
        : isHostPath(path)
        ? `Names in "${HOST_DIRECTORY}" are the host's; keep the file under another`
        : this.#files.size === SNAPSHOT_FILES_MAX
        ? `Snapshot has ${SNAPSHOT_FILES_MAX} files already, the most it may have`
        : undefined;
      if (problem) throw new ErrSnapshotFile(problem, fileID, path);
      const file = { fileID, filepath: path, metadata: copyOf(metadata) };
      this.#files.set(fileID, file);
    } catch (error) {
      this.#failure ??= error;
      throw error;
    }
  }

  /** Ends the collection: later calls of `addFile()` throw. */
  seal(): void {
    this.#sealed = true;
  }
}
