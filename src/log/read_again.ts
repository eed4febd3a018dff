/**
 * Reading of a log that another process keeps.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrCompacted } from "./errors.ts";
import type { Log, LogReader, ReadOptions } from "./log.ts";

/**
 * Opens a reader of the log after an index. Tried twice: another process that keeps
 * the log reports it as compacted also if a snapshot would only be faster, but only
 * the first time.
 *
 * @throws ErrCompacted if the log was compacted there
 */
export async function readAgain(
  log: Log,
  after: number,
  options: ReadOptions,
): Promise<LogReader> {
  try {
    return await log.read(after, options);
  } catch (error) {
    if (!(error instanceof ErrCompacted)) throw error;
    return await log.read(after, options);
  }
}
