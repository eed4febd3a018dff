/**
 * Results of typed commands: a value, or a code of rejection (Y2).
 *
 * ```text
 * value 0: accepted; data: the value, if the handler returned one
 * value 1: rejected; data: the code
 * ```
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Result } from "../statemachine/types.ts";
import { decodePlain, encodePlain } from "./plain.ts";

/** Codes with which the library itself rejects commands. */
export type LibraryCode =
  /** The handler threw, or returned what is not plain data. */
  | "sampan:threw"
  /** The bytes are no command of a typed machine, or name none of this one. */
  | "sampan:malformed"
  /** The command is of newer code, and the definition rejects such. */
  | "sampan:newer"
  /** The edit that it undoes was refused, or the undoing after which it does the edit once more. */
  | "sampan:edit-refused";

const ACCEPTED = 0n;
const REJECTED = 1n;

/** Result of an accepted command. */
export function accepted(value: unknown): Result {
  return value === undefined
    ? { value: ACCEPTED }
    : { value: ACCEPTED, data: encodePlain(value, "result") };
}

/** Result of a rejected command. */
export function rejected(code: string): Result {
  return { value: REJECTED, data: encodePlain(code, "code") };
}

/** Code of a rejection; undefined if the command was accepted. */
export function codeOf({ value, data }: Result): string | undefined {
  if (value === ACCEPTED) return undefined;
  return data === undefined ? "" : String(decodePlain(data));
}

/** Value of an accepted command. */
export function valueOf({ data }: Result): unknown {
  return data === undefined ? undefined : decodePlain(data);
}
