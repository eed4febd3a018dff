/**
 * The key-value machine in IndexedDB by the contract suite, as cases that run
 * over any IndexedDB.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { kv } from "../../mod.ts";
import { IndexedDBKVStateMachine } from "../../src/indexeddb/mod.ts";
import { checkOnDiskStateMachine, type Disk } from "../../src/testing/mod.ts";
import type { Case } from "../browser/runner.ts";
import { drop, Faults, freshName } from "./faults.ts";

/** Database whose page ends at every crash, even during a call. */
export function disk(memoryBudgetBytes?: number): Disk {
  const name = freshName();
  let page = new Faults();
  return {
    create: () =>
      new IndexedDBKVStateMachine(name, {
        indexedDB: page.factory,
        // A page that ends loses its locks; here it is the disk that ends it.
        locks: null,
        memoryBudgetBytes,
      }),
    crash(): void {
      page.kill();
      page = new Faults();
    },
    async remove(): Promise<void> {
      page.kill();
      await drop(name);
    },
  };
}

/** Creates the cases of this suite, with a number of random histories for each rule. */
export function casesOf(runs: number): Case[] {
  return [{
    name: "D12 IndexedDBKVStateMachine passes the contract suite",
    run: () =>
      checkOnDiskStateMachine({
        disk: () => disk(),
        runs,
        settleTimeoutMs: 20_000,
        commands: [
          kv.put("a", "1"),
          kv.put("b", "2"),
          kv.delete("a"),
          kv.compareAndSwap("a", "1", "3"),
          kv.batch([kv.put("b", ""), kv.put("", "4")]),
          kv.put("large", new Uint8Array(50_000)),
          new Uint8Array([255]),
        ],
        queries: [kv.get("a"), kv.get("b"), kv.count(), kv.range()],
        naQueries: [kv.encodeQuery(kv.range())],
      }),
  }];
}
