/**
 * The errors of a browser's storage that no other storage has.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SampanError } from "../statemachine/errors.ts";

/**
 * The browser has no such storage, refuses it here, say in a private window, or
 * lost the connection to it twice (U5, U9). Nothing was changed by what fails
 * with this.
 */
export class ErrStoreUnavailable extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrStoreUnavailable";
}
