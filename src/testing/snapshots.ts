/**
 * Experiments on what a snapshot is worth: all of the state, as of the moment it
 * stands for, in whatever pieces it arrives, on whatever it replaces (R9, C4,
 * D8, F1 to F3).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { systemEnv } from "../env.ts";
import {
  OnDiskStateMachine,
  RegularStateMachine,
  type Result,
} from "../statemachine/types.ts";
import { randomOf } from "./clock.ts";
import { expectSame, expectSameResults, type Trial } from "./experiment.ts";
import {
  batchesOf,
  entriesOf,
  type History,
  type LogEntry,
} from "./history.ts";
import type { Lab } from "./lab.ts";
import type { Observation, Probe, Saved } from "./probe.ts";
import { copyResult } from "./result.ts";
import { bytewise, pieces, type Sizes, WHOLE } from "./streams.ts";
import { equalBytes, showBytes } from "./value.ts";
import { Breach } from "./violation.ts";

/** A machine that was saved in the middle of a history and went on to its end. */
export interface Original {
  readonly saved: Saved;
  /** The entries in the snapshot, and those after it. */
  readonly head: readonly LogEntry[];
  readonly tail: readonly LogEntry[];
  /** What was seen at the moment of the snapshot. */
  readonly moment: Observation;
  readonly results: readonly Result[];
  readonly end: Observation;
}

/** Takes a machine through a history and saves it at the cut, nothing else going on. */
export async function originalOf(
  lab: Lab,
  history: History,
): Promise<Original> {
  const entries = entriesOf(history);
  const head = entries.slice(0, history.cut);
  const tail = entries.slice(history.cut);
  const probe = await lab.fresh();
  await probe.apply(history, head);
  const saved = await probe.save();
  const moment = await probe.observe(history);
  const results = await probe.apply(history, tail, { from: history.cut });
  return {
    saved,
    head,
    tail,
    moment,
    results: results.map(copyResult),
    end: await probe.observe(history),
  };
}

/** Holds a machine at the moment of the snapshot against the original, and again when it has gone on to the end. */
export async function expectOriginal(
  lab: Lab,
  history: History,
  original: Original,
  probe: Probe,
  rule: string,
  what: string,
): Promise<void> {
  const { moment, tail, results, end } = original;
  expectSame(lab, history, rule, what, moment, await probe.observe(history));
  const later = await probe.apply(history, tail, { from: history.cut });
  expectSameResults(rule, `${what}, later`, results, later, history.cut);
  expectSame(
    lab,
    history,
    rule,
    `${what}, later`,
    end,
    await probe.observe(history),
  );
}

/** An instance that has state of its own: the commands after the snapshot, at indexes before it. */
async function occupied(lab: Lab, history: History): Promise<Probe> {
  const entries = entriesOf(history);
  const probe = await lab.fresh();
  const others = entries.slice(history.cut).map(({ cmd }, i) => ({
    cmd,
    index: entries[i]?.index as number,
  }));
  // A machine on disk is never sent a snapshot older than what it has.
  await probe.apply(
    history,
    lab.onDisk ? others.slice(0, history.cut) : others,
  );
  return probe;
}

/** One way a snapshot reaches a machine. */
interface Way {
  readonly name: string;
  readonly onto: (lab: Lab, history: History) => Promise<Probe>;
  readonly sizes: (history: History) => Sizes;
  readonly lookups?: boolean;
}

const fresh: Way["onto"] = (lab) => lab.fresh();

const ways: readonly Way[] = [
  {
    name: "into a new instance",
    onto: fresh,
    sizes: () => WHOLE,
  },
  {
    name: "into a new instance, byte by byte",
    onto: fresh,
    sizes: bytewise,
  },
  {
    name: "into a new instance, in pieces of random sizes",
    onto: fresh,
    sizes: ({ salt }) => pieces(randomOf(salt)),
  },
  {
    name: "into an instance that had state (the commands after the snapshot)",
    onto: occupied,
    sizes: () => WHOLE,
  },
  {
    name: "into an instance that had state, with lookups meanwhile",
    onto: occupied,
    sizes: ({ salt }) => pieces(randomOf(salt)),
    lookups: true,
  },
];

/** Recovering gives the state that was saved, whichever way it goes (R9). */
async function recovery(lab: Lab, history: History): Promise<void> {
  const original = await originalOf(lab, history);
  for (const way of ways) {
    if (way.lookups && lab.type === RegularStateMachine) continue;
    const probe = await way.onto(lab, history);
    const what =
      `A snapshot after ${history.cut} commands, recovered ${way.name}`;
    probe.blame = "R9";
    const beside: Promise<unknown>[] = [];
    await probe.recover(original.saved, {
      sizes: way.sizes(history),
      hook: (): void => {
        if (way.lookups && beside.length < 4) {
          beside.push(probe.lookups(history));
        }
      },
    });
    await Promise.all(beside);
    await expectOriginal(lab, history, original, probe, "R9", what);
  }
}

