/**
 * Optional interface of a regular machine that applies several commands in one call.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Result } from "../statemachine/types.ts";

/** Optional, for regular machines whose calls cross to another thread: commands of one batch in one call. */
export interface IUpdateAll {
  /**
   * Applies commands one after the other, as `update()` applies each, and adds their
   * results; rejects with the error of the first at which the machine throws, once
   * those before it have their results.
   */
  updateAll(commands: readonly Uint8Array[], results: Result[]): Promise<void>;
}
