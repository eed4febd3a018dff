/**
 * Answers of the processes and pages of a history to its coordinator.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { HostEvent, Replica } from "../../../mod.ts";
import type { ErrorClass, HistoryClient } from "./client.ts";
import type { Line, Report, Request } from "./record.ts";

/** Cluster of all histories. */
export const CLUSTER = 1n;

/** Events that no fault of a history explains. */
const WRONG = new Set<HostEvent["type"]>([
  "failed",
  "diverged",
  "hash failed",
  "purged",
  "snapshot failed",
]);

/** Events that a history counts. */
const COUNTED = new Set<HostEvent["type"]>([
  "snapshot",
  "recovered",
  "compacted",
]);

/** Creates the listener that writes down events which mean a violation, or are counted. Faults of the history explain a snapshot that fails with one of some errors. */
export function onEvent(
  name: string,
  write: (line: Line) => unknown,
  explained: readonly ErrorClass[] = [],
): (event: HostEvent) => void {
  return (event) => {
    if (COUNTED.has(event.type)) {
      void write({ type: "event", name: event.type });
    }
    if (!WRONG.has(event.type)) return;
    const { error, failure } = event as { error?: unknown; failure?: unknown };
    const cause = (error ?? failure) as Error | undefined;
    const isExplained = event.type === "snapshot failed" &&
      explained.some((known) => cause instanceof known);
    if (isExplained) return;
    const text = `${name}: event ${event.type}: ${cause?.stack ?? cause}`;
    void write({ type: "violation", text });
  };
}

async function reportOf(replica: Replica, index: number): Promise<Report> {
  if (index === 0) await replica.read("applied");
  else await replica.untilApplied(index);
  const applied = await replica.staleRead("applied") as number;
  const doubled = await replica.staleRead("doubled") as string[];
  const { index: at, hash } = await replica.getHash();
  return { index: at, hash: `${hash}`, applied, doubled };
}

/** Answers a request. */
export async function answerOf(
  request: Exclude<Request, { what: "shut down" | "jump" }>,
  clients: readonly HistoryClient[],
  replicas: readonly Replica[],
): Promise<unknown> {
  switch (request.what) {
    case "stop load":
      await Promise.all(clients.map((client) => client.stop()));
      return null;
    case "report":
      return await Promise.all(
        replicas.map((replica) => reportOf(replica, request.index)),
      );
    case "state":
      return await replicas[0]!.staleRead("state");
  }
}
