/**
 * Recorded histories that lie beside a checkout, too large to be part of it.
 *
 * @module
 */

/** One of them, as far as it is there. */
export interface Recorded {
  /** Its file. */
  readonly url: URL;
  /** Whether the file is missing, so that what needs it is to be skipped. */
  readonly ignore: boolean;
  /** Says so, to go behind a test's name. */
  readonly note: string;
}

/** Looks for a history by its name. */
export function recorded(name: string): Recorded {
  const file = `${name}.json.gz`;
  const url = new URL(`../../../shared/data/${file}`, import.meta.url);
  let ignore = false;
  try {
    Deno.statSync(url);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    ignore = true;
  }
  return { url, ignore, note: ignore ? ` (${file} is not here)` : "" };
}
