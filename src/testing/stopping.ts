/**
 * Properties of interrupted operations: stopped snapshots, failing sinks and sources,
 * and `close()` (R7, R8, R10, C5, D9).
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
import { randomOf } from "./seeded_globals.ts";
import { expectSame, type Property } from "./property.ts";
import { FileCollection } from "./files.ts";
import type { History } from "./history.ts";
import { entriesOf } from "./history.ts";
import type { Fixture } from "./fixture.ts";
import type { Probe } from "./probe.ts";
import type { Outcome } from "./settle.ts";
import { expectOriginal, type Original, originalOf } from "./snapshots.ts";
import { pieces, Sink } from "./streams.ts";
import { show } from "./value.ts";
import { Breach } from "./violation.ts";

/** Interruption of a save. */
interface Interruption {
  readonly rule: string;
  readonly what: string;
  /** Saves the state of a context, interrupts the save at a piece, and checks the outcome. */
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
 * Creates an interruption: the signal of `saveSnapshot()` has aborted before the call,
 * by which a host releases a context (C5).
 */
function stoppedBefore(fixture: Fixture): Interruption {
  const rule = fixture.type === RegularStateMachine ? "R8" : "C5";
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

/** Interruption: the signal of `saveSnapshot()` aborts during the save (R8). */
const stopped: Interruption = {
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
 * Creates an interruption: the sink of `saveSnapshot()` fails. A save that succeeds
 * nevertheless would claim a snapshot that does not exist (R8, D9).
 */
function failing(fixture: Fixture): Interruption {
  const rule = fixture.onDisk ? "D9" : "R8";
  const what = "saveSnapshot(), whose writes failed";
  return {
    rule,
    what,
    async save(probe, context, at): Promise<void> {
      const failure = fixture.onDisk
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
        (fixture.onDisk
          ? error instanceof ErrSnapshotStreaming
          : passedOn(error, failure));
      expectOutcome(outcome, allowed, rule, what);
    },
  };
}

/** Checks that the machine continues after a failed snapshot, and can be saved again. */
async function survives(
  fixture: Fixture,
  history: History,
  interruption: Interruption,
): Promise<void> {
  const original = await originalOf(fixture, history);
  const { rule, what } = interruption;
  const probe = await fixture.fresh();
  await probe.apply(history, original.head);
  for (const at of [0, 1 + history.salt % 3]) {
    await interruption.save(probe, await probe.prepare(), at);
  }
  probe.blame = rule;
  const copy = await fixture.fresh();
  copy.blame = rule;
  await copy.recover(await probe.save());
  await expectOriginal(
    fixture,
    history,
    original,
    copy,
    rule,
    `A snapshot made after ${what}`,
  );
  await expectOriginal(
    fixture,
    history,
    original,
    probe,
    rule,
    `After ${what}`,
  );
}

/** Checks that a stopped `recoverFromSnapshot()` settles, with the whole new state or an error (R8). */
async function stoppedRecovery(
  fixture: Fixture,
  history: History,
): Promise<void> {
  const original = await originalOf(fixture, history);
  await stopRecovery(fixture, history, original, "before it began", -1);
  await stopRecovery(fixture, history, original, "during", 0);
  await stopRecovery(
    fixture,
    history,
    original,
    "during",
    1 + history.salt % 3,
  );
}

async function stopRecovery(
  fixture: Fixture,
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
  const probe = await fixture.fresh();
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
  await expectOriginal(
    fixture,
    history,
    original,
    probe,
    "R8",
    `After ${what}`,
  );
}

/** Checks that `recoverFromSnapshot()` fails if its source does (R9). */
async function brokenSource(fixture: Fixture, history: History): Promise<void> {
  const { saved } = await originalOf(fixture, history);
  const probe = await fixture.fresh();
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
async function closing(fixture: Fixture, history: History): Promise<void> {
  const probe = await fixture.fresh();
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
    fixture,
    history,
    "R10",
    "close() changes what lookup() sees",
    { ...none, answers: comparable },
    { ...none, answers: after },
  );
}

/** Properties of this module. */
export const stoppingProperties: readonly Property[] = [
  {
    name: "a context released",
    run: (fixture, history) =>
      survives(fixture, history, stoppedBefore(fixture)),
  },
  {
    name: "a stopped save",
    run: (fixture, history) => survives(fixture, history, stopped),
  },
  {
    name: "a failing sink",
    run: (fixture, history) => survives(fixture, history, failing(fixture)),
  },
  { name: "a stopped recovery", run: stoppedRecovery },
  { name: "a failing source", run: brokenSource },
  { name: "close()", run: closing },
];
