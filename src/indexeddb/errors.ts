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

/** Message for pages without Web Locks, where a store cannot be kept to one page, with what to do. */
export function insecureReason(): string {
  return globalThis.isSecureContext === false
    ? `Nothing can be kept by pages of ${
      globalThis.location?.origin ?? "this origin"
    }, since it is not a secure context and has no Web Locks: serve the page over https, or open it at http://localhost`
    : "Nothing can be kept here, since this browser has no Web Locks: use one of 2022 or later";
}
