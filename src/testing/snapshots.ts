/**
 * Properties of snapshots: they contain the whole state of their index, in pieces of
 * any size, whatever state they replace (R9, C4, D8, F1 to F3).
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
import { randomOf } from "./seeded_globals.ts";
import { expectSame, expectSameResults, type Property } from "./property.ts";
import {
  batchesOf,
  entriesOf,
  type History,
  type LogEntry,
} from "./history.ts";
import type { Fixture } from "./fixture.ts";
import type { Observation, Probe, Saved } from "./probe.ts";
import { copyResult } from "./result.ts";
import { bytewise, pieces, type Sizes, WHOLE } from "./streams.ts";
import { equalBytes, showBytes } from "./value.ts";
import { Breach } from "./violation.ts";

/** Machine that was saved in the middle of a history and ran to its end. */
export interface Original {
  readonly saved: Saved;
  /** Entries in the snapshot, and those after it. */
  readonly head: readonly LogEntry[];
  readonly tail: readonly LogEntry[];
  /** Observation at the time of the snapshot. */
  readonly atSnapshot: Observation;
  readonly results: readonly Result[];
  readonly end: Observation;
}

/** Runs a machine through a history and saves it at the cut, without overlapping calls. */
export async function originalOf(
  fixture: Fixture,
  history: History,
): Promise<Original> {
  const entries = entriesOf(history);
  const head = entries.slice(0, history.cut);
  const tail = entries.slice(history.cut);
  const probe = await fixture.fresh();
  await probe.apply(history, head);
  const saved = await probe.save();
  const atSnapshot = await probe.observe(history);
  const results = await probe.apply(history, tail, { from: history.cut });
  return {
    saved,
    head,
    tail,
    atSnapshot,
    results: results.map(copyResult),
    end: await probe.observe(history),
  };
}

/** Compares a machine with the original at the time of the snapshot, and again at the end of the history. */
export async function expectOriginal(
  fixture: Fixture,
  history: History,
  original: Original,
  probe: Probe,
  rule: string,
  what: string,
): Promise<void> {
  const { atSnapshot, tail, results, end } = original;
  expectSame(
    fixture,
    history,
    rule,
    what,
    atSnapshot,
    await probe.observe(history),
  );
  const later = await probe.apply(history, tail, { from: history.cut });
  expectSameResults(rule, `${what}, later`, results, later, history.cut);
  expectSame(
    fixture,
    history,
    rule,
    `${what}, later`,
    end,
    await probe.observe(history),
  );
}

/** Creates an instance with other state: the commands after the snapshot, at indexes before it. */
async function withOtherState(
  fixture: Fixture,
  history: History,
): Promise<Probe> {
  const entries = entriesOf(history);
  const probe = await fixture.fresh();
  const others = entries.slice(history.cut).map(({ cmd }, i) => ({
    cmd,
    index: entries[i]?.index as number,
  }));
  // An on-disk machine never gets a snapshot older than its own state.
  await probe.apply(
    history,
    fixture.onDisk ? others.slice(0, history.cut) : others,
  );
  return probe;
}

/** Case of a recovery: the machine that recovers, and the sizes of the pieces. */
interface RecoveryCase {
  readonly name: string;
  readonly newProbe: (fixture: Fixture, history: History) => Promise<Probe>;
  readonly sizes: (history: History) => Sizes;
  readonly lookups?: boolean;
}

const fresh: RecoveryCase["newProbe"] = (fixture) => fixture.fresh();

const recoveryCases: readonly RecoveryCase[] = [
  {
    name: "into a new instance",
    newProbe: fresh,
    sizes: () => WHOLE,
  },
  {
    name: "into a new instance, byte by byte",
    newProbe: fresh,
    sizes: bytewise,
  },
  {
    name: "into a new instance, in pieces of random sizes",
    newProbe: fresh,
    sizes: ({ salt }) => pieces(randomOf(salt)),
  },
  {
    name: "into an instance that had state (the commands after the snapshot)",
    newProbe: withOtherState,
    sizes: () => WHOLE,
  },
  {
    name: "into an instance that had state, with lookups during",
    newProbe: withOtherState,
    sizes: ({ salt }) => pieces(randomOf(salt)),
    lookups: true,
  },
];

