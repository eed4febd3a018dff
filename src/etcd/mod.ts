/**
 * Committed log on etcd: for clusters that are served by more than one machine.
 *
 * Of the ways to map a log to etcd this is **one key per cluster**, put again and
 * again: the history of its revisions is the log ([format](format.md)).
 *
 * - A watch replays the history of one key exactly, from any revision, and etcd
 *   numbers the puts of a key: a reader sees at once if it lacks one. With a key for
 *   each batch, catching up costs a range request of 200 ms for each page.
 * - A put is made only if the key is still at the revision that its writer has seen,
 *   so that it can say which index it follows. Indexes are consecutive, as in every
 *   other log here: intervals of snapshots and distances keep their meaning. An index
 *   made of the revision would leave gaps of up to a thousand.
 * - For the same reason a put can be repeated until it has an answer, and cannot be
 *   committed twice. A put that was given up may still be committed, but only as long
 *   as nothing else was put; sessions take care of that one (H3).
 * - One put of each cluster is under way at a time, with all proposals that have
 *   waited for the one before it.
 *
 * The price is that history can only be compacted for all keys of an etcd together:
 * it must be dedicated to Sampan, and must not compact by itself
 * (`--auto-compaction-retention=0`).
 *
 * This module needs Deno.
 *
 * @module
 */

export { type EtcdIdentity, type EtcdUser } from "./client.ts";
export { type EtcdTLS } from "./tls_refusal.ts";
export * from "./errors.ts";
export { ErrOrderLost, ErrOrderShared } from "../log/order_errors.ts";
export { type EtcdServer } from "./live_replicas.ts";
export * from "./etcd_log_db.ts";
export * from "./url.ts";
export {
  type HeldSnapshot,
  type LogQuorum,
  type SnapshotFetch,
  type SnapshotPeers,
} from "../log/log.ts";
export { type EtcdSnapshotPointer } from "./values.ts";
