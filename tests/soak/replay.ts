/**
 * Replay of a complete log into a fresh machine, which notes what it applies.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  KVStateMachine,
  MemorySnapshotStore,
  NodeHost,
  type Result,
} from "../../mod.ts";
import type { LogDB } from "../../src/ports/mod.ts";
import { nameIn, type Replay } from "./record.ts";

class RecordingMachine extends KVStateMachine {
  readonly names: string[] = [];

  override update(cmd: Uint8Array): Result {
    this.names.push(nameIn(new TextDecoder().decode(cmd)));
    return super.update(cmd);
  }
}

/** Replays the log of a cluster from its start up to its last entry, at `index`. */
export async function replay(
  logDB: LogDB,
  cluster: number,
  index: number,
): Promise<Replay> {
  const machine = new RecordingMachine();
  const snapshots = new MemorySnapshotStore();
  const host = new NodeHost({ logDB, snapshots });
  // Not every browser has `await using`.
  try {
    const replica = await host.startCluster(() => machine, {
      clusterID: BigInt(cluster),
      nodeID: 99n,
    });
    await replica.untilApplied(index);
    const { hash } = await replica.getHash();
    return { hash: `${hash}`, names: machine.names };
  } finally {
    await host.stop();
    await snapshots.close();
  }
}
