/**
 * Classification of errors of the log: final ones, and those worth a retry.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { isPromise } from "../async.ts";
import {
  ErrClusterClosed,
  ErrCompacted,
  ErrDiverged,
  ErrLogCorrupted,
  ErrNodeIDTaken,
} from "../log/errors.ts";
import type { LogBatch, LogReader } from "../log/log.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import {
  ErrStoreCorrupted,
  ErrStoreLocked,
  ErrStoreVanished,
} from "../store/errors.ts";

/** Internal error for a log that could not be read, for a reason that may pass. */
export class LogFailure extends Error {}

/** Errors by which a log describes itself; a retry does not help. */
const FINAL = [
  ErrCompacted,
  ErrDiverged,
  ErrLogCorrupted,
  ErrNodeIDTaken,
  ErrClusterClosed,
  ErrStoreCorrupted,
  ErrStoreLocked,
  ErrStoreVanished,
];

function classify(error: unknown): unknown {
  return FINAL.some((known) => error instanceof known)
    ? error
    : new LogFailure("Log could not be read", { cause: error });
}

/** Calls the log and wraps errors that may pass as `LogFailure`. */
export async function guardLog<T>(call: () => MaybePromise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw classify(error);
  }
}

/** Reads the next batch and wraps errors that may pass as `LogFailure`. */
export function nextOf(reader: LogReader): MaybePromise<LogBatch> {
  try {
    const batch = reader.next();
    return isPromise(batch)
      ? batch.catch((error) => {
        throw classify(error);
      })
      : batch;
  } catch (error) {
    throw classify(error);
  }
}