/** A snapshot of nothing leaves nothing of what was there (R9); drawn histories seldom have one. */
async function emptySnapshot(lab: Lab, history: History): Promise<void> {
  // A machine on disk is never sent a snapshot older than what it has.
  if (lab.onDisk) return;
  const original = await originalOf(lab, { ...history, cut: 0 });
  const probe = await lab.fresh();
  await probe.apply(history, entriesOf(history));
  probe.blame = "R9";
  await probe.recover(original.saved);
  await expectOriginal(
    lab,
    { ...history, cut: 0 },
    original,
    probe,
    "R9",
    "A snapshot of an empty machine, recovered into an instance that had state",
  );
}

/** What was recovered can be saved and recovered in its turn (R9). */
async function secondGeneration(lab: Lab, history: History): Promise<void> {
  const original = await originalOf(lab, history);
  const middle = await lab.fresh();
  await middle.recover(original.saved);
  const saved = await middle.save();
  const last = await lab.fresh();
  last.blame = "R9";
  await last.recover(saved);
  await expectOriginal(
    lab,
    history,
    original,
    last,
    "R9",
    "A snapshot of a machine that was itself recovered from one",
  );
}

/** Files laid out for a recovery are the host's: what is to stay was copied (F3). */
async function filesGone(lab: Lab, history: History): Promise<void> {
  if (lab.onDisk || lab.options.files === undefined) return;
  const original = await originalOf(lab, history);
  if (original.saved.files.length === 0) return;
  const probe = await lab.fresh();
  let before: Observation | undefined;
  await probe.recover(original.saved, {
    before: async (): Promise<void> => {
      before = await probe.observe(history);
    },
  });
  expectSame(
    lab,
    history,
    "F3",
    "Files a snapshot came with are removed when recoverFromSnapshot() has returned, and that changes the machine",
    before as Observation,
    await probe.observe(history),
  );
}

/** Gives a machine the rest of a history while it is being saved, without ever making the saving wait for it. */
class Backlog {
  readonly #probe: Probe;
  readonly #batches: LogEntry[][];
  #chain: Promise<Result[]>;
  #failed = false;

  constructor(probe: Probe, history: History, entries: readonly LogEntry[]) {
    this.#probe = probe;
    this.#batches = batchesOf(history, entries, "one by one");
    this.#chain = Promise.resolve([]);
  }

  /** Begins the next update; a machine may as well hold it back until it was saved. */
  async next(): Promise<void> {
    const batch = this.#batches.shift();
    if (batch === undefined) return;
    const before = this.#chain;
    this.#chain = before.then(async (results) => [
      ...results,
      ...(await this.#probe.update(batch)).map(copyResult),
    ]);
    this.#chain.catch(() => this.#failed = true);
    await Promise.race([
      this.#chain.catch(() => {}),
      systemEnv.turn(),
    ]);
  }

  /** Gives all that is left; the results of everything. */
  async rest(upTo = 0): Promise<Result[]> {
    while (this.#batches.length > upTo && !this.#failed) await this.next();
    return await this.#chain;
  }
}

/** What is saved is the state as of `prepareSnapshot()`, and saving it does not show (C4). */
async function moment(lab: Lab, history: History): Promise<void> {
  if (lab.type === RegularStateMachine) return;
  const original = await originalOf(lab, history);
  const { head, tail } = original;
  const probe = await lab.fresh();
  await probe.apply(history, head);
  probe.blame = "C4";
  // Some of what follows comes before the saving begins, the rest between the
  // pieces that are written, so that also what is read late is caught.
  const backlog = new Backlog(probe, history, tail);
  const saved = await probe.save(
    async (): Promise<void> => {
      await backlog.rest(history.salt % (tail.length + 1));
    },
    () => backlog.next(),
  );
  const results = await backlog.rest();
  const what =
    `A snapshot prepared after ${history.cut} commands and saved during others`;
  const copy = await lab.fresh();
  copy.blame = "C4";
  await copy.recover(saved);
  await expectOriginal(lab, history, original, copy, "C4", what);
  expectSameResults(
    "C4",
    "Updates during saveSnapshot()",
    original.results,
    results,
    history.cut,
  );
  expectSame(
    lab,
    history,
    "C4",
    "A machine updated during saveSnapshot()",
    original.end,
    await probe.observe(history),
  );
}

/** The same state gives the same bytes, one after the other and at once (D8). */
async function sameBytes(lab: Lab, history: History): Promise<void> {
  if (lab.type !== OnDiskStateMachine) return;
  const probe = await lab.fresh();
  await probe.apply(history, entriesOf(history));
  const first = await probe.save();
  const second = await probe.save();
  const contexts = [await probe.prepare(), await probe.prepare()];
  const turn = (): Promise<void> => systemEnv.turn();
  const both = await Promise.all(
    contexts.map((context) => probe.trySave(context, turn)),
  );
  for (const other of [second, ...both]) {
    if (other === undefined || equalBytes(first.bytes, other.bytes)) continue;
    throw new Breach(
      "D8",
      `Two contexts prepared with no update between them give other bytes: ${
        showBytes(first.bytes)
      } and ${showBytes(other.bytes)}`,
    );
  }
}

/** The experiments of this file. */
export const snapshotTrials: readonly Trial[] = [
  // First, for a file that has gone would look like a part that was forgotten.
  { name: "files gone", run: filesGone },
  { name: "recovery", run: recovery },
  { name: "empty snapshot", run: emptySnapshot },
  { name: "second generation", run: secondGeneration },
  { name: "moment", run: moment },
  { name: "same bytes", run: sameBytes },
];
