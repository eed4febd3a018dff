/**
 * Offline replication: the client and the server in one entry point. A page
 * imports the client alone, which is browser compatible and needs no types of
 * Deno; `protocol.md` defines what goes over the wire between the two.
 *
 * This module needs Deno.
 *
 * @module
 */

export * from "./client/mod.ts";
export * from "./server/mod.ts";
