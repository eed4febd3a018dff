/**
 * Contract of snapshot stores, for those that come with a log on etcd.
 *
 * @module
 */

import type { SnapshotStore } from "../../src/ports/mod.ts";
import { EtcdLogDB, type EtcdLogOptions } from "../../src/etcd/mod.ts";
import { snapshotStoreConformance } from "../../src/testing/snapshot_store_conformance.ts";

/** Runs the contract on the store of logs with some options, each case below a prefix of its own. */
export async function storeConforms(
  t: Deno.TestContext,
  optionsOf: () => EtcdLogOptions,
): Promise<void> {
  let made = 0;
  const open: EtcdLogDB[] = [];
  const cases = snapshotStoreConformance({
    create: (): SnapshotStore => {
      const logDB = new EtcdLogDB({ ...optionsOf(), prefix: `case${made++}` });
      open.push(logDB);
      return logDB.snapshots!;
    },
  });
  for (const { name, run } of cases) {
    // The store belongs to the code that created it, and stays open.
    await t.step({ name, ignore: /close\(\)/.test(name), fn: run });
  }
  for (const logDB of open) await logDB.close();
}
