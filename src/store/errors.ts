/**
 * The errors of what keeps data for good.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SampanError } from "../statemachine/errors.ts";

/** What is kept is damaged, or a part of it is missing. Nothing of it was used. */
export class ErrStoreCorrupted extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrStoreCorrupted";
  /** Which part is damaged or missing: a block, a page, a file. */
  readonly part: string;
  /** An error that names the part. */
  constructor(part: string, what: string, options?: ErrorOptions) {
    super(`${what}: ${part}`, options);
    this.part = part;
  }
}

/** Another process or page has the store open and does not share it. */
export class ErrStoreLocked extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrStoreLocked";
}

/** The operating system does not let a store be read or written: the file system is read-only, a permission is missing, the disk fails. */
export class ErrStoreFailed extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrStoreFailed";
  /** Path of the file. */
  readonly path: string;
  /** An error for the file at `path`, and what failed. */
  constructor(path: string, what: string, options?: ErrorOptions) {
    super(
      `${path}: ${what}; the file and its folder must be readable and writable`,
      options,
    );
    this.path = path;
  }
}

/** There is no room left. Nothing was half written; once there is room, work goes on. */
export class ErrStoreFull extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrStoreFull";
}

/** A store is gone, or older than what was recorded of it, and neither log nor snapshots can bring it up (D14). */
export class ErrStoreVanished extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrStoreVanished";
}

/** A store cannot be opened while another page holds an older or newer version of it open. */
export class ErrStoreBlocked extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrStoreBlocked";
  /** How long was waited for the other page, in milliseconds. */
  readonly waitedMs: number;
  /** An error after a wait of `waitedMs`. */
  constructor(waitedMs: number, message: string, options?: ErrorOptions) {
    super(message, options);
    this.waitedMs = waitedMs;
  }
}

/**
 * A store, or a backup, was written by newer code than this, which must not touch
 * it (U14). Nothing was changed. In a page a reload brings the newer code.
 */
export class ErrStoreVersion extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrStoreVersion";
  /** Newest version of the format that this code knows. */
  readonly supported: number;
  /** An error of code that knows versions up to `supported`. */
  constructor(supported: number, message: string, options?: ErrorOptions) {
    super(message, options);
    this.supported = supported;
  }
}

/** Error for a file whose format has a version that this code does not know. */
export function newerVersion(
  file: string,
  version: number,
  supported: number,
): ErrStoreVersion {
  return new ErrStoreVersion(
    supported,
    `${file} has format version ${version}, and this code knows versions up to ${supported}: use the newer code that wrote it`,
  );
}
