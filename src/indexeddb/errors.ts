/**
 * Errors that only a browser's storage has.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SampanError } from "../statemachine/errors.ts";

/**
 * Thrown when the browser lacks the storage, refuses it, for example in a private
 * window, or lost the connection to it twice (U5, U9). Nothing was changed.
 */
export class ErrStoreUnavailable extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrStoreUnavailable";
}

/** Message for pages without Web Locks, which a store needs to be open in one page at a time, with what to do. */
export function insecureReason(): string {
  return globalThis.isSecureContext === false
    ? `Nothing can be stored by pages of ${
      globalThis.location?.origin ?? "this origin"
    }, since it is not a secure context and has no Web Locks: serve the page over https, or open it at http://localhost`
    : "Nothing can be stored here, since this browser has no Web Locks: use one of 2022 or later";
}
