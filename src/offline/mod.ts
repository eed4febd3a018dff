/**
 * Outbox: durable submissions of a device, sent exactly once, and the optimistic
 * view of them. Given to a host as its option `outbox`.
 *
 * This module is browser compatible.
 *
 * ```ts
 * import { MemoryOutbox } from "./mod.ts";
 * import { kv, KVStateMachine, NodeHost } from "../../mod.ts";
 *
 * await using outbox = new MemoryOutbox();
 * await using host = new NodeHost({ outbox });
 * const replica = await host.startCluster(() => new KVStateMachine(), {
 *   clusterID: 1n,
 *   nodeID: 1n,
 * });
 * const submission = await replica.submit(kv.put("boat", "sampan")); // durable
 * await submission.result; // applied
 * console.log(submission.state, replica.pending().length); // applied 0
 * ```
 *
 * @module
 */

export { BlockOutbox, type BlockOutboxOptions } from "./block_outbox.ts";
export * from "./errors.ts";
export * from "./memory_outbox.ts";
export type {
  JoinedOutboxQueue,
  JoiningParts,
  OutboxClient,
  OutboxQueue,
  OutboxSession,
  OutboxStore,
  QueueContents,
  QueueNote,
  SettledCommand,
  SettledState,
  SharedOutboxQueue,
  SharedOutboxStore,
} from "./outbox_store.ts";
export { attachOutbox } from "./replica_outbox.ts";
