/**
 * Client ids of one outbox: another one after each start over on another history,
 * the same in every copy of the outbox.
 *
 * The server's history may have sessions that the outbox has opened with its
 * earlier ids, before the history that it gave up. A session with its present id or
 * a later one can only be that of a copy.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { OUTBOX_START_OVERS_MAX } from "../limits.ts";

/** Client id of an outbox after it has started over. */
export function nextClientID(clientID: bigint): bigint {
  return BigInt.asUintN(64, clientID + 1n);
}

/** Lists a client id and those of later histories, as far as a copy is recognized by them. */
export function clientIDsFrom(clientID: bigint): readonly bigint[] {
  const ids = [clientID];
  while (ids.length <= OUTBOX_START_OVERS_MAX) {
    ids.push(nextClientID(ids.at(-1)!));
  }
  return ids;
}

/** Lookup of sessions by client id in the replicated state. */
export interface ClientSessions {
  /** Returns the index of the first session above `after` that a client registered (for `owner`, if given) and that still exists. */
  sessionOf(
    clientID: bigint,
    after: number,
    owner: Uint8Array | undefined,
  ): number | undefined;
}

/** True if a copy of an outbox that has started over more often has a session. */
export function hasLaterSession(
  machine: ClientSessions,
  clientID: bigint,
  owner: Uint8Array | undefined,
): boolean {
  return clientIDsFrom(nextClientID(clientID)).some((id) =>
    machine.sessionOf(id, 0, owner) !== undefined
  );
}
