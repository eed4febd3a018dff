/**
 * Epochs and points of a log's history, which distinguish it from other histories.
 *
 * This module is browser compatible.
 *
 * @module
 */

/**
 * Point at which a process opened a log for writing: the index of its epoch
 * record and 64 random bits. A log that lacks an epoch which another party knows
 * has another history (H13).
 */
export interface Epoch {
  /** Index of the epoch record. */
  readonly index: number;
  /** Random number in 0…2^64-1 that identifies the epoch. */
  readonly id: bigint;
}

/** Point of a history: an index, and the last epoch at or before it, if there is one. */
export interface HistoryPoint {
  /** Index that was reached. */
  readonly index: number;
  /** Last epoch at or before `index`. */
  readonly epoch?: Epoch | undefined;
}
