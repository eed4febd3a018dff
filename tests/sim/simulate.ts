/**
 * Runs one world and judges its history.
 *
 * @module
 */

import { violations } from "../support/environment.ts";
import { inTurn } from "./env.ts";
import { History } from "./history.ts";
import { ORACLE } from "./machines.ts";
import { judge } from "./oracles.ts";
import { observePhases } from "./phases.ts";
import type { Plan } from "./plan.ts";
import { World } from "./world.ts";

export type { Plan, Profile, Step } from "./plan.ts";

/** True if errors have their stacks, for debugging: `SIMULATION_STACKS=1`. */
const KEEPS_STACKS = Deno.env.has("SIMULATION_STACKS");

/** Digest of everything that happened in a world, in order. */
export function digest(history: History, events: number): string {
  let low = 0;
  let high = events;
  const add = (text: string): void => {
    for (let i = 0; i < text.length; i++) {
      low = Math.imul(low ^ text.charCodeAt(i), 16777619);
      high = Math.imul(high ^ low >>> 13, 2246822519);
    }
  };
  for (
    const { process, kind, input, start, end, outcome } of history.operations
  ) {
    const value = outcome?.kind === "ok" ? outcome.value : outcome?.error;
    add(
      `${process} ${kind} ${input} ${start} ${end} ${outcome?.kind} ${value}`,
    );
  }
  for (const [name, count] of history.counts) add(`${name} ${count}`);
  return `${(high >>> 0).toString(16)}${(low >>> 0).toString(16)}`;
}

/** Runs a world; records what it threw, contracts that were broken, and promises that were rejected without a handler. Returns the number of callbacks that have run. */
export async function runWorld(plan: Plan, history: History): Promise<number> {
  const world = new World(plan, history);
  const rejected = (event: PromiseRejectionEvent): void => {
    event.preventDefault();
    history.rejected(event.reason);
  };
  globalThis.addEventListener("unhandledrejection", rejected);
  violations.length = 0;
  const stopObserving = observePhases(history);
  const { stackTraceLimit } = Error;
  // The many errors of the faults need no stack.
  if (!KEEPS_STACKS) Error.stackTraceLimit = 0;
  try {
    await world.run();
    // Rejections are reported after the event loop had a turn.
    await inTurn(() => {});
  } catch (error) {
    const { stack } = error as { readonly stack?: string };
    history.fail("world", stack ?? `${error}`);
  } finally {
    globalThis.removeEventListener("unhandledrejection", rejected);
    stopObserving();
    Error.stackTraceLimit = stackTraceLimit;
  }
  for (const text of violations.splice(0)) history.fail("contract", text);
  return world.context.clock.events;
}

/** Runs a world; throws if it violates anything, with the command that repeats it. Returns the digest of the run. */
export async function simulate(plan: Plan, command: string): Promise<string> {
  const history = new History();
  const events = await runWorld(plan, history);
  const found = judge(history, ORACLE);
  if (found.length === 0) return digest(history, events);
  const texts = found.slice(0, 5).map(({ oracle, text }) =>
    `${oracle}: ${text.slice(0, 1_000)}`
  );
  throw new Error(
    `${found.length} violations, repeated by\n  ${command}\n${
      texts.join("\n")
    }`,
  );
}
