/**
 * Experiments on endings: dropped snapshots, failing sinks and sources, and
 * `close()` (R7, R8, R10, C5, D9).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { systemEnv } from "../env.ts";
import {
  ErrSnapshotAborted,
  ErrSnapshotStopped,
  ErrSnapshotStreaming,
} from "../statemachine/errors.ts";
import { RegularStateMachine } from "../statemachine/types.ts";
import { randomOf } from "./clock.ts";
import { expectSame, type Trial } from "./experiment.ts";
import { FileCollection } from "./files.ts";
import type { History } from "./history.ts";
import { entriesOf } from "./history.ts";
import type { Lab } from "./lab.ts";
import type { Probe } from "./probe.ts";
import type { Outcome } from "./settle.ts";
import { expectOriginal, type Original, originalOf } from "./snapshots.ts";
import { pieces, Sink } from "./streams.ts";
import { show } from "./value.ts";
import { Breach } from "./violation.ts";

/** Way of ending a snapshot early. */
interface Ending {
  readonly rule: string;
  readonly what: string;
  /** Saves the state of a context, ends the save at a piece, and checks the outcome. */
  save(probe: Probe, context: unknown, at: number): Promise<void>;
}

/** True for an error that a stopped `saveSnapshot()` may end with. */
function isStop(error: unknown, signal: AbortSignal): boolean {
  return error === signal.reason || error instanceof ErrSnapshotStopped ||
    error instanceof ErrSnapshotAborted;
}

/** True if a machine rethrew the error of its sink, directly or as a cause. */
function passedOn(error: unknown, failure: unknown): boolean {
  let at = error;
  for (let depth = 0; at !== failure && depth < 8; depth++) {
    at = at instanceof Error ? at.cause : undefined;
  }
  return at === failure;
}

function expectOutcome(
  outcome: Outcome<void>,
  allowed: (error: unknown) => boolean,
  rule: string,
  what: string,
): void {
  if (outcome.ok || allowed(outcome.error)) return;
  throw new Breach(rule, `${what}, threw ${show(outcome.error)}`, {
    cause: outcome.error,
  });
}

/**
 * Creates the ending where the signal of `saveSnapshot()` has aborted before:
 * the way a host releases a context (C5).
 */
function unwanted(lab: Lab): Ending {
  const rule = lab.type === RegularStateMachine ? "R8" : "C5";
  const what = "saveSnapshot(), given a signal that had aborted";
  return {
    rule,
    what,
    async save(probe, context): Promise<void> {
      const signal = AbortSignal.abort(new ErrSnapshotStopped());
      const outcome = await probe.saveInto(
        rule,
        context,
        new Sink(),
        new FileCollection(),
        signal,
      );
      expectOutcome(outcome, (error) => isStop(error, signal), rule, what);
    },
  };
}

/** Ending where the signal of `saveSnapshot()` aborts during the save (R8). */
const stopped: Ending = {
  rule: "R8",
  what: "saveSnapshot(), stopped while it wrote",
  async save(probe, context, at): Promise<void> {
    const controller = new AbortController();
    const { signal } = controller;
    const sink = new Sink(async (piece): Promise<void> => {
      if (piece !== at) return;
      controller.abort(new ErrSnapshotStopped());
      await systemEnv.turn();
    });
    const outcome = await probe.saveInto(
      "R8",
      context,
      sink,
      new FileCollection(),
      signal,
    );
    expectOutcome(outcome, (error) => isStop(error, signal), "R8", this.what);
  },
};

/**
 * Creates the ending where the sink of `saveSnapshot()` fails: success would
 * claim a snapshot that does not exist (R8, D9).
 */
function failing(lab: Lab): Ending {
  const rule = lab.onDisk ? "D9" : "R8";
  const what = "saveSnapshot(), whose writes failed";
  return {
    rule,
    what,
    async save(probe, context, at): Promise<void> {
      const failure = lab.onDisk
        ? new ErrSnapshotStreaming()
        : new Error("Sink failed (test)");
      const sink = new Sink((piece) => {
        if (piece === at) throw failure;
      });
      const outcome = await probe.saveInto(
        rule,
        context,
        sink,
        new FileCollection(),
      );
      if (outcome.ok && sink.failure !== undefined) {
        throw new Breach(rule, `${what}, returned as if it had succeeded`);
      }
      const allowed = (error: unknown): boolean =>
        error instanceof ErrSnapshotAborted ||
        (lab.onDisk
          ? error instanceof ErrSnapshotStreaming
          : passedOn(error, failure));
      expectOutcome(outcome, allowed, rule, what);
    },
  };
}

