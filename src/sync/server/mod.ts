/**
 * Server for offline replication: serves the clusters of a host to pages and to
 * other hosts. `protocol.md`, one folder up, defines the wire protocol.
 *
 * This module needs Deno.
 *
 * @module
 */

export {
  type Action,
  type InspectorPermission,
  type Principal,
  SERVER_LIMITS,
  type ServerInspector,
  type ServerLimits,
  type ServerLogRecord,
  type ValidateContext,
} from "./options.ts";
export type { CoreOptions } from "./options.ts";
export { serve, type ServeOptions, type Server } from "./serve.ts";
export { Counts } from "./telemetry.ts";
// Types in the signatures above.
export * from "../errors.ts";
export { PROTOCOL_VERSIONS, type Versions } from "../messages.ts";
export { CloseCode } from "../transport.ts";
