import { assert, assertEquals } from "@std/assert";
import { runHistory } from "../etcd/histories/world.ts";
import { testIfEtcd } from "../etcd/nodes.ts";
import { newSeed } from "../support/random.ts";

/** Clients in Deno, and pages of Chromium. */
const CLIENTS = 20;
const PAGES = 3;

/** Load between two restarts, in milliseconds. */
const BETWEEN_MS = 4_000;

testIfEtcd(
  "U30 H3 a rolling restart of three servers on etcd under load: no application in pages of Chromium sees an error, nothing is lost or doubled, and no read goes back",
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
      pages: PAGES,
      isStrict: true,
      pauseMsMax: 1_000,
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
    assertEquals(result.clients, CLIENTS + PAGES);
    assert(result.acknowledged > 4 * (CLIENTS + PAGES));
  },
  true,
);