/** Checks that the saved state is recovered in all cases (R9). */
async function recovery(fixture: Fixture, history: History): Promise<void> {
  const original = await originalOf(fixture, history);
  for (const recoveryCase of recoveryCases) {
    if (recoveryCase.lookups && fixture.type === RegularStateMachine) continue;
    const probe = await recoveryCase.newProbe(fixture, history);
    const what =
      `A snapshot after ${history.cut} commands, recovered ${recoveryCase.name}`;
    probe.blame = "R9";
    const beside: Promise<unknown>[] = [];
    await probe.recover(original.saved, {
      sizes: recoveryCase.sizes(history),
      hook: (): void => {
        if (recoveryCase.lookups && beside.length < 4) {
          beside.push(probe.lookups(history));
        }
      },
    });
    await Promise.all(beside);
    await expectOriginal(fixture, history, original, probe, "R9", what);
  }
}

/** Checks that a snapshot of an empty state leaves nothing (R9); drawn histories rarely contain one. */
async function emptySnapshot(
  fixture: Fixture,
  history: History,
): Promise<void> {
  // An on-disk machine never gets a snapshot older than its own state.
  if (fixture.onDisk) return;
  const original = await originalOf(fixture, { ...history, cut: 0 });
  const probe = await fixture.fresh();
  await probe.apply(history, entriesOf(history));
  probe.blame = "R9";
  await probe.recover(original.saved);
  await expectOriginal(
    fixture,
    { ...history, cut: 0 },
    original,
    probe,
    "R9",
    "A snapshot of an empty machine, recovered into an instance that had state",
  );
}

/** Checks that a recovered state can be saved and recovered again (R9). */
async function secondGeneration(
  fixture: Fixture,
  history: History,
): Promise<void> {
  const original = await originalOf(fixture, history);
  const middle = await fixture.fresh();
  await middle.recover(original.saved);
  const saved = await middle.save();
  const last = await fixture.fresh();
  last.blame = "R9";
  await last.recover(saved);
  await expectOriginal(
    fixture,
    history,
    original,
    last,
    "R9",
    "A snapshot of a machine that was itself recovered from one",
  );
}

/** Checks that the machine copies the files of a recovery, which the host removes (F3). */
async function removedFiles(fixture: Fixture, history: History): Promise<void> {
  if (fixture.onDisk || fixture.options.files === undefined) return;
  const original = await originalOf(fixture, history);
  if (original.saved.files.length === 0) return;
  const probe = await fixture.fresh();
  let before: Observation | undefined;
  await probe.recover(original.saved, {
    before: async (): Promise<void> => {
      before = await probe.observe(history);
    },
  });
  expectSame(
    fixture,
    history,
    "F3",
    "Files a snapshot came with are removed when recoverFromSnapshot() has returned, and that changes the machine",
    before as Observation,
    await probe.observe(history),
  );
}

/** Feeds the rest of a history to a machine during a save, without making the save wait. */
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

  /** Starts the next update; the machine may delay it until it was saved. */
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

  /** Feeds the remaining entries; returns all results. */
  async rest(upTo = 0): Promise<Result[]> {
    while (this.#batches.length > upTo && !this.#failed) await this.next();
    return await this.#chain;
  }
}

/** Checks that the saved state is that of `prepareSnapshot()`, and that a save changes nothing (C4). */
async function preparedState(
  fixture: Fixture,
  history: History,
): Promise<void> {
  if (fixture.type === RegularStateMachine) return;
  const original = await originalOf(fixture, history);
  const { head, tail } = original;
  const probe = await fixture.fresh();
  await probe.apply(history, head);
  probe.blame = "C4";
  // Some updates come before the save starts, the others between the pieces
  // written, so that late reads of the state are caught.
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
  const copy = await fixture.fresh();
  copy.blame = "C4";
  await copy.recover(saved);
  await expectOriginal(fixture, history, original, copy, "C4", what);
  expectSameResults(
    "C4",
    "Updates during saveSnapshot()",
    original.results,
    results,
    history.cut,
  );
  expectSame(
    fixture,
    history,
    "C4",
    "A machine updated during saveSnapshot()",
    original.end,
    await probe.observe(history),
  );
}

/** Checks that equal states are saved as equal bytes, sequentially and concurrently (D8). */
async function sameBytes(fixture: Fixture, history: History): Promise<void> {
  if (fixture.type !== OnDiskStateMachine) return;
  const probe = await fixture.fresh();
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

/** Properties of this module. */
export const snapshotProperties: readonly Property[] = [
  // First, since a removed file would look like lost state.
  { name: "removed files", run: removedFiles },
  { name: "recovery", run: recovery },
  { name: "empty snapshot", run: emptySnapshot },
  { name: "second generation", run: secondGeneration },
  { name: "prepared state", run: preparedState },
  { name: "same bytes", run: sameBytes },
];
