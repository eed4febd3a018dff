/**
 * Errors of block stores and of everything stored in them.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SampanError } from "../statemachine/errors.ts";

/** Thrown when stored data is damaged or a part of it is missing; none of it was used. */
export class ErrStoreCorrupted extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrStoreCorrupted";
  /** Damaged or missing part: the name of a block, or the path of a file. */
  readonly part: string;
  /** Creates an error that names the part and says what is wrong with it. */
  constructor(part: string, what: string, options?: ErrorOptions) {
    super(`${what}: ${part}`, options);
    this.part = part;
  }
}

/** Thrown when another process or page has the store open and does not share it. */
export class ErrStoreLocked extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrStoreLocked";
}

/**
 * Thrown when the operating system refuses to read or write a store: the file
 * system is read-only, a permission is missing, or the disk fails.
 */
export class ErrStoreFailed extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrStoreFailed";
  /** Path of the file. */
  readonly path: string;
  /** Creates an error that says what failed for the file at `path`. */
  constructor(path: string, what: string, options?: ErrorOptions) {
    super(
      `${path}: ${what}; the file and its folder must be readable and writable`,
      options,
    );
    this.path = path;
  }
}

/** Thrown when there is no room left; nothing was written, and writes succeed again once there is room. */
export class ErrStoreFull extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrStoreFull";
}

/**
 * Thrown when a store is missing, or older than it is known to have been, and
 * neither log nor snapshots can recover it (D14).
 */
export class ErrStoreVanished extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrStoreVanished";
}

/** Thrown when a store cannot be opened because another page has an older or newer version of it open. */
export class ErrStoreBlocked extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrStoreBlocked";
  /** Time spent waiting for the other page, in milliseconds. */
  readonly waitedMs: number;
  /** Creates an error after a wait of `waitedMs`. */
  constructor(waitedMs: number, message: string, options?: ErrorOptions) {
    super(message, options);
    this.waitedMs = waitedMs;
  }
}

/**
 * Thrown when a store or a backup was written by newer code, which this code must
 * not change (U14). Nothing was changed. In a page, a reload loads the newer code.
 */
export class ErrStoreVersion extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrStoreVersion";
  /** Newest version of the format that this code supports. */
  readonly supported: number;
  /** Creates an error of code that supports versions up to `supported`. */
  constructor(supported: number, message: string, options?: ErrorOptions) {
    super(message, options);
    this.supported = supported;
  }
}

/** Error for a file whose format version is newer than this code supports. */
export function newerVersion(
  file: string,
  version: number,
  supported: number,
): ErrStoreVersion {
  return new ErrStoreVersion(
    supported,
    `${file} has format version ${version}, and this code supports versions up to ${supported}: use the newer code that wrote it`,
  );
}
