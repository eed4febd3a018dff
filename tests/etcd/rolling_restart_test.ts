import { assert, assertEquals } from "@std/assert";
import { newSeed } from "../support/random.ts";
import { runHistory } from "./histories/world.ts";
import { testIfEtcd } from "./nodes.ts";

/** Number of clients of the servers. */
const CLIENTS = 100;

/** Load between two restarts, in milliseconds. */
const BETWEEN_MS = 3_000;

testIfEtcd(
  "U30 H3 a rolling restart of three servers on etcd under load: no application on 100 clients sees an error, nothing is lost or doubled, and no read goes back",
  async () => {
    const seed = newSeed();
    const pause = (): Promise<void> =>
      new Promise((resolve) => setTimeout(resolve, BETWEEN_MS));
    const result = await runHistory({
      seed,
      ms: 0,
      faultMsMax: 0,
      quorumMs: 0,
      direct: 0,
      remote: CLIENTS,
      isStrict: true,
      pauseMsMax: 2_000,
      script: async (world) => {
        for (let i = 0; i < 3; i++) {
          await pause();
          await world.restartServer(i);
        }
        await pause();
      },
    });
    assertEquals(result.violations, [], `seed ${seed}`);
    assertEquals(result.unknown, 0);
    assertEquals(result.clients, CLIENTS);
    assert(result.acknowledged > 4 * CLIENTS, `${result.acknowledged}`);
  },
  true,
);
