/**
 * Text for error messages, from values of any kind: nothing here throws, whatever
 * the value is.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Characters of a string that an error message shows. */
const SHOWN_MAX = 80;

/** A value as an error message shows it: short, and recognizable by its type. */
export function describe(value: unknown): string {
  switch (typeof value) {
    case "string":
      return JSON.stringify(
        value.length > SHOWN_MAX ? `${value.slice(0, SHOWN_MAX)}…` : value,
      );
    case "bigint":
      return `${value}n`;
    case "function":
      return "a function";
    case "object":
      if (value === null) return "null";
      return Array.isArray(value) ? "an array" : describeObject(value);
    default:
      return String(value);
  }
}

function describeObject(value: object): string {
  try {
    const name: unknown = value.constructor?.name;
    if (typeof name === "string" && name !== "" && name !== "Object") {
      return `an object of class ${name}`;
    }
  } catch {
    // A property that throws.
  }
  return "an object";
}

/** The message of an error, or the text of any other value that was thrown. */
export function messageOf(error: unknown): string {
  try {
    return error instanceof Error ? `${error.message}` : String(error);
  } catch {
    // An object without a prototype, or one whose `message` throws.
    return "a value that has no text";
  }
}

/** A type error that says what a value is, and what to give. */
export function wrongType(
  name: string,
  value: unknown,
  give: string,
): TypeError {
  return new TypeError(`${name} is ${describe(value)}; give ${give}`);
}

/** True if a string has no lone surrogates: in UTF-8, all of these would become the same character. */
export function isWellFormed(text: string): boolean {
  return !/\p{Surrogate}/u.test(text);
}
