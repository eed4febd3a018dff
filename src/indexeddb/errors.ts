/**
 * The errors of a browser's storage that no other storage has.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SampanError } from "../statemachine/errors.ts";

/**
 * A store was made or upgraded by newer code than this, which must not touch it
 * (U14). What helps is to reload the page, so that it runs the newer code.
 */
export class ErrStoreVersion extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrStoreVersion";
  /** The newest version this code knows. */
  readonly supported: number;
  /** An error of code that knows versions up to `supported`. */
  constructor(supported: number, message: string, options?: ErrorOptions) {
    super(message, options);
    this.supported = supported;
  }
}

/**
 * The browser has no such storage, refuses it here, say in a private window, or
 * lost the connection to it twice (U5, U9). Nothing was changed by what fails
 * with this.
 */
export class ErrStoreUnavailable extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrStoreUnavailable";
}
