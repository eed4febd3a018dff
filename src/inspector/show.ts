/**
 * Values, sizes and times as text for people, within bounds.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { INSPECTOR_DEPTH_MAX, INSPECTOR_TEXT_CHARS_MAX } from "../limits.ts";

/** Text of bytes: hexadecimal digits, and how many are left out. */
function textOfBytes(bytes: Uint8Array, max: number): string {
  const shown = Math.max(1, Math.floor(max / 2));
  const digits = Array.from(
    bytes.subarray(0, shown),
    (byte) => byte.toString(16).padStart(2, "0"),
  ).join("");
  return `0x${digits}${bytes.length > shown ? "…" : ""} (${
    sizeText(bytes.length)
  })`;
}

/** Writer of a text that ends once it is long enough. */
class BoundedText {
  text = "";
  readonly #max: number;

  constructor(max: number) {
    this.#max = max;
  }

  get isFull(): boolean {
    return this.text.length > this.#max;
  }

  list(
    [open, close]: readonly [string, string],
    parts: Iterable<() => void>,
  ): void {
    this.text += open;
    let isFirst = true;
    for (const part of parts) {
      if (this.isFull) break;
      if (!isFirst) this.text += ", ";
      isFirst = false;
      part();
    }
    this.text += close;
  }

  value(value: unknown, depth: number): void {
    if (depth > INSPECTOR_DEPTH_MAX) {
      this.text += "…";
    } else if (value instanceof Uint8Array) {
      this.text += textOfBytes(value, this.#max);
    } else if (typeof value === "string") {
      this.text += JSON.stringify(value.slice(0, this.#max + 1));
    } else if (value instanceof Map) {
      this.list(["{", "}"], this.#pairs(value, depth));
    } else if (Array.isArray(value) || value instanceof Set) {
      this.list(["[", "]"], this.#items(value, depth));
    } else if (typeof value === "object" && value !== null) {
      this.list(["{", "}"], this.#pairs(Object.entries(value), depth));
    } else this.text += String(value);
  }

  *#items(values: Iterable<unknown>, depth: number): Generator<() => void> {
    for (const value of values) yield () => this.value(value, depth + 1);
  }

  *#pairs(
    pairs: Iterable<readonly [unknown, unknown]>,
    depth: number,
  ): Generator<() => void> {
    for (const [key, value] of pairs) {
      yield () => {
        this.text += `${typeof key === "string" ? key : String(key)}: `;
        this.value(value, depth + 1);
      };
    }
  }
}

/** Text of a value, up to a length. */
export function valueText(
  value: unknown,
  max: number = INSPECTOR_TEXT_CHARS_MAX,
): string {
  const writer = new BoundedText(max);
  writer.value(value, 0);
  return writer.isFull ? `${writer.text.slice(0, max)}…` : writer.text;
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

/** Text of a size in bytes. */
export function sizeText(bytes: number): string {
  let unit = 0;
  let size = bytes;
  for (; size >= 1024 && unit < UNITS.length - 1; unit++) size /= 1024;
  return `${unit === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${
    UNITS[unit]
  }`;
}

/** Text of a duration in milliseconds. */
export function durationText(ms: number): string {
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${hours / 24 | 0} d`;
}

/** Text of the time since something happened. */
export function agoText(ms: number): string {
  return ms < 2000
    ? "just now"
    : `${ms < 60_000 ? `${Math.round(ms / 1000)} s` : durationText(ms)} ago`;
}

/** Number with the plural of what is counted. */
export function countText(
  count: number,
  one: string,
  many = `${one}s`,
): string {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

/** Long id with its middle left out. */
export function shortText(id: string): string {
  return id.length <= 12 ? id : `${id.slice(0, 5)}…${id.slice(-4)}`;
}

/** Hash as hexadecimal digits. */
export function hashText(hash: bigint): string {
  return hash.toString(16).padStart(16, "0");
}

/** Text of an error or of any other thrown value. */
export function errorText(error: unknown): string {
  return error instanceof Error && error.message !== ""
    ? error.message
    : String(error);
}
