/**
 * The errors of the key-value machines.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SampanError } from "../statemachine/errors.ts";

/**
 * Thrown for a command that cannot be encoded: a key, a value or the whole is
 * over its limit, or a part of a batch is not a command. Nothing was proposed.
 */
export class ErrKVInvalidCommand extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrKVInvalidCommand";
}

/** Thrown for an invalid query, encoded query or encoded answer. */
export class ErrKVInvalidQuery extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrKVInvalidQuery";
}

/**
 * Thrown for a snapshot payload that is damaged, incomplete, or of another
 * format. The machine's state is unchanged.
 */
export class ErrKVInvalidSnapshot extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrKVInvalidSnapshot";
}
