/**
 * Watches: answers to queries that are kept up to date.
 *
 * This module is browser compatible.
 *
 * @module
 */

export type { Watch, WatchOptions } from "./watch.ts";
