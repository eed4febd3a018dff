/**
 * Files of the benchmarks, by the first part of the names of their cases. Each
 * is loaded only where one of its cases runs.
 *
 * @module
 */

import type { Cases } from "./report.ts";

/** Modules with cases. */
export const FILES: Readonly<
  Record<string, () => Promise<{ readonly cases: Cases }>>
> = {
  apply: () => import("./apply_bench.ts"),
  host: () => import("./host_bench.ts"),
  replay: () => import("./replay_bench.ts"),
  kv: () => import("./kv_bench.ts"),
  typed: () => import("./typed_bench.ts"),
  packed: () => import("./packed_bench.ts"),
  container: () => import("./snapshot_bench.ts"),
  sqlite: () => import("./sqlite_bench.ts"),
  backup: () => import("./backup_bench.ts"),
  outbox: () => import("./outbox_bench.ts"),
  sync: () => import("./sync_bench.ts"),
  crowd: () => import("./crowd_bench.ts"),
  etcd: () => import("./etcd_bench.ts"),
};
