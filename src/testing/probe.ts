/**
 * Probe: calls one instance of the machine under test like a host, and checks,
 * copies and bounds everything it returns.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { isU64 } from "../bytes.ts";
import { systemEnv } from "../env.ts";
import {
  ErrNotImplemented,
  ErrSnapshotAborted,
} from "../statemachine/errors.ts";
import {
  type Entry,
  type MaybePromise,
  RegularStateMachine,
  type Result,
} from "../statemachine/types.ts";
import type { FileStore } from "../snapshot/file_store.ts";
import { FileCollection, type SavedFile, writeFiles } from "./files.ts";
import {
  batchesOf,
  type Batching,
  type History,
  type LogEntry,
} from "./history.ts";
import { copyResult, resultsOf } from "./result.ts";
import { type Outcome, settle, type Timer } from "./settle.ts";
import { type Hook, Sink, type Sizes, source, WHOLE } from "./streams.ts";
import type { Subject } from "./subject.ts";
import {
  copyOf,
  equalBytes,
  mutate,
  overwrite,
  show,
  structuralEquals,
} from "./value.ts";
import { Breach } from "./violation.ts";

/** Answer of the machine: a value or an error. */
export type Answer =
  | { readonly value: unknown }
  | { readonly thrown: string };

/** Everything that the suite can observe of a state. */
export interface Observation {
  readonly answers: readonly Answer[];
  readonly naAnswers: readonly Answer[];
  readonly hash: bigint | undefined;
}

/** Snapshot with its files, as a host stores it. */
export interface Saved {
  readonly bytes: Uint8Array;
  readonly files: readonly SavedFile[];
}

/** Settings of a probe. */
export interface ProbeSettings {
  readonly settleTimeoutMs: number;
  readonly files: FileStore | undefined;
}

/** Options of a recovery. */
export interface Recovery {
  readonly sizes?: Sizes;
  readonly hook?: Hook;
  readonly signal?: AbortSignal;
  /** Called when the machine has returned and before its files are removed. */
  readonly before?: () => Promise<void>;
}

/** Maximum number of snapshots that a machine may decline in succession. */
const ABORTS_MAX = 8;

/** Creates a signal that never aborts. */
function never(): AbortSignal {
  return new AbortController().signal;
}

/** Instance under test. */
export class Probe {
  /** Machine under test. */
  readonly subject: Subject;
  /** Rule that a throw or a hanging promise breaks in this test; by default that of the method. */
  blame: string | undefined;
  /** Set to overwrite arguments once the machine has returned (R11). */
  overwritesArguments = false;
  /** Set to overwrite answers and the data of results, which belong to the caller (R4, R13). */
  overwritesAnswers = false;
  /** Set to retain answers for {@linkcode Probe.expectUnchanged}. */
  retainsAnswers = false;
  #retained: [answer: unknown, copy: unknown][] = [];
  /** Set once `close()` was called, or must not be called: after a crash, or while a call hangs. */
  isOver = false;
  readonly #settings: ProbeSettings;
  readonly #timers = new Set<Timer>();

  /** Creates a probe of a new instance. */
  constructor(subject: Subject, settings: ProbeSettings) {
    this.subject = subject;
    this.#settings = settings;
  }

  /** Abandons the instance: it is not closed, and pending calls are not awaited. */
  abandon(): void {
    this.isOver = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }

