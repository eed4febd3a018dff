/**
 * Node ids of devices.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type Env, systemEnv } from "../env.ts";

/** Set in the id of every device, so that small numbers are left to servers. */
const DEVICE = 1n << 62n;

/**
 * Makes a random node id for a device, for a program to keep and use from then on.
 * Small numbers are left to servers. In a browser, `deviceID()` of
 * `@sampan/sampan/indexeddb` makes one and keeps it.
 */
export function newNodeID(env: Pick<Env, "random64"> = systemEnv): bigint {
  return env.random64() | DEVICE;
}
