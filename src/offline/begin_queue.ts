/**
 * Beginning of the queue of an outbox that several processes share.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrStoreFull } from "../store/errors.ts";
import { BlockNames, encodeHead, newHead } from "./outbox_block.ts";
import type { JoiningParts } from "./outbox_store.ts";

/**
 * Begins the queue of a cluster, if it is not stored yet: all processes then go on
 * with one client id, by which a copy of the outbox is detected (H14).
 */
export async function beginQueue(
  clusterID: bigint,
  { store, env, durability }: JoiningParts,
): Promise<void> {
  const { head: key, range } = new BlockNames(clusterID);
  try {
    await store.update!(
      { keys: [], range, limit: 1 },
      // Beside other blocks, a missing head is damage.
      ({ inRange }) =>
        inRange.length === 0
          ? { put: [{ key, bytes: encodeHead(clusterID, newHead(env)) }] }
          : undefined,
      durability,
      true,
    );
  } catch (error) {
    // The first command is not added, either.
    if (!(error instanceof ErrStoreFull)) throw error;
  }
}
