/**
 * Claim of a session that an earlier process of the outbox has opened.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrOtherHistory } from "../log/errors.ts";
import type { CurrentMachine } from "../nodehost/current_machine.ts";
import type { Proposals } from "../nodehost/proposals.ts";
import { ErrInvalidSession } from "../rsm/errors.ts";
import { isOtherCommand } from "../rsm/session_table.ts";
import type { SessionInfo } from "../rsm/state_machine.ts";
import { hasLaterSession } from "./client_chain.ts";
import type { StoredSession } from "./stored_session.ts";
import type { SubmissionQueue } from "./submission_queue.ts";

/** Dependencies of {@linkcode claimSession}. */
export interface ClaimParts {
  readonly machine: CurrentMachine;
  readonly proposals: Proposals;
  readonly queue: SubmissionQueue;
  readonly stored: StoredSession;
  /** Resolves once the state has all that the log has at the call. */
  readonly upToDate: () => Promise<void>;
  /** Returns false once the claim is not wanted any more. */
  readonly isWanted: () => boolean;
}

/**
 * Outcome of a claim: a new holder; or `gone` if the cluster does not have the
 * session any more, and `copied` if a holder that this outbox does not know has
 * used it.
 */
export type Claimed = { readonly holder: bigint } | "gone" | "copied";

/**
 * Claims the session of an earlier process, unless another process has claimed it.
 * Returns undefined if the claim is not wanted any more.
 *
 * @throws ErrProposalRefused if the server refuses the claim
 * @throws ErrOtherHistory if the log lacks commands that were decided
 */
export async function claimSession(
  { machine, proposals, queue, stored, upToDate, isWanted }: ClaimParts,
): Promise<Claimed | undefined> {
  const { index, clientID, base, known } = stored.record!;
  /**
   * True if commands were sent through the session that the outbox does not have,
   * by a copy or before the outbox was restored: more than it has, or others under
   * the numbers of those it has. The last one sent is never acknowledged yet. Also
   * true if a copy has started over on this history more often, and has a session.
   */
  const isBehind = ({ next, owner }: SessionInfo): boolean => {
    if (next > queue.loaded + 1 - base) return true;
    if (hasLaterSession(machine, clientID, owner)) return true;
    return queue.queuedUpTo(base + next - 1).some(({ id, bytes }) =>
      isOtherCommand(machine.outcomeOf(index, id - base)?.digest, bytes)
    );
  };
  const session = (): SessionInfo | undefined => {
    const info = machine.sessionInfo(index);
    return info?.clientID === clientID ? info : undefined;
  };
  const holder = await stored.addHolder();
  if (!isWanted()) return undefined;
  const { holders } = stored.record!;
  const before = session();
  if (before !== undefined && isBehind(before)) return "copied";
  const present = machine.sessionInfo(index)?.holder;
  let from = present !== undefined && holders.includes(present)
    ? present
    : holders.at(-2) ?? holder;
  for (;;) {
    try {
      await proposals.claim(index, from, holder);
      break;
    } catch (error) {
      if (!(error instanceof ErrInvalidSession)) throw error;
      // The state may be that of a snapshot, with an earlier holder.
      await upToDate();
    }
    if (!isWanted()) return undefined;
    const now = session();
    if (now === undefined) return "gone";
    if (!holders.includes(now.holder)) return "copied";
    // Another earlier process of this outbox holds it.
    from = now.holder;
  }
  if (!isWanted()) return undefined;
  const now = session();
  if (now === undefined) return "gone";
  if (now.holder !== holder || isBehind(now)) return "copied";
  const decided = queue.undecided - 1 - base;
  if (now.next - 1 < decided) {
    throw new ErrOtherHistory(
      `The log has ${
        now.next - 1
      } commands of session ${index}, of which ${decided} were decided`,
      { known },
    );
  }
  // Only its owner may have claimed it.
  stored.setOwner(now.owner);
  stored.record = { ...stored.record!, holders: [holder] };
  return { holder };
}
