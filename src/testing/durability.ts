/**
 * Experiments on on-disk machines: after a crash they contain a prefix with its
 * index, and all that was synced; a recovery is all or nothing (D1 to D6, D11).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { withResolvers } from "../async.ts";
import { ErrOpenStopped } from "../statemachine/errors.ts";
import type { Result } from "../statemachine/types.ts";
import { randomOf } from "./clock.ts";
import { expectSame, expectSameResults, type Trial } from "./experiment.ts";
import {
  batchesOf,
  entriesOf,
  type Fate,
  type History,
  type LogEntry,
  type Step,
} from "./history.ts";
import { checkedIndex, type Lab, type Place } from "./lab.ts";
import type { Observation, Probe } from "./probe.ts";
import { copyResult } from "./result.ts";
import { expectOriginal, type Original, originalOf } from "./snapshots.ts";
import { pieces } from "./streams.ts";
import { show } from "./value.ts";
import { Breach } from "./violation.ts";

/** Reference run of a machine that never crashes, entry by entry. */
interface Course {
  readonly entries: readonly LogEntry[];
  readonly results: readonly Result[];
  /** Observations before the first entry and after each. */
  readonly states: readonly Observation[];
}

async function courseOf(lab: Lab, history: History): Promise<Course> {
  const entries = entriesOf(history);
  const probe = await lab.fresh();
  const states = [await probe.observe(history)];
  const results: Result[] = [];
  for (const entry of entries) {
    results.push(...(await probe.update([entry])).map(copyResult));
    states.push(await probe.observe(history));
  }
  return { entries, results, states };
}

/** Number of entries in a state with this index; undefined if no entry has it. */
function positionOf(
  entries: readonly LogEntry[],
  index: number,
): number | undefined {
  if (index === 0) return 0;
  const at = entries.findIndex((entry) => entry.index === index);
  return at < 0 ? undefined : at + 1;
}

/** Lets pending calls proceed for some microtasks. */
async function someMicrotasks(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await Promise.resolve();
}

/** Run of a machine through a history with crashes. */
class Journey {
  readonly #lab: Lab;
  readonly #history: History;
  readonly #course: Course;
  readonly #place: Place;
  readonly #random: () => number;
  readonly #met = new Set<Step>();
  #probe: Probe | undefined;
  /** Number of entries in the machine. */
  #position = 0;
  /** Least index that the next `open()` may return, with the rule that demands it. */
  #floor = { index: 0, rule: "D1", why: "" };

  constructor(lab: Lab, history: History, course: Course, place: Place) {
    this.#lab = lab;
    this.#history = history;
    this.#course = course;
    this.#place = place;
    this.#random = randomOf(history.salt);
  }