/** Checks that the machine continues after a failed snapshot, and can be saved again. */
async function survives(
  lab: Lab,
  history: History,
  ending: Ending,
): Promise<void> {
  const original = await originalOf(lab, history);
  const { rule, what } = ending;
  const probe = await lab.fresh();
  await probe.apply(history, original.head);
  for (const at of [0, 1 + history.salt % 3]) {
    await ending.save(probe, await probe.prepare(), at);
  }
  probe.blame = rule;
  const copy = await lab.fresh();
  copy.blame = rule;
  await copy.recover(await probe.save());
  await expectOriginal(
    lab,
    history,
    original,
    copy,
    rule,
    `A snapshot made after ${what}`,
  );
  await expectOriginal(lab, history, original, probe, rule, `After ${what}`);
}

/** Checks that a stopped `recoverFromSnapshot()` settles, with the whole new state or an error (R8). */
async function stoppedRecovery(lab: Lab, history: History): Promise<void> {
  const original = await originalOf(lab, history);
  await stopRecovery(lab, history, original, "before it began", -1);
  await stopRecovery(lab, history, original, "during", 0);
  await stopRecovery(lab, history, original, "during", 1 + history.salt % 3);
}

async function stopRecovery(
  lab: Lab,
  history: History,
  original: Original,
  when: string,
  at: number,
): Promise<void> {
  const controller = new AbortController();
  const abort = (): void => controller.abort(new ErrSnapshotStopped());
  const { signal } = controller;
  if (at < 0) abort();
  const what = `recoverFromSnapshot(), stopped ${when}`;
  const probe = await lab.fresh();
  const outcome = await probe.recoverFrom("R8", original.saved, {
    sizes: pieces(randomOf(history.salt)),
    signal,
    hook: async (piece): Promise<void> => {
      if (piece !== at) return;
      abort();
      await systemEnv.turn();
    },
  });
  expectOutcome(
    outcome,
    (error) => error === signal.reason || error instanceof ErrSnapshotStopped,
    "R8",
    what,
  );
  // A machine whose recovery failed is discarded; one that succeeded has the
  // whole state.
  if (!outcome.ok) return;
  await expectOriginal(lab, history, original, probe, "R8", `After ${what}`);
}

/** Checks that `recoverFromSnapshot()` fails if its source does (R9). */
async function brokenSource(lab: Lab, history: History): Promise<void> {
  const { saved } = await originalOf(lab, history);
  const probe = await lab.fresh();
  const failure = new Error("Source failed (test)");
  // Not at the end: an error of unread bytes may be ignored.
  const at = history.salt % 2;
  let failed = false;
  const outcome = await probe.recoverFrom("R9", saved, {
    sizes: pieces(randomOf(history.salt)),
    hook: (piece): void => {
      if (piece !== at) return;
      failed = true;
      throw failure;
    },
  });
  if (outcome.ok && failed) {
    throw new Breach(
      "R9",
      "recoverFromSnapshot(), whose source failed, returned as if it had succeeded",
    );
  }
}

/** Checks that `close()` changes no answer of `lookup()`, which may reject afterwards (R10). */
async function closing(lab: Lab, history: History): Promise<void> {
  const probe = await lab.fresh();
  await probe.apply(history, entriesOf(history));
  const before = await probe.lookups(history);
  await probe.close();
  const after = await probe.lookups(history);
  const comparable = before.map((answer, i) => {
    const later = after[i];
    return later !== undefined && "thrown" in later ? later : answer;
  });
  const none = { naAnswers: [], hash: undefined };
  expectSame(
    lab,
    history,
    "R10",
    "close() changes what lookup() sees",
    { ...none, answers: comparable },
    { ...none, answers: after },
  );
}

/** Experiments of this module. */
export const stoppingTrials: readonly Trial[] = [
  {
    name: "a context released",
    run: (lab, history) => survives(lab, history, unwanted(lab)),
  },
  {
    name: "a stopped save",
    run: (lab, history) => survives(lab, history, stopped),
  },
  {
    name: "a failing sink",
    run: (lab, history) => survives(lab, history, failing(lab)),
  },
  { name: "a stopped recovery", run: stoppedRecovery },
  { name: "a failing source", run: brokenSource },
  { name: "close()", run: closing },
];
