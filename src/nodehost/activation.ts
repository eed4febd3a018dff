/**
 * Activation of changes of behaviour by the host that orders its log.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { Backoff, onAbort, sleep } from "../async.ts";
import { ErrNotImplemented } from "../statemachine/errors.ts";
import type { Result } from "../statemachine/types.ts";
import type { ReplicaContext } from "./context.ts";
import type { CurrentMachine } from "./current_machine.ts";

/**
 * Appends the activation of each change that the machine knows, once every live
 * replica on the log has announced that it knows the change. Of several replicas
 * the one that announced itself first appends it.
 */
export function activateChanges(
  context: ReplicaContext,
  machine: CurrentMachine,
  propose: (cmd: Uint8Array) => Promise<Result>,
): void {
  const { log: { announcements }, env, stopped } = context;
  const underWay = new Set<string>();
  const activate = async (change: string): Promise<void> => {
    const backoff = new Backoff(env);
    for (;;) {
      const cmd = machine.current.machine.activation!.activation(change);
      if (cmd === undefined) return;
      try {
        await propose(cmd);
      } catch (error) {
        // A copy that is opened read-only, or the end of the replica.
        if (error instanceof ErrNotImplemented || stopped.aborted) return;
        await sleep(env, backoff.next(), stopped);
      }
    }
  };
  const check = (): void => {
    for (const change of machine.current.machine.activation!.changes) {
      const isDue = announcements === undefined ||
        announcements.isFirst && announcements.isKnown(change);
      if (!isDue || underWay.has(change)) continue;
      underWay.add(change);
      activate(change).catch(() => {
        // Stopped while it waited; or the machine threw: the next start tries again.
      });
    }
  };
  check();
  const unwatch = announcements?.watch(check);
  if (unwatch !== undefined) onAbort(stopped, unwatch);
}
