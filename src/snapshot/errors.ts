/**
 * Errors of snapshots and of their external files.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SampanError } from "../statemachine/errors.ts";

/**
 * Thrown when a snapshot container is damaged or truncated, or the data is not a
 * container. No damaged byte was returned (H8).
 */
export class ErrSnapshotCorrupted extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrSnapshotCorrupted";
  /** Position of the damaged block in the container, in bytes; 0 if no part is readable. */
  readonly offset: number;
  /** Creates an error that says what is wrong with the block at `offset`. */
  constructor(what: string, offset: number, options?: ErrorOptions) {
    super(`${what}, at byte ${offset} of the snapshot`, options);
    this.offset = offset;
  }
}

/** Thrown when a snapshot container has a format version that this code does not support (H11). */
export class ErrSnapshotVersion extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrSnapshotVersion";
  /** Format version of the container. */
  readonly version: number;
  /** Newest format version that this code supports. */
  readonly supported: number;
  /** Creates an error for a container of `version`. */
  constructor(version: number, supported: number) {
    super(
      `Snapshot has format version ${version}, and this code supports versions up to ${supported}: use the newer code that wrote it`,
    );
    this.version = version;
    this.supported = supported;
  }
}

/**
 * Thrown when `saveSnapshot()` returned with its stream open and locked, or wrote to
 * it later, so that the snapshot lacks a part of the state. The snapshot is
 * discarded, older ones stay, and the log is not compacted (H16).
 */
export class ErrSnapshotUnfinished extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrSnapshotUnfinished";
}

/**
 * Thrown when a state machine recovered from a snapshot and has another state than
 * the saved one, for example because older code ignores a part of it. Nothing is
 * started and the snapshots stay: start the code that saved them (H16).
 */
export class ErrStateMismatch extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrStateMismatch";
  /** Index of the last entry in the snapshot. */
  readonly index: number;
  /** Hash of the saved state. */
  readonly saved: bigint;
  /** Hash of the state after the recovery. */
  readonly recovered: bigint;
  /** Creates an error for the snapshot at `index`. */
  constructor(index: number, saved: bigint, recovered: bigint) {
    super(
      `Machine recovered another state from the snapshot at ${index} than the one saved there (hash ${recovered}, not ${saved}): its recoverFromSnapshot() leaves something out, or its code is older than the snapshot. Nothing was started and the snapshot is kept; start with code that reads all of it`,
    );
    this.index = index;
    this.saved = saved;
    this.recovered = recovered;
  }
}

/** Thrown when a snapshot is not in the store, or was removed. */
export class ErrSnapshotNotFound extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName: string = "ErrSnapshotNotFound";
  /** Id of the missing snapshot. */
  readonly id: string;
  /** Creates an error for the snapshot `id`. */
  constructor(id: string) {
    super(`Snapshot ${id} is not in the store`);
    this.id = id;
  }
}

/** Thrown when a file cannot be part of a snapshot, for example because its id is taken. The snapshot fails; older ones stay (F2). */
export class ErrSnapshotFile extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrSnapshotFile";
  /** Id under which the file was added. */
  readonly fileID: bigint;
  /** Path of the file in the host's file store. */
  readonly path: string;
  /** Creates an error that says what is wrong with the file. */
  constructor(
    what: string,
    fileID: bigint,
    path: string,
    options?: ErrorOptions,
  ) {
    super(`${what}: file ${fileID} at "${path}"`, options);
    this.fileID = fileID;
    this.path = path;
  }
}

/** Thrown when the host's file store has no file at a path (F2). */
export class ErrFileNotFound extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrFileNotFound";
  /** Path without a file. */
  readonly path: string;
  /** Creates an error for `path`. */
  constructor(path: string, options?: ErrorOptions) {
    super(`There is no file at "${path}"`, options);
    this.path = path;
  }
}

/** Thrown when a path of the host's file store is a directory where a file is expected (F2). */
export class ErrFileIsDirectory extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrFileIsDirectory";
  /** Path of the directory. */
  readonly path: string;
  /** Creates an error for `path`. */
  constructor(path: string, options?: ErrorOptions) {
    super(`There is a directory at "${path}", not a file`, options);
    this.path = path;
  }
}

/** Error of a commit before everything of the snapshot was written. */
export function incompleteError(): Error {
  return new Error(
    "Snapshot is incomplete: close its writable before commit()",
  );
}
