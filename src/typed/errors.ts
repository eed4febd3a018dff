/**
 * Errors of typed machines.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SampanError } from "../statemachine/errors.ts";

/** Thrown for a definition of a machine that contradicts itself; the message names the part. */
export class ErrInvalidDefinition extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrInvalidDefinition";
}

/** Thrown for a value that is not plain data, with the path of the part that is not, and for a row that a snapshot could not have (Y4). */
export class ErrNotPlain extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrNotPlain";
}

/** Thrown for arguments of a command that its schema refuses. Nothing was submitted. */
export class ErrInvalidArguments extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrInvalidArguments";
}

/** Thrown for a schema that validates asynchronously: a command is validated in one step. */
export class ErrSchemaAsync extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrSchemaAsync";
}

/**
 * Thrown for arguments whose schema does not accept its own output unchanged: the
 * server validates what was submitted again. Nothing was submitted (Y1).
 */
export class ErrSchemaNotIdempotent extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrSchemaNotIdempotent";
}

/**
 * Thrown for a snapshot that is damaged, or was saved by another machine or in
 * another format. The machine's state is unchanged (Y8).
 */
export class ErrTypedSnapshot extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrTypedSnapshot";
}

/** Thrown for a query of a name that the machine does not have, and for an answer that is a table, an iterator or a promise. */
export class ErrInvalidQuery extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrInvalidQuery";
}