  #indexAt(position: number): number {
    return position === 0
      ? 0
      : this.#course.entries[position - 1]?.index as number;
  }

  /** Runs to the end of the history and crashes without a sync; runs again, syncs, crashes, and observes the state. */
  async go(): Promise<void> {
    const { length } = this.#course.entries;
    let probe = await this.#toEnd(await this.#open(0));
    await this.#place.crash(probe);
    probe = await this.#toEnd(await this.#open(length));
    await this.#sync(probe);
    await this.#place.crash(probe);
    await this.#open(length);
  }

  async #toEnd(from: Probe): Promise<Probe> {
    const { entries } = this.#course;
    let probe = from;
    while (this.#position < entries.length) {
      const [batch] = batchesOf(
        this.#history,
        entries.slice(this.#position),
        "as drawn",
        this.#position,
      ) as [LogEntry[]];
      probe = await this.#step(probe, batch);
    }
    return probe;
  }

  /** Applies one batch, and the sync and fate that the history has for it. */
  async #step(probe: Probe, batch: readonly LogEntry[]): Promise<Probe> {
    const end = this.#position + batch.length;
    const step = this.#history.steps[end - 1] as Step;
    // A crash happens once, or the run would never end.
    const fate: Fate = this.#met.has(step) ? "continues" : step.fate;
    this.#met.add(step);
    if (fate === "crashes midway" && this.#place.crashes) {
      return await this.#crashMidway(probe, batch, step, end);
    }
    await this.#apply(probe, batch);
    if (step.sync) await this.#sync(probe);
    if (fate === "continues") return probe;
    if (fate === "closes") await probe.close();
    else await this.#place.crash(probe);
    return await this.#open(end);
  }

  async #apply(probe: Probe, batch: readonly LogEntry[]): Promise<void> {
    const from = this.#position;
    const results = await probe.update(batch);
    expectSameResults(
      "D5",
      "A machine that was reopened gives other results",
      this.#course.results.slice(from, from + batch.length),
      results,
      from,
    );
    this.#position += batch.length;
  }

  async #sync(probe: Probe): Promise<void> {
    await probe.sync();
    this.#floor = {
      index: this.#indexAt(this.#position),
      rule: "D6",
      why: "was synced",
    };
  }

  /** Crashes during an update, or during the sync after it. */
  async #crashMidway(
    probe: Probe,
    batch: readonly LogEntry[],
    step: Step,
    end: number,
  ): Promise<Probe> {
    let pending: Promise<unknown>;
    if (step.sync) {
      await this.#apply(probe, batch);
      pending = probe.sync();
    } else {
      pending = probe.update(batch);
    }
    // The machine of this call no longer exists.
    pending.catch(() => {});
    await someMicrotasks(this.#random() % 12);
    await this.#place.crash(probe);
    return await this.#open(end);
  }

  /** Opens the state left behind, with at most `end` entries, and compares it with the reference run. */
  async #open(end: number): Promise<Probe> {
    const { probe, index } = await this.#place.open();
    this.#probe = probe;
    const position = this.#expectIndex(index, end);
    await this.#expectState(index, position);
    this.#position = position;
    // The state found was durable: it cannot be lost later.
    if (index > this.#floor.index) {
      this.#floor = {
        index,
        rule: "D1",
        why: "was returned as durable by an earlier open()",
      };
    }
    return probe;
  }

  #expectIndex(index: number, end: number): number {
    const last = this.#indexAt(end);
    const { index: least, rule, why } = this.#floor;
    if (index > last) {
      throw new Breach(
        "D1",
        end === 0
          ? `open() returned ${index} for a new machine, not 0`
          : `open() returned ${index}, beyond the last entry ${last}`,
      );
    }
    if (index < least) {
      throw new Breach(rule, `open() returned ${index}, but ${least} ${why}`);
    }
    const position = positionOf(this.#course.entries, index);
    if (position === undefined) {
      throw new Breach("D1", `open() returned ${index}, an index no entry had`);
    }
    return position;
  }

  async #expectState(index: number, position: number): Promise<void> {
    const history = this.#history;
    const { states } = this.#course;
    const found = await (this.#probe as Probe).observe(history);
    const expected = states[position] as Observation;
    const difference = this.#lab.difference(history, expected, found);
    if (difference === undefined) return;
    const other = states.findIndex((state) =>
      this.#lab.difference(history, state, found) === undefined
    );
    throw other < 0
      ? new Breach(
        "D5",
        `open() returned ${index}, but the state is of no prefix of the log: ${difference.text}`,
      )
      : new Breach(
        "D4",
        `open() returned ${index}, but the state is that of index ${
          this.#indexAt(other)
        }: ${difference.text}`,
      );
  }
}

/**
 * Checks that a reopened machine has a prefix with its index and all that was
 * synced, after any crash (D1, D3 to D6).
 */
async function crashes(lab: Lab, history: History): Promise<void> {
  const course = await courseOf(lab, history);
  await new Journey(lab, history, course, await lab.place()).go();
}

/** Checks that a stopped `open()` settles and changes nothing (D2). */
async function stoppedOpen(lab: Lab, history: History): Promise<void> {
  const course = await courseOf(lab, history);
  const place = await lab.place();
  const later = 1 + history.salt % 4;
  for (const when of [0, later]) await tryStoppedOpen(place, 0, when);
  const { probe } = await place.open();
  await probe.apply(history, course.entries);
  await probe.sync();
  await place.crash(probe);
  const last = course.entries.at(-1)?.index ?? 0;
  for (const when of [0, later]) await tryStoppedOpen(place, last, when);
  const again = await place.open();
  if (again.index !== last) {
    throw new Breach(
      "D2",
      `open() returned ${again.index} after an open() that was stopped, not ${last}`,
    );
  }
  expectSame(
    lab,
    history,
    "D2",
    "After an open() that was stopped",
    course.states.at(-1) as Observation,
    await again.probe.observe(history),
  );
}

