/**
 * Snapshots from which a state may be recovered.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { SnapshotSource } from "../log/log.ts";
import type { SnapshotInfo } from "../snapshot/store.ts";
import { isUsable, type SkippedEntry } from "./skipped_entries.ts";

/** Snapshot, and the store that has it. */
export interface SnapshotCandidate {
  readonly info: SnapshotInfo;
  readonly store: SnapshotSource;
}

/** Lists the usable snapshots of a cluster, newest first; of one index, that of the first store comes first. */
export async function snapshotCandidates(
  stores: readonly SnapshotSource[],
  clusterID: bigint,
  skips: readonly SkippedEntry[],
): Promise<SnapshotCandidate[]> {
  const found: SnapshotCandidate[] = [];
  for (const store of new Set(stores)) {
    for (const info of await store.list(clusterID)) {
      if (isUsable(info.index, skips)) found.push({ info, store });
    }
  }
  return found.sort((a, b) => b.info.index - a.info.index);
}
