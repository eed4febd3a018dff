/**
 * The errors of snapshots and of the files that belong to them.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SampanError } from "../statemachine/errors.ts";

/**
 * A snapshot container is damaged, cut off, or none at all: what reading or
 * verifying it fails with, before a bad byte is handed out (H8).
 */
export class ErrSnapshotCorrupted extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrSnapshotCorrupted";
  /** Where in the container the block that cannot be trusted begins, in bytes; 0 if nothing of it is readable. */
  readonly offset: number;
  /** An error that says what is wrong with the block at `offset`. */
  constructor(what: string, offset: number, options?: ErrorOptions) {
    super(`${what}, at byte ${offset} of the snapshot`, options);
    this.offset = offset;
  }
}

/** A snapshot container was written in a version of the format this code does not know (H11). */
export class ErrSnapshotVersion extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrSnapshotVersion";
  /** The version of the container. */
  readonly version: number;
  /** The newest version that can be read. */
  readonly supported: number;
  /** An error for a container of `version`. */
  constructor(version: number, supported: number) {
    super(`Snapshot has version ${version}, known up to ${supported}`);
    this.version = version;
    this.supported = supported;
  }
}

/**
 * `saveSnapshot()` ended and left its stream open and locked, or wrote to it
 * afterwards, so that the snapshot does not hold the whole state: it is dropped,
 * older ones stay, and nothing is compacted behind it (H16).
 */
export class ErrSnapshotUnfinished extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrSnapshotUnfinished";
}

/**
 * A machine recovered from a snapshot and has another state than the one that was
 * saved, say because its code is older than the snapshot and leaves a part out.
 * Nothing is started, and the snapshots stay: start the code that saved it (H16).
 */
export class ErrStateMismatch extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrStateMismatch";
  /** Index of the last entry that the snapshot holds. */
  readonly index: number;
  /** Hash of the state that was saved. */
  readonly saved: bigint;
  /** Hash of the state after the recovery. */
  readonly recovered: bigint;
  /** An error for the snapshot at `index`. */
  constructor(index: number, saved: bigint, recovered: bigint) {
    super(
      `Machine recovered another state from the snapshot at ${index} than the one saved there (hash ${recovered}, not ${saved}): its recoverFromSnapshot() leaves something out, or its code is older than the snapshot. Nothing was started and the snapshot is kept; start with code that reads all of it`,
    );
    this.index = index;
    this.saved = saved;
    this.recovered = recovered;
  }
}

/** A snapshot is not, or no longer, in the store. */
export class ErrSnapshotNotFound extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrSnapshotNotFound";
  /** Identifies the snapshot that is missing. */
  readonly id: string;
  /** An error for the snapshot `id`. */
  constructor(id: string) {
    super(`Snapshot ${id} is not in the store`);
    this.id = id;
  }
}

/** A file cannot be part of a snapshot, say because its id is taken: the snapshot fails, older ones stay (F2). */
export class ErrSnapshotFile extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrSnapshotFile";
  /** The id the file was added under. */
  readonly fileID: bigint;
  /** Where the file is, in the host's file store. */
  readonly path: string;
  /** An error that says what is wrong with the file. */
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

/** There is no file at a path of the host's file store (F2). */
export class ErrFileNotFound extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrFileNotFound";
  /** The path that leads nowhere. */
  readonly path: string;
  /** An error for `path`. */
  constructor(path: string, options?: ErrorOptions) {
    super(`There is no file at "${path}"`, options);
    this.path = path;
  }
}

/** A path of the host's file store leads to a directory where a file is wanted (F2). */
export class ErrFileIsDirectory extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrFileIsDirectory";
  /** The path of the directory. */
  readonly path: string;
  /** An error for `path`. */
  constructor(path: string, options?: ErrorOptions) {
    super(`There is a directory at "${path}", not a file`, options);
    this.path = path;
  }
}
