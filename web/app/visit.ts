/**
 * Message of a page about the person in front of it. It is checked where it is
 * received, by the server and by pages.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Longest name of a person, in UTF-16 code units. */
export const PERSON_LENGTH_MAX = 30;

/** Longest id in a message, and longest message, in UTF-16 code units. */
const ID_LENGTH_MAX = 64;
const MESSAGE_LENGTH_MAX = 400;

/** Person at a board. */
export interface Visit {
  /** Random id of the device: several tabs of it are one person. */
  readonly device: string;
  /** Name of the person, as they gave it. */
  readonly name: string;
  /** Id of the card that they are at; null if at none. */
  readonly card: string | null;
  /** True while they write in it. */
  readonly isWriting: boolean;
}

function isText(value: unknown, most: number): value is string {
  return typeof value === "string" && value !== "" && value.length <= most;
}

/** Checks a visit that was received. */
export function visitOf(value: unknown): Visit | undefined {
  const { device, name, card, isWriting } = Object(value) as Visit;
  return isText(device, ID_LENGTH_MAX) && isText(name, PERSON_LENGTH_MAX) &&
      (card === null || isText(card, ID_LENGTH_MAX)) &&
      typeof isWriting === "boolean"
    ? { device, name, card, isWriting }
    : undefined;
}

/** Parses a message of a page; undefined if it is malformed. */
export function parseVisit(message: unknown): Visit | undefined {
  if (!isText(message, MESSAGE_LENGTH_MAX)) return undefined;
  try {
    return visitOf(JSON.parse(message));
  } catch {
    return undefined;
  }
}
