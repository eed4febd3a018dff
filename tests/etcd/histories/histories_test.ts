import { assert, assertEquals } from "@std/assert";
import { newSeed } from "../../support/random.ts";
import { testIfEtcd } from "../nodes.ts";
import { planOf } from "./plan.ts";
import { runHistory } from "./world.ts";

testIfEtcd(
  "H2 H3 H5 the history of clients of three servers on three etcd nodes is linearizable while any of them is killed, frozen or cut off, and the log is compacted behind snapshots that they fetch from each other: nothing acknowledged is lost, nothing is doubled, all replicas end equal",
  async () => {
    const seed = newSeed();
    const result = await runHistory({
      seed,
      ms: 25_000,
      faultMsMax: 3_000,
      quorumMs: 2_000,
      direct: 2,
      remote: 6,
    });
    assertEquals(result.violations, [], `seed ${seed}`);
    assert(result.acknowledged > 300, `${result.acknowledged} acknowledged`);
    assert(result.events.compacted! > 0, "no log was compacted");
  },
  true,
);

Deno.test("the seed of a history repeats its plan of faults", () => {
  const options = { seed: 7, ms: 60_000, faultMsMax: 5_000, quorumMs: 9_000 };
  assertEquals(planOf(options), planOf(options));
  const kinds = new Set<string>();
  for (let seed = 0; seed < 20; seed++) {
    for (const { kind, at, ms } of planOf({ ...options, seed })) {
      kinds.add(kind.type);
      assert(at + ms <= 65_000);
    }
  }
  assertEquals(kinds.size, 11);
});
