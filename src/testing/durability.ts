/**
 * Properties of on-disk machines: after a crash they contain a prefix of the log with
 * its index, and all that was synced; a recovery is atomic (D1 to D6, D11).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { withResolvers } from "../async.ts";
import { ErrOpenStopped } from "../statemachine/errors.ts";
import type { Result } from "../statemachine/types.ts";
import { randomOf } from "./seeded_globals.ts";
import { expectSame, expectSameResults, type Property } from "./property.ts";
import {
  batchesOf,
  entriesOf,
  type Fault,
  type History,
  type LogEntry,
  type Step,
} from "./history.ts";
import { checkedIndex, type Fixture, type Storage } from "./fixture.ts";
import type { Observation, Probe } from "./probe.ts";
import { copyResult } from "./result.ts";
import { expectOriginal, type Original, originalOf } from "./snapshots.ts";
import { pieces } from "./streams.ts";
import { show } from "./value.ts";
import { Breach } from "./violation.ts";

/** Reference run of a machine that never crashes, entry by entry. */
interface ReferenceRun {
  readonly entries: readonly LogEntry[];
  readonly results: readonly Result[];
  /** Observations before the first entry and after each. */
  readonly states: readonly Observation[];
}

async function referenceRunOf(
  fixture: Fixture,
  history: History,
): Promise<ReferenceRun> {
  const entries = entriesOf(history);
  const probe = await fixture.fresh();
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

/** Run of a machine through a history, in which it crashes and is opened again. */
class CrashRun {
  readonly #fixture: Fixture;
  readonly #history: History;
  readonly #reference: ReferenceRun;
  readonly #storage: Storage;
  readonly #random: () => number;
  /** Steps whose fault has happened. */
  readonly #passed = new Set<Step>();
  #probe: Probe | undefined;
  /** Number of entries in the machine. */
  #position = 0;
  /** Least index that the next `open()` may return, with the rule that requires it. */
  #least = { index: 0, rule: "D1", reason: "" };

  constructor(
    fixture: Fixture,
    history: History,
    reference: ReferenceRun,
    storage: Storage,
  ) {
    this.#fixture = fixture;
    this.#history = history;
    this.#reference = reference;
    this.#storage = storage;
    this.#random = randomOf(history.salt);
  }

  #indexAt(position: number): number {
    return position === 0
      ? 0
      : this.#reference.entries[position - 1]?.index as number;
  }

  /** Runs to the end of the history and crashes without a sync; then runs to the end again, syncs, crashes and observes the state. */
  async run(): Promise<void> {
    const { length } = this.#reference.entries;
    let probe = await this.#toEnd(await this.#open(0));
    await this.#storage.crash(probe);
    probe = await this.#toEnd(await this.#open(length));
    await this.#sync(probe);
    await this.#storage.crash(probe);
    await this.#open(length);
  }

  async #toEnd(from: Probe): Promise<Probe> {
    const { entries } = this.#reference;
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

  /** Applies one batch, with the sync and the fault after it. */
  async #step(probe: Probe, batch: readonly LogEntry[]): Promise<Probe> {
    const end = this.#position + batch.length;
    const step = this.#history.steps[end - 1] as Step;
    // A fault happens once, or the run would never end.
    const fault: Fault = this.#passed.has(step) ? "none" : step.fault;
    this.#passed.add(step);
    if (fault === "crash midway" && this.#storage.crashes) {
      return await this.#crashMidway(probe, batch, step, end);
    }
    await this.#apply(probe, batch);
    if (step.sync) await this.#sync(probe);
    if (fault === "none") return probe;
    if (fault === "close") await probe.close();
    else await this.#storage.crash(probe);
    return await this.#open(end);
  }

  async #apply(probe: Probe, batch: readonly LogEntry[]): Promise<void> {
    const from = this.#position;
    const results = await probe.update(batch);
    expectSameResults(
      "D5",
      "A machine that was reopened gives other results",
      this.#reference.results.slice(from, from + batch.length),
      results,
      from,
    );
    this.#position += batch.length;
  }

  async #sync(probe: Probe): Promise<void> {
    await probe.sync();
    this.#least = {
      index: this.#indexAt(this.#position),
      rule: "D6",
      reason: "was synced",
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
    await this.#storage.crash(probe);
    return await this.#open(end);
  }

  /** Opens what is stored, with at most `end` entries, and compares it with the reference run. */
  async #open(end: number): Promise<Probe> {
    const { probe, index } = await this.#storage.open();
    this.#probe = probe;
    const position = this.#expectIndex(index, end);
    await this.#expectState(index, position);
    this.#position = position;
    // This state was durable: it must not be lost later.
    if (index > this.#least.index) {
      this.#least = {
        index,
        rule: "D1",
        reason: "was returned as durable by an earlier open()",
      };
    }
    return probe;
  }

  #expectIndex(index: number, end: number): number {
    const last = this.#indexAt(end);
    const { index: least, rule, reason } = this.#least;
    if (index > last) {
      throw new Breach(
        "D1",
        end === 0
          ? `open() returned ${index} for a new machine, not 0`
          : `open() returned ${index}, beyond the last entry ${last}`,
      );
    }
    if (index < least) {
      throw new Breach(
        rule,
        `open() returned ${index}, but ${least} ${reason}`,
      );
    }
    const position = positionOf(this.#reference.entries, index);
    if (position === undefined) {
      throw new Breach("D1", `open() returned ${index}, an index no entry had`);
    }
    return position;
  }

  async #expectState(index: number, position: number): Promise<void> {
    const history = this.#history;
    const { states } = this.#reference;
    const found = await (this.#probe as Probe).observe(history);
    const expected = states[position] as Observation;
    const difference = this.#fixture.difference(history, expected, found);
    if (difference === undefined) return;
    const other = states.findIndex((state) =>
      this.#fixture.difference(history, state, found) === undefined
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
async function crashes(fixture: Fixture, history: History): Promise<void> {
  const reference = await referenceRunOf(fixture, history);
  await new CrashRun(fixture, history, reference, await fixture.storage())
    .run();
}

/** Checks that a stopped `open()` settles and changes nothing (D2). */
async function stoppedOpen(fixture: Fixture, history: History): Promise<void> {
  const reference = await referenceRunOf(fixture, history);
  const storage = await fixture.storage();
  const later = 1 + history.salt % 4;
  for (const when of [0, later]) await tryStoppedOpen(storage, 0, when);
  const { probe } = await storage.open();
  await probe.apply(history, reference.entries);
  await probe.sync();
  await storage.crash(probe);
  const last = reference.entries.at(-1)?.index ?? 0;
  for (const when of [0, later]) await tryStoppedOpen(storage, last, when);
  const again = await storage.open();
  if (again.index !== last) {
    throw new Breach(
      "D2",
      `open() returned ${again.index} after an open() that was stopped, not ${last}`,
    );
  }
  expectSame(
    fixture,
    history,
    "D2",
    "After an open() that was stopped",
    reference.states.at(-1) as Observation,
    await again.probe.observe(history),
  );
}

/** Opens with a signal that aborts after some microtasks, or has aborted before. */
async function tryStoppedOpen(
  storage: Storage,
  expected: number,
  microtasks: number,
): Promise<void> {
  const probe = storage.make();
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
  await storage.crash(probe);
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
async function brokenRecovery(
  fixture: Fixture,
  history: History,
): Promise<void> {
  const original = await originalOf(fixture, history);
  const reference = await referenceRunOf(fixture, history);
  for (const at of [0, 2, 4]) {
    await breakAt(fixture, history, original, reference, at + history.salt % 2);
  }
}

async function breakAt(
  fixture: Fixture,
  history: History,
  original: Original,
  reference: ReferenceRun,
  at: number,
): Promise<void> {
  const storage = await fixture.storage();
  const old = original.head.length >> 1;
  const { probe } = await storage.open();
  await probe.apply(history, original.head.slice(0, old));
  await probe.sync();
  await breakRecovery(storage, probe, history, original, at);
  const what = "After a crash in the middle of recoverFromSnapshot()";
  const found = await storage.open();
  const isOld = await expectOldOrNew(
    fixture,
    history,
    reference,
    old,
    found,
    what,
  );
  if (isOld) await found.probe.recover(original.saved);
  await found.probe.sync();
  await storage.crash(found.probe);
  await expectRecovered(fixture, history, original, storage);
}

/** Starts a recovery and crashes at one of its first pieces, or right after the last. */
async function breakRecovery(
  storage: Storage,
  probe: Probe,
  history: History,
  { saved }: Original,
  at: number,
): Promise<void> {
  const random = randomOf(history.salt);
  const sizes = saved.bytes.length < 40
    ? pieces(random)
    : (): number => Math.ceil(saved.bytes.length / 4);
  if (!storage.crashes) {
    // Without a crash of the disk, the source ends the recovery.
    const outcome = await probe.recoverFrom("D11", saved, {
      sizes,
      hook: (piece): void => {
        if (piece === at) throw new Error(`Source failed at piece ${piece}`);
      },
    });
    if (!outcome.ok) await probe.close();
    return await storage.crash(probe);
  }
  const reached = withResolvers<void>();
  const gone = withResolvers<void>();
  const recovering = probe.recoverFrom("D11", saved, {
    sizes,
    hook: async (piece): Promise<void> => {
      if (piece !== at) return;
      reached.resolve();
      // Pending until the crash: what the machine does afterwards must have no effect.
      await gone.promise;
      throw new Error("Crashed");
    },
  });
  await Promise.race([reached.promise, recovering]);
  recovering.catch(() => {});
  await someMicrotasks(random() % 12);
  await storage.crash(probe);
  gone.resolve();
}

/** True if the old state is found; throws a breach if neither state is. */
async function expectOldOrNew(
  fixture: Fixture,
  history: History,
  reference: ReferenceRun,
  old: number,
  found: { readonly probe: Probe; readonly index: number },
  what: string,
): Promise<boolean> {
  const seen = await found.probe.observe(history);
  const matches = (position: number): boolean =>
    positionOf(reference.entries, found.index) === position &&
    fixture.difference(
        history,
        reference.states[position] as Observation,
        seen,
      ) ===
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
  fixture: Fixture,
  history: History,
  original: Original,
  storage: Storage,
): Promise<void> {
  const { probe, index } = await storage.open();
  const expected = original.head.at(-1)?.index ?? 0;
  if (index !== expected) {
    throw new Breach(
      "D6",
      `open() returned ${index}, but a snapshot of ${expected} was recovered and synced`,
    );
  }
  await expectOriginal(
    fixture,
    history,
    original,
    probe,
    "D6",
    "A snapshot that was recovered and synced, opened again",
  );
}

/** Properties of this module, of on-disk machines only. */
export const durabilityProperties: readonly Property[] = [
  { name: "crashes", run: crashes },
  { name: "a broken recovery", run: brokenRecovery },
  { name: "a stopped open()", run: stoppedOpen },
];
