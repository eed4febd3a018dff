/**
 * Collects the external files of a snapshot while the machine saves it.
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

/** Refuses, with a `RangeError`, what a container cannot hold of a file. */
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

/** The files a machine adds to a snapshot, for the host to take in (F1). */
export class SnapshotFileCollection implements ISnapshotFileCollection {
  readonly #files = new Map<bigint, SnapshotFile>();
  #failure: unknown;
  #sealed = false;

  /** The files in the order they were added, each where the machine said it is. */
  get files(): readonly SnapshotFile[] {
    return [...this.#files.values()];
  }

  /** What `addFile()` threw first, undefined if nothing: it fails the snapshot also when the machine swallows it (F2). */
  get failure(): unknown {
    return this.#failure;
  }

  /**
   * Adds a file.
   *
   * @throws ErrSnapshotFile if the id is taken, the path is one of the host's, there are too many files, or the snapshot is done (F2, F4)
   * @throws TypeError if the path is no string or the metadata no Uint8Array
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
        ? "Snapshot is done"
        : this.#files.has(fileID)
        ? "File id is taken"
        : isHostPath(path)
        ? `Names in "${HOST_DIRECTORY}" are the host's; keep the file under another`
        : this.#files.size === SNAPSHOT_FILES_MAX
        ? "There are too many files"
        : undefined;
      if (problem) throw new ErrSnapshotFile(problem, fileID, path);
      const file = { fileID, filepath: path, metadata: copyOf(metadata) };
      this.#files.set(fileID, file);
    } catch (error) {
      this.#failure ??= error;
      throw error;
    }
  }

  /** Ends the collecting: from now on `addFile()` throws. */
  seal(): void {
    this.#sealed = true;
  }
}
