/**
 * Submissions of an outbox, prepared for another history of the log. Loaded when a
 * device starts over.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../env.ts";
import type { BlockStore } from "../store/store.ts";
import { contentsOf, loadQueue } from "./block_queue.ts";
import { nextClientID } from "./client_chain.ts";
import {
  BlockNames,
  encodeHead,
  encodeSettled,
  type QueueHead,
} from "./outbox_block.ts";

/**
 * Marks the session as superseded, and the commands that are not in `pending`, if
 * that is given, as dismissed.
 */
export async function startOver(
  store: BlockStore,
  clusterID: bigint,
  env: Env,
  pending: readonly number[] | undefined,
): Promise<void> {
  const names = new BlockNames(clusterID);
  const stored = await loadQueue(store, clusterID, env, true);
  if (!stored.hasHead) return;
  const { sendLimit, decided, commands } = contentsOf(stored);
  const { head } = stored;
  const isPending = new Set(pending);
  const done = pending === undefined
    ? []
    : commands.map((_, i) => decided + 1 + i)
      .filter((number) => !isPending.has(number));
  const { session, clientID, lostSession } = head;
  const isUsed = session?.clientID === clientID || lostSession > 0;
  const next: QueueHead = {
    ...head,
    sendLimit,
    // Indexes of the other history mean nothing in this one. It may have sessions
    // that were opened with the client id before the histories part; a copy of
    // this outbox goes on with the same one.
    clientID: isUsed ? nextClientID(clientID) : clientID,
    lostSession: 0,
    session: session &&
      { ...session, known: undefined, isSuperseded: true },
  };
  // They keep their places until all before them are decided too.
  const put = done.map((number) => ({
    key: names.settledBlock(number),
    bytes: encodeSettled(clusterID, {
      number,
      state: "dismissed",
      reason: "",
      cmd: new Uint8Array(),
    }),
  }));
  put.push({ key: names.head, bytes: encodeHead(clusterID, next) });
  await store.write({ put }, "strict");
}
