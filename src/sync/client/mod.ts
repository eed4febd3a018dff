/**
 * Replicas whose log is on a server: what a page, or any other client, runs.
 *
 * This module is browser compatible.
 *
 * ```ts ignore
 * import { kv, KVStateMachine, NodeHost } from "../../../mod.ts";
 * import { deviceID } from "../../indexeddb/mod.ts";
 * import { RemoteLogDB } from "./mod.ts";
 *
 * await using logDB = new RemoteLogDB("wss://example.com/sync", {
 *   token: () => localStorage.getItem("token") ?? undefined,
 * });
 * await using host = new NodeHost({ logDB });
 * const replica = await host.startCluster(() => new KVStateMachine(), {
 *   clusterID: 1n,
 *   nodeID: await deviceID(),
 * });
 * await replica.propose(kv.put("boat", "sampan"));
 * ```
 *
 * @module
 */

export type { Hints } from "./reconnect_hints.ts";
export { browserHints } from "./reconnect_hints.ts";
export { RemoteLogDB, type RemoteLogOptions } from "./remote_log_db.ts";
export type { Fetch } from "./http_probe.ts";
export type { Reason, ReasonCode } from "./failure.ts";
export type {
  AddressStatus,
  ClusterProgress,
  ClusterState,
  RemoteState,
  RemoteStatus,
} from "./status.ts";
// What the signatures above name.
export * from "../errors.ts";
export { PROTOCOL_VERSIONS, type Versions } from "../messages.ts";
export {
  CloseCode,
  type Connect,
  connectSocket,
  type Transport,
  type TransportListener,
} from "../transport.ts";
