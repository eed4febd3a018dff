/**
 * Experiments on ends: snapshots nobody wants any more, sinks and sources that
 * fail, and `close()` (R7, R8, R10, C5, D9).
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

/** How a snapshot is ended before its time. */
interface Ending {
  readonly rule: string;
  readonly what: string;
  /** Saves the state of a context, which is ended at a piece that is written, and judges how that went. */
  save(probe: Probe, context: unknown, at: number): Promise<void>;
}

/** Whether an error is one that a stopped `saveSnapshot()` may end with. */
function isStop(error: unknown, signal: AbortSignal): boolean {
  return error === signal.reason || error instanceof ErrSnapshotStopped ||
    error instanceof ErrSnapshotAborted;
}

/** Whether a machine passed on, alone or as the cause of its own error, what its sink failed with. */
function passedOn(error: unknown, failure: unknown): boolean {
  let at = error;
  for (let depth = 0; at !== failure && depth < 8; depth++) {
    at = at instanceof Error ? at.cause : undefined;
  }
  return at === failure;
}

function judge(
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

/** `saveSnapshot()` with a signal that has aborted already: how a host gives a context back (C5). */
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
      judge(outcome, (error) => isStop(error, signal), rule, what);
    },
  };
}

/** `saveSnapshot()` with a signal that aborts while it writes (R8). */
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
    judge(outcome, (error) => isStop(error, signal), "R8", this.what);
  },
};

/** `saveSnapshot()` into a sink that fails: success would be a snapshot that is not there (R8, D9). */
function failing(lab: Lab): Ending {
  const rule = lab.onDisk ? "D9" : "R8";
  const what = "saveSnapshot(), whose writes failed";
  return {
    rule,
    what,
    async save(probe, context, at): Promise<void> {
      const failure = lab.onDisk
        ? new ErrSnapshotStreaming()
        : new Error("Sink failed");
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
      judge(outcome, allowed, rule, what);
    },
  };
}

/** After a snapshot that came to nothing the machine goes on, and can be saved again. */
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

/** `recoverFromSnapshot()` that is stopped settles, with all of the new state or with an error (R8). */
async function stoppedRecovery(lab: Lab, history: History): Promise<void> {
  const original = await originalOf(lab, history);
  await stopRecovery(lab, history, original, "before it began", -1);
  await stopRecovery(lab, history, original, "meanwhile", 0);
  await stopRecovery(lab, history, original, "meanwhile", 1 + history.salt % 3);
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
  judge(
    outcome,
    (error) => error === signal.reason || error instanceof ErrSnapshotStopped,
    "R8",
    what,
  );
  // A machine that gave up is closed and discarded; one that did not has it all.
  if (!outcome.ok) return;
  await expectOriginal(lab, history, original, probe, "R8", `After ${what}`);
}

/** A source that fails does not give a state: `recoverFromSnapshot()` must not succeed with a part (R9). */
async function brokenSource(lab: Lab, history: History): Promise<void> {
  const { saved } = await originalOf(lab, history);
  const probe = await lab.fresh();
  const failure = new Error("Source failed");
  // Not at the end: what is left unread may fail as it likes.
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

/** `close()` changes nothing that `lookup()` can see; after it, refusing to answer is no change (R10). */
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

/** The experiments of this file. */
export const stoppingTrials: readonly Trial[] = [
  {
    name: "a context given back",
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
