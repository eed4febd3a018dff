/**
 * Errors of machines in workers.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SampanError } from "../statemachine/errors.ts";

/** Thrown by a machine whose worker has ended, did not load, or does not serve the machine that is asked of it: the replica fails, and a start makes another worker. */
export class ErrWorkerFailed extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrWorkerFailed";
}
