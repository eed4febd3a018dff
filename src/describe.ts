/**
 * Text for error messages from values of any kind. No function here throws,
 * whatever the value is.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Length of a string in an error message, in characters. */
const SHOWN_MAX = 80;

/** Describes a value for an error message, in short and with its type. */
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
    // A getter that throws.
  }
  return "an object";
}

/** Message of an error, or the text of any other value that was thrown. */
export function messageOf(error: unknown): string {
  try {
    return error instanceof Error ? `${error.message}` : String(error);
  } catch {
    // An object without a prototype, or one whose `message` throws.
    return "a value that has no text";
  }
}

/** Creates a type error with the value found and the value expected. */
export function wrongType(
  name: string,
  value: unknown,
  give: string,
): TypeError {
  return new TypeError(`${name} is ${describe(value)}; give ${give}`);
}

/** True if a string has no lone surrogates, which all become the same character in UTF-8. */
export function isWellFormed(text: string): boolean {
  return !/\p{Surrogate}/u.test(text);
}