  /** Returns the outcome of a call, which must settle. */
  async outcome<T>(
    rule: string,
    what: string,
    call: () => MaybePromise<T>,
  ): Promise<Outcome<T>> {
    const ms = this.#settings.settleTimeoutMs;
    const late = (): Breach => {
      // A hanging call still runs, and nothing may overlap it (R10).
      this.isOver = true;
      return new Breach(
        this.blame ?? rule,
        `${what} did not settle within ${ms} ms`,
        { hung: true },
      );
    };
    try {
      return { ok: true, value: await settle(call(), ms, this.#timers, late) };
    } catch (error) {
      if (error instanceof Breach) throw error;
      return { ok: false, error };
    }
  }

  /** Returns the value of a call; a throw is a breach. */
  async value<T>(
    rule: string,
    what: string,
    call: () => MaybePromise<T>,
  ): Promise<T> {
    const outcome = await this.outcome(rule, what, call);
    if (outcome.ok) return outcome.value;
    throw new Breach(
      this.blame ?? rule,
      `${what} threw ${show(outcome.error)}`,
      { cause: outcome.error },
    );
  }

  /** Applies entries as one batch, with `during` at the same time. Returns the machine's results, checked. */
  async update(
    entries: readonly LogEntry[],
    during?: () => Promise<void>,
  ): Promise<Result[]> {
    if (this.subject.type !== RegularStateMachine) {
      return await this.#updateBatch(entries, during);
    }
    const results: Result[] = [];
    for (const entry of entries) {
      results.push(...await this.#updateBatch([entry], undefined));
    }
    return results;
  }

  async #updateBatch(
    entries: readonly LogEntry[],
    during: (() => Promise<void>) | undefined,
  ): Promise<Result[]> {
    const given = entries.map(({ index, cmd }): Entry => ({
      index,
      cmd: cmd.slice(),
    }));
    // The machine may change the array.
    const originals = [...given];
    const returned = this.value(
      "R5",
      "update()",
      () => this.subject.update(given),
    );
    const beside = during?.();
    const [settled] = await Promise.allSettled([returned, beside]);
    if (settled.status === "rejected") throw settled.reason;
    await beside;
    const results = resultsOf(
      settled.value,
      entries.map(({ index }) => index),
      this.subject.type,
    );
    for (const [i, { cmd }] of originals.entries()) {
      if (equalBytes(cmd, entries[i]!.cmd)) continue;
      throw new Breach(
        "R13",
        `update() writes into a command, which is the host's: ${
          show(entries[i]!.cmd)
        } became ${show(cmd)}`,
      );
    }
    if (this.overwritesArguments) this.#overwrite(given, originals);
    if (!this.overwritesAnswers) return results;
    const own = results.map(copyResult);
    for (const { data } of results) overwrite(data);
    return own;
  }

  /** Overwrites a batch, which its owner may do once `update()` has returned. */
  #overwrite(given: Entry[], originals: readonly Entry[]): void {
    for (const entry of originals) {
      overwrite(entry.cmd);
      (entry as { index: number }).index = -1;
      entry.result = undefined;
    }
    given.length = 0;
  }

  /** Applies entries that start at step `from`, batch by batch; calls `between` before each batch and at the end. */
  async apply(
    history: History,
    entries: readonly LogEntry[],
    options: {
      readonly from?: number;
      readonly batching?: Batching;
      readonly between?: () => Promise<void>;
      readonly during?: () => Promise<void>;
    } = {},
  ): Promise<Result[]> {
    const { from = 0, batching = "as drawn", between, during } = options;
    const results: Result[] = [];
    for (const batch of batchesOf(history, entries, batching, from)) {
      await between?.();
      results.push(...await this.update(batch, during));
    }
    await between?.();
    return results;
  }

  /** Runs one query; an error of the machine is its answer. */
  async lookup(query: unknown): Promise<Answer> {
    const given = copyOf(query);
    const outcome = await this.outcome(
      "R4",
      "lookup()",
      () => this.subject.lookup(given),
    );
    this.#expectUntouched("lookup()", query, given);
    return this.#answer(given, outcome);
  }

  async #naLookup(query: Uint8Array): Promise<Answer | undefined> {
    const given = query.slice();
    const outcome = await this.outcome(
      "E2",
      "naLookup()",
      () => this.subject.naLookup?.(given),
    );
    this.#expectUntouched("naLookup()", query, given);
    if (!outcome.ok && outcome.error instanceof ErrNotImplemented) return;
    if (outcome.ok && !(outcome.value instanceof Uint8Array)) {
      throw new Breach(
        "E2",
        `naLookup() returned ${show(outcome.value)}, which is not a Uint8Array`,
      );
    }
    return this.#answer(given, outcome);
  }

