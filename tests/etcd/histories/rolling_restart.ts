/**
 * Rolling restart of three servers on etcd, under load.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { newSeed } from "../../support/random.ts";
import { runHistory } from "./world.ts";

/** Load of a rolling restart. */
export interface RollingRestart {
  /** Clients in Deno. */
  readonly clients: number;
  /** Pages of Chromium. */
  readonly pages?: number;
  /** Load between two restarts, in milliseconds. */
  readonly betweenMs: number;
  /** Longest pause of a client between two operations, in milliseconds. */
  readonly pauseMsMax: number;
}

/** Restarts three servers one after the other, and checks that no application noticed it. */
export async function restartEachServer(
  { clients, pages = 0, betweenMs, pauseMsMax }: RollingRestart,
): Promise<void> {
  const seed = newSeed();
  const pause = (): Promise<void> =>
    new Promise((resolve) => setTimeout(resolve, betweenMs));
  const result = await runHistory({
    seed,
    ms: 0,
    faultMsMax: 0,
    quorumMs: 0,
    direct: 0,
    remote: clients,
    ...pages > 0 ? { pages } : {},
    isStrict: true,
    pauseMsMax,
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
  assertEquals(result.clients, clients + pages);
  assert(
    result.acknowledged > 4 * (clients + pages),
    `${result.acknowledged} of seed ${seed}`,
  );
}
