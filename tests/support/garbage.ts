/**
 * Has the engine free what nobody uses, for whoever measures memory or time: what
 * went before is not to count.
 *
 * This module needs Deno.
 *
 * @module
 */

import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

setFlagsFromString("--expose-gc");

/** Frees what nobody uses. */
export const collectGarbage: () => void = runInNewContext("gc");

/** What is in use here after that, objects and buffers, in bytes. */
export function bytesInUse(): number {
  collectGarbage();
  const { heapUsed, external } = Deno.memoryUsage();
  return heapUsed + external;
}