/** Opens with a signal that aborts after some microtasks, or has aborted before. */
async function tryStoppedOpen(
  place: Place,
  expected: number,
  microtasks: number,
): Promise<void> {
  const probe = place.make();
  const controller = new AbortController();
  const { signal } = controller;
  const reason = new ErrOpenStopped();
  if (microtasks === 0) controller.abort(reason);
  const opening = probe.outcome(
    "D2",
    "open(), stopped,",
    () => probe.subject.open(signal),
  );
  await someMicrotasks(microtasks);
  controller.abort(reason);
  const outcome = await opening;
  await place.crash(probe);
  if (outcome.ok) {
    if (checkedIndex(outcome.value) === expected) return;
    throw new Breach(
      "D2",
      `open(), stopped, returned ${outcome.value}, not ${expected}`,
    );
  }
  const { error } = outcome;
  if (error === reason || error instanceof ErrOpenStopped) return;
  throw new Breach("D2", `open(), stopped, threw ${show(error)}`, {
    cause: error,
  });
}

/** Checks that a crash during a recovery leaves the old state or the new one (D11). */
async function brokenRecovery(lab: Lab, history: History): Promise<void> {
  const original = await originalOf(lab, history);
  const course = await courseOf(lab, history);
  for (const at of [0, 2, 4]) {
    await breakAt(lab, history, original, course, at + history.salt % 2);
  }
}

async function breakAt(
  lab: Lab,
  history: History,
  original: Original,
  course: Course,
  at: number,
): Promise<void> {
  const place = await lab.place();
  const old = original.head.length >> 1;
  const { probe } = await place.open();
  await probe.apply(history, original.head.slice(0, old));
  await probe.sync();
  await breakRecovery(place, probe, history, original, at);
  const what = "After a crash in the middle of recoverFromSnapshot()";
  const found = await place.open();
  const isOld = await expectOldOrNew(lab, history, course, old, found, what);
  if (isOld) await found.probe.recover(original.saved);
  await found.probe.sync();
  await place.crash(found.probe);
  await expectRecovered(lab, history, original, place);
}

/** Starts a recovery and crashes at one of its first pieces, or right after the last. */
async function breakRecovery(
  place: Place,
  probe: Probe,
  history: History,
  { saved }: Original,
  at: number,
): Promise<void> {
  const random = randomOf(history.salt);
  const sizes = saved.bytes.length < 40
    ? pieces(random)
    : (): number => Math.ceil(saved.bytes.length / 4);
  if (!place.crashes) {
    // Without a crash of the disk, the source ends the recovery.
    const outcome = await probe.recoverFrom("D11", saved, {
      sizes,
      hook: (piece): void => {
        if (piece === at) throw new Error(`Source failed at piece ${piece}`);
      },
    });
    if (!outcome.ok) await probe.close();
    return await place.crash(probe);
  }
  const reached = withResolvers<void>();
  const gone = withResolvers<void>();
  const recovering = probe.recoverFrom("D11", saved, {
    sizes,
    hook: async (piece): Promise<void> => {
      if (piece !== at) return;
      reached.resolve();
      // Never continued: whatever still waits for it must have no effect.
      await gone.promise;
      throw new Error("Crashed");
    },
  });
  await Promise.race([reached.promise, recovering]);
  recovering.catch(() => {});
  await someMicrotasks(random() % 12);
  await place.crash(probe);
  gone.resolve();
}

/** True if the old state is found; throws a breach if neither state is. */
async function expectOldOrNew(
  lab: Lab,
  history: History,
  course: Course,
  old: number,
  found: { readonly probe: Probe; readonly index: number },
  what: string,
): Promise<boolean> {
  const seen = await found.probe.observe(history);
  const matches = (position: number): boolean =>
    positionOf(course.entries, found.index) === position &&
    lab.difference(history, course.states[position] as Observation, seen) ===
      undefined;
  if (matches(history.cut)) return false;
  if (matches(old)) return true;
  throw new Breach(
    "D11",
    `${what} open() returned ${found.index}, and the state is neither the old one (after ${old} commands) nor the new one (after ${history.cut})`,
  );
}

/** Checks that a synced recovery is found again, and continues. */
async function expectRecovered(
  lab: Lab,
  history: History,
  original: Original,
  place: Place,
): Promise<void> {
  const { probe, index } = await place.open();
  const expected = original.head.at(-1)?.index ?? 0;
  if (index !== expected) {
    throw new Breach(
      "D6",
      `open() returned ${index}, but a snapshot of ${expected} was recovered and synced`,
    );
  }
  await expectOriginal(
    lab,
    history,
    original,
    probe,
    "D6",
    "A snapshot that was recovered and synced, opened again",
  );
}

/** Experiments of this module, for on-disk machines. */
export const durabilityTrials: readonly Trial[] = [
  { name: "crashes", run: crashes },
  { name: "a broken recovery", run: brokenRecovery },
  { name: "a stopped open()", run: stoppedOpen },
];
