/**
 * Offline replication: a server that serves the clusters of a host, and the log
 * of such a cluster as a page has it. What goes over the wire between the two is
 * written down in `protocol.md`.
 *
 * `serve` and what belongs to it need Deno; everything else is browser
 * compatible.
 *
 * This module needs Deno.
 *
 * @module
 */

export * from "./client/mod.ts";
export * from "./errors.ts";
export * from "./server/mod.ts";
export { CloseCode } from "./transport.ts";
export type { Versions } from "./messages.ts";