  #expectUntouched(method: string, query: unknown, given: unknown): void {
    if (structuralEquals(query, given)) return;
    throw new Breach(
      "R13",
      `${method} writes into its query, which is the host's: ${
        show(query)
      } became ${show(given)}`,
    );
  }

  #answer(given: unknown, outcome: Outcome<unknown>): Answer {
    if (this.overwritesArguments) overwrite(given);
    if (!outcome.ok) return { thrown: show(outcome.error) };
    const value = copyOf(outcome.value);
    if (this.retainsAnswers) {
      this.#retained.push([outcome.value, copyOf(outcome.value)]);
    }
    if (this.overwritesAnswers) mutate(outcome.value);
    return { value };
  }

  /** Throws a breach if a retained answer has changed; drops them. */
  expectUnchanged(): void {
    for (const [answer, copy] of this.#retained.splice(0)) {
      if (structuralEquals(answer, copy)) continue;
      throw new Breach(
        "R13",
        `An answer of lookup(), which is the caller's, changed with an update from ${
          show(copy)
        } to ${show(answer)}: it is the machine's own state, or a part of it`,
      );
    }
  }

  /** Runs all queries of a history. */
  async lookups(history: History): Promise<Answer[]> {
    const answers: Answer[] = [];
    for (const query of history.queries) {
      answers.push(await this.lookup(query));
    }
    return answers;
  }

  /** Runs all byte queries of a history, if the machine supports them. */
  async naLookups(history: History): Promise<Answer[]> {
    if (this.subject.naLookup === undefined) return [];
    const answers: Answer[] = [];
    for (const query of history.naQueries) {
      const answer = await this.#naLookup(query);
      if (answer !== undefined) answers.push(answer);
    }
    return answers;
  }

  /** Returns the state hash, if the machine has one. */
  async hash(): Promise<bigint | undefined> {
    const { getHash } = this.subject;
    if (getHash === undefined) return undefined;
    const outcome = await this.outcome("E1", "getHash()", getHash);
    if (!outcome.ok) {
      if (outcome.error instanceof ErrNotImplemented) return undefined;
      throw new Breach(
        this.blame ?? "E1",
        `getHash() threw ${show(outcome.error)}`,
        { cause: outcome.error },
      );
    }
    const hash = outcome.value;
    if (typeof hash === "bigint" && isU64(hash)) return hash;
    throw new Breach(
      "T3",
      `getHash() returned ${show(hash)}, not a bigint in 0…2^64-1`,
    );
  }

  /** Observes the present state. */
  async observe(history: History): Promise<Observation> {
    return {
      hash: await this.hash(),
      answers: await this.lookups(history),
      naAnswers: await this.naLookups(history),
    };
  }

  /** Prepares a snapshot of the present state. */
  prepare(): Promise<unknown> {
    return this.value(
      "C4",
      "prepareSnapshot()",
      () => this.subject.prepareSnapshot(),
    );
  }

  /** Saves the state of `context` into `sink` and returns the outcome; `rule` is broken if it never settles. */
  saveInto(
    rule: string,
    context: unknown,
    sink: Sink,
    files: FileCollection,
    stopped: AbortSignal = never(),
  ): Promise<Outcome<void>> {
    return this.outcome(
      rule,
      "saveSnapshot()",
      () => this.subject.saveSnapshot(context, sink.writable, files, stopped),
    );
  }

  /** Saves the state of `context`; undefined if the machine declined (R7). */
  async trySave(context: unknown, hook?: Hook): Promise<Saved | undefined> {
    const sink = new Sink(hook);
    const files = new FileCollection();
    const outcome = await this.saveInto("R8", context, sink, files);
    if (!outcome.ok) {
      if (outcome.error instanceof ErrSnapshotAborted) return undefined;
      throw new Breach(
        this.blame ?? "R8",
        `saveSnapshot() threw ${show(outcome.error)}`,
        { cause: outcome.error },
      );
    }
    if (!await sink.finish(systemEnv.turn)) {
      throw new Breach(
        "R6",
        "saveSnapshot() ended while its stream was open and locked: await the pipeTo(), or close the writer or release its lock before returning",
      );
    }
    if (sink.nonBytes !== undefined) {
      throw new Breach(
        "R6",
        `saveSnapshot() wrote ${
          show(sink.nonBytes.chunk)
        }, which is not a Uint8Array`,
      );
    }
    return {
      bytes: sink.bytes(),
      files: await files.save(this.#settings.files),
    };
  }

  /** Saves the present state; calls `prepared` between preparing and saving. */
  async save(
    prepared?: () => Promise<void>,
    hook?: Hook,
  ): Promise<Saved> {
    for (let i = 0; i < ABORTS_MAX; i++) {
      const context = await this.prepare();
      await prepared?.();
      const saved = await this.trySave(context, hook);
      if (saved !== undefined) return saved;
      await systemEnv.turn();
    }
    throw new Breach(
      "R7",
      `saveSnapshot() threw ErrSnapshotAborted ${ABORTS_MAX} times in a row`,
    );
  }

  /** Recovers from a snapshot and returns the outcome; `rule` is broken if it never settles. */
  async recoverFrom(
    rule: string,
    saved: Saved,
    recovery: Recovery = {},
  ): Promise<Outcome<void>> {
    const { sizes = WHOLE, hook, signal = never(), before } = recovery;
    const recoveryFiles = await writeFiles(saved.files, this.#settings.files);
    try {
      const outcome = await this.outcome(
        rule,
        "recoverFromSnapshot()",
        () =>
          this.subject.recoverFromSnapshot(
            source(saved.bytes, sizes, hook),
            recoveryFiles.files,
            signal,
          ),
      );
      if (outcome.ok) await before?.();
      return outcome;
    } finally {
      await recoveryFiles.remove();
    }
  }

  /** Recovers from a snapshot; a throw is a breach. */
  async recover(saved: Saved, recovery: Recovery = {}): Promise<void> {
    const outcome = await this.recoverFrom("R9", saved, recovery);
    if (outcome.ok) return;
    throw new Breach(
      this.blame ?? "R9",
      `recoverFromSnapshot() threw ${show(outcome.error)}`,
      { cause: outcome.error },
    );
  }

  /** Makes applied entries durable. */
  sync(): Promise<void> {
    return this.value("D6", "sync()", () => this.subject.sync());
  }

  /** Closes the instance; a throw is a breach. */
  close(): Promise<void> {
    this.isOver = true;
    this.blame = undefined;
    return this.value("R10", "close()", () => this.subject.close());
  }
}
