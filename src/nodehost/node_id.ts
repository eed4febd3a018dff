/**
 * Node ids of devices.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type Env, systemEnv } from "../env.ts";

/** Bit set in the id of every device, so that servers can have small numbers. */
const DEVICE = 1n << 62n;

/**
 * Creates a random node id for a device. The program stores it and uses it from
 * then on; small numbers are for servers. In a browser, `deviceID()` of
 * `@sampan/sampan/indexeddb` creates and stores one.
 */
export function newNodeID(env: Pick<Env, "random64"> = systemEnv): bigint {
  return env.random64() | DEVICE;
}
