/**
 * What was submitted and is not applied yet, kept for good, as a port, and its
 * in-memory twin.
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
 * const submission = await replica.submit(kv.put("boat", "sampan")); // kept
 * await submission.result; // applied
 * console.log(submission.state, replica.pending().length); // applied 0
 * ```
 *
 * @module
 */

export { BlockOutbox, type BlockOutboxOptions } from "./block_outbox.ts";
export { submitting } from "./submitting.ts";
export * from "./errors.ts";
export * from "./memory_outbox.ts";
export * from "./outbox.ts";
