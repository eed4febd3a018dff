/**
 * Log of a server.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import { SYNC_LOG_RECORDS_MAX, SYNC_TICK_MS } from "../../limits.ts";
import { notify } from "../../async.ts";
import type { ServerLogRecord } from "./options.ts";

/** Passes log records to the application, and bounds the rate of those that any client can cause. */
export class ServerLog {
  readonly #env: Env;
  readonly #listener: ((record: ServerLogRecord) => void) | undefined;
  /** Rejections since `#countedFrom`. */
  #rejections = 0;
  #countedFrom = -Infinity;

  /** Creates a log that calls `listener`, whose errors are ignored. */
  constructor(
    env: Env,
    listener: ((record: ServerLogRecord) => void) | undefined,
  ) {
    this.#env = env;
    this.#listener = listener;
  }

  /** Logs a record. */
  write(record: ServerLogRecord): void {
    if (this.#listener !== undefined) notify(this.#listener, record);
  }

  /** Logs a rejected request or connection. Past a bounded number per second, only their count is logged. */
  writeRejection(record: ServerLogRecord): void {
    const now = this.#env.now();
    if (now - this.#countedFrom >= SYNC_TICK_MS) {
      const omitted = this.#rejections - SYNC_LOG_RECORDS_MAX;
      this.#countedFrom = now;
      this.#rejections = 0;
      if (omitted > 0) {
        this.write({
          level: "warn",
          event: "refusals not logged",
          reason: `${omitted} more refusals`,
        });
      }
    }
    if (++this.#rejections <= SYNC_LOG_RECORDS_MAX) this.write(record);
  }
}
