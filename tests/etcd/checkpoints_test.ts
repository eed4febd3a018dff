import { assert, assertEquals } from "@std/assert";
import { EtcdLogDB } from "../../src/etcd/mod.ts";
import type { Checkpoint } from "../../src/ports/mod.ts";
import { test } from "./nodes.ts";

test("H12 the newest checkpoints of replicas reach those of other processes on etcd, and never their own", async (nodes) => {
  const { endpoints } = nodes;
  await using one = new EtcdLogDB({ endpoints });
  await using two = new EtcdLogDB({ endpoints });
  const [a, b] = [await one.open(1n, 1n), await two.open(1n, 2n)];
  const seen: [Checkpoint[], Checkpoint[]] = [[], []];
  a.checkpoints!.watch(1n, (checkpoint) => seen[0].push(checkpoint));
  b.checkpoints!.watch(2n, (checkpoint) => seen[1].push(checkpoint));
  const checkpoint = (nodeID: bigint, index: number): Checkpoint => ({
    nodeID,
    index,
    state: (1n << 64n) - BigInt(index),
    stateVersion: 3,
    sessions: BigInt(index),
  });
  for (const index of [64, 128]) {
    a.checkpoints!.publish(checkpoint(1n, index));
  }
  b.checkpoints!.publish({
    ...checkpoint(2n, 64),
    state: undefined,
    stateVersion: undefined,
  });
  for (let waited = 0; seen.some(({ length }) => length === 0);) {
    assert((waited += 100) < 15_000, "no checkpoint arrived");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assertEquals(seen[1], [checkpoint(1n, 128)]);
  assertEquals(seen[0].map(({ nodeID, state }) => [nodeID, state]), [
    [2n, undefined],
  ]);
  // A removed cluster leaves none that a new one with its id would compare.
  for (const log of [a, b]) await log.close();
  await one.removeData(1n);
  const { output } = await nodes.ctl(
    "get",
    "sampan/check/",
    "--prefix",
    "--keys-only",
  );
  assertEquals(output.trim(), "");
});
