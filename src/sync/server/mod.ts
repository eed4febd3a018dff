/**
 * The server of the offline replication: a host's clusters, for pages and for
 * other hosts. `protocol.md` one floor up says what goes over the wire.
 *
 * This module needs Deno.
 *
 * @module
 */

export {
  type Action,
  type Principal,
  SERVER_LIMITS,
  type ServerLimits,
  type ServerLogRecord,
  type ValidateContext,
} from "./options.ts";
export type { CoreOptions } from "./options.ts";
export { serve, type ServeOptions, type Server } from "./serve.ts";
export { Counts } from "./telemetry.ts";
// What the signatures above name.
export * from "../errors.ts";
export { PROTOCOL_VERSIONS, type Versions } from "../messages.ts";
export { CloseCode } from "../transport.ts";
