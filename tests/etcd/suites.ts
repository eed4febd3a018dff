/**
 * Tests that take a log, run once more on a node of etcd.
 *
 * @module
 */

import { MemorySnapshotStore } from "../../mod.ts";
import { EtcdLogDB } from "../../src/etcd/mod.ts";
import { runOn, type StoringLogDB } from "../support/log_tests.ts";
import { EtcdNodes, testIfEtcd, withoutEtcd } from "./nodes.ts";

/** Imports files with tests, which then run on etcd, each test below prefixes of its own. */
export async function importOnEtcd(
  folder: string,
  files: readonly string[],
): Promise<void> {
  if (withoutEtcd() !== undefined) {
    testIfEtcd(`tests of ${folder} on etcd`, () => Promise.resolve());
    return;
  }
  let nodes: EtcdNodes | undefined;
  let count = 0;
  Deno.test.beforeAll(async () => {
    nodes = await EtcdNodes.start();
  });
  Deno.test.afterAll(async () => {
    await nodes?.[Symbol.asyncDispose]();
  });
  runOn({
    name: "on etcd",
    create: () =>
      new EtcdLogDB({
        endpoints: nodes!.endpoints,
        prefix: `test${count++}`,
        snapshots: new MemorySnapshotStore(),
      }) as EtcdLogDB & StoringLogDB,
  });
  for (const file of files) await import(`${folder}${file}`);
}
