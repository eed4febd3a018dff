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
import { ErrChangeUnknown } from "./errors.ts";

/**
 * Returns the command that activates a change by hand; undefined if it is active.
 *
 * @throws ErrChangeUnknown without `force`, if a live replica on the log may not know it
 * @throws ErrNotImplemented if the machine has no changes, or a server orders its log
 */
export function activateChange(
  context: ReplicaContext,
  machine: CurrentMachine,
  change: string,
  options: { readonly force?: boolean },
): Uint8Array | undefined {
  context.stopped.throwIfAborted();
  const { activation } = machine.current.machine;
  if (activation === undefined || context.isOrderedByServer) {
    throw new ErrNotImplemented(
      activation === undefined
        ? "Machine has no changes"
        : "Change is activated by the server that orders the log",
    );
  }
  const cmd = activation.activation(change);
  const { log: { announcements }, clusterID } = context;
  if (
    cmd === undefined || options.force === true ||
    (announcements?.isKnown(change) ?? true)
  ) return cmd;
  const lacking = announcements!.lacking?.(change);
  throw new ErrChangeUnknown(
    change,
    lacking?.servers ?? [],
    `Change ${change} of cluster ${clusterID} is unknown to ${
      lacking?.detail ?? "every live replica"
    }: wait, or set \`force\``,
  );
}

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
  /** Servers for which each change was last said to wait. */
  const waits = new Map<string, string>();
  const wait = (change: string): void => {
    const lacking = announcements?.lacking?.(change);
    if (
      lacking === undefined || waits.get(change) === lacking.detail ||
      machine.current.machine.activation!.activation(change) === undefined
    ) return;
    waits.set(change, lacking.detail);
    context.event({ type: "activation waits", change, ...lacking });
  };
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
      if (underWay.has(change)) continue;
      if (!isDue) {
        wait(change);
        continue;
      }
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
