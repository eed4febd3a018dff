/**
 * Forced garbage collection for measurements of memory and time, so that earlier
 * garbage does not count.
 *
 * This module needs Deno.
 *
 * @module
 */

import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

setFlagsFromString("--expose-gc");

/** Runs a full garbage collection. */
export const collectGarbage: () => void = runInNewContext("gc");

/** Collects garbage and returns the size of live objects and buffers, in bytes. */
export function bytesInUse(): number {
  collectGarbage();
  const { heapUsed, external } = Deno.memoryUsage();
  return heapUsed + external;
}
