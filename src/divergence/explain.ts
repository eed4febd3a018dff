/**
 * Explanation of a divergence: the entry after which two replicas differ (U32).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrDiverged } from "../log/errors.ts";
import type { Hashes } from "./checkpoints.ts";
import { firstDifference, type Replayed } from "./replay.ts";

/**
 * Finds the entry after which a replica differs from the trusted one: the first after
 * which two local replays differ (the machine is not deterministic), or a local replay
 * differs from the hashes of the trusted replica. Returns undefined without such an entry.
 */
export async function explainDivergence(
  { after, upTo, message }: ErrDiverged,
  replay: () => Promise<Replayed | undefined>,
  trusted: () => Promise<readonly Hashes[] | undefined>,
): Promise<ErrDiverged | undefined> {
  const one = await replay();
  const other = await replay();
  const own = firstDifference(one?.hashes, other?.hashes) ?? Infinity;
  const foreign = firstDifference(one?.hashes, await trusted()) ?? Infinity;
  const index = Math.min(own, foreign);
  if (index === Infinity) return undefined;
  const command = one?.commands.get(index);
  return new ErrDiverged(
    `${message}: entry ${index} ${
      index === own
        ? "left two different states when it was applied twice"
        : "left another state on the trusted replica"
    }`,
    { after, upTo, index, command },
  );
}
