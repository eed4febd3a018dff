/**
 * Observer of the inner phases of the product, which are transitions in the coverage
 * table: the session of an outbox, and the recovery of a replica.
 *
 * @module
 */

import { Recovery } from "../../src/nodehost/recovery.ts";
import { DurableSession } from "../../src/offline/durable_session.ts";
import type { History } from "./history.ts";

/** Records in `history` the phases of all sessions and recoveries of this process, until the returned function is called. */
export function observePhases(history: History): () => void {
  const { prototype } = Recovery;
  const { recover, recoverInitial, rebuild } = prototype;

  async function observed<T>(
    phase: string,
    work: Promise<T>,
    outcome: (value: T) => string,
  ): Promise<T> {
    try {
      const value = await work;
      history.transition("recovery", phase, outcome(value));
      return value;
    } catch (error) {
      history.transition("recovery", phase, "failed");
      throw error;
    }
  }

  DurableSession.entered = (from, to): void =>
    history.transition("session", from, to);
  prototype.recover = function (): ReturnType<typeof recover> {
    return observed(
      "behind",
      recover.call(this),
      (source) => source === undefined ? "behind" : `snapshot ${source}`,
    );
  };
  prototype.recoverInitial = function (
    hasSkipped?: boolean,
  ): ReturnType<typeof recoverInitial> {
    return observed(
      hasSkipped ? "first without a skipped entry" : "first",
      recoverInitial.call(this, hasSkipped),
      ({ isRemote, stateMachine: { applied } }) =>
        isRemote ? "snapshot server" : applied > 0 ? "state here" : "empty",
    );
  };
  prototype.rebuild = function (
    hasSkipped: boolean,
  ): ReturnType<typeof rebuild> {
    return observed(
      "rebuild",
      rebuild.call(this, hasSkipped),
      ({ isRemote }) => isRemote ? "snapshot server" : "state here",
    );
  };
  return () => {
    DurableSession.entered = undefined;
    Object.assign(prototype, { recover, recoverInitial, rebuild });
  };
}
