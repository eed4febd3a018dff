/**
 * Recorded histories that are stored beside a checkout because of their size.
 *
 * @module
 */

/** Location of a recorded history, and whether it is present. */
export interface Recorded {
  /** URL of the file. */
  readonly url: URL;
  /** True if the file is missing, so that tests which need it are skipped. */
  readonly ignore: boolean;
  /** Suffix for a test's name that says the file is missing. */
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
