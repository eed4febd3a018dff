/**
 * The errors of the key-value machines.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SampanError } from "../statemachine/errors.ts";

/**
 * A command that cannot be built: a key, a value or the whole is over its
 * limit, or a part of a batch is not a command. Nothing was proposed.
 */
export class ErrKVInvalidCommand extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrKVInvalidCommand";
}

/** A query, its bytes, or the bytes of its answer that make no sense. */
export class ErrKVInvalidQuery extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrKVInvalidQuery";
}

/**
 * A snapshot payload that is damaged, incomplete, or of another format. The
 * state of the machine that was to recover from it is as it was.
 */
export class ErrKVInvalidSnapshot extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrKVInvalidSnapshot";
}
