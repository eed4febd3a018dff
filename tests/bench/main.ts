/**
 * Runs every benchmark in sequence and prints each figure beside the one it is
 * compared with. Nothing else should run at the same time.
 *
 * @module
 */

import { collectGarbage } from "../support/garbage.ts";
import { applyBench } from "./apply_bench.ts";
import { backupBench } from "./backup_bench.ts";
import { crowdBench } from "./crowd_bench.ts";
import { hostBench } from "./host_bench.ts";
import { kvBench } from "./kv_bench.ts";
import { packedBench } from "./packed_bench.ts";
import { replayBench } from "./replay_bench.ts";
import { snapshotBench } from "./snapshot_bench.ts";
import { sqliteBench } from "./sqlite_bench.ts";
import { syncBench } from "./sync_bench.ts";
import { yjsBench } from "./yjs_bench.ts";

// deno-lint-ignore no-console
console.log(
  `Deno ${Deno.version.deno}, V8 ${Deno.version.v8}, ${Deno.build.target}, ${navigator.hardwareConcurrency} cores\n`,
);
for (
  const bench of [
    applyBench,
    hostBench,
    replayBench,
    kvBench,
    snapshotBench,
    sqliteBench,
    backupBench,
    packedBench,
    syncBench,
    crowdBench,
    yjsBench,
  ]
) {
  collectGarbage();
  await bench();
}
