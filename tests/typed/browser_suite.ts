/**
 * Cases of typed machines that every engine must pass: the same history gives the
 * same hash and the same result after every command.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import type { Case } from "../browser/runner.ts";
import { outcomesOf } from "./determinism.ts";
import { OUTCOMES } from "./golden/outcomes.ts";

/** Cases of typed machines. */
export const cases: readonly Case[] = [
  {
    name:
      "Y2, Y4, Y5 a typed machine has the same hash and result after every command in every engine",
    run: async (): Promise<void> => {
      const found = await outcomesOf(OUTCOMES.length);
      // One by one, so that a difference names its command.
      for (const [i, outcome] of OUTCOMES.entries()) {
        assertEquals([i, found[i]], [i, outcome]);
      }
    },
  },
];
