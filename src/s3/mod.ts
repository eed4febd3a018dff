/**
 * Snapshots in a bucket of an S3 service, for servers that share them.
 *
 * ```ts ignore
 * import { EtcdLogDB } from "@sampan/sampan/etcd";
 * import { S3SnapshotStore } from "@sampan/sampan/s3";
 *
 * await using snapshots = new S3SnapshotStore({
 *   bucket: "boards",
 *   endpoint: "https://s3.eu-central-1.amazonaws.com",
 *   region: "eu-central-1",
 *   accessKeyId: "…",
 *   secretAccessKey: "…",
 * });
 * await using logDB = new EtcdLogDB({
 *   endpoints: ["http://10.0.0.1:2379"],
 *   snapshots,
 * });
 * ```
 *
 * This module needs Deno.
 *
 * @module
 */

export { ErrS3 } from "./errors.ts";
export * from "./s3_snapshot_store.ts";
export * from "./url.ts";
export type {
  SnapshotHeader,
  SnapshotInfo,
  SnapshotSink,
  SnapshotStore,
  SnapshotTotals,
} from "../snapshot/store.ts";
export type { Env } from "../env.ts";
