/**
 * One instance of a machine under examination: called as a host would call it,
 * with all it returns checked, copied and waited for with a bound.
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
import { FileCollection, type KeptFile, lay } from "./files.ts";
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
  scribble,
  show,
  spoil,
  structuralEquals,
} from "./value.ts";
import { Breach } from "./violation.ts";

/** What the machine answered: a value, or what it threw instead. */
export type Answer =
  | { readonly value: unknown }
  | { readonly thrown: string };

/** All that can be seen of a state. */
export interface Observation {
  readonly answers: readonly Answer[];
  readonly naAnswers: readonly Answer[];
  readonly hash: bigint | undefined;
}

/** A snapshot as a host keeps it. */
export interface Saved {
  readonly bytes: Uint8Array;
  readonly files: readonly KeptFile[];
}

/** What a probe needs to know of its surroundings. */
export interface ProbeSettings {
  readonly settleTimeoutMs: number;
  readonly files: FileStore | undefined;
}

/** How a recovery is to go. */
export interface Recovery {
  readonly sizes?: Sizes;
  readonly hook?: Hook;
  readonly signal?: AbortSignal;
  /** Called when the machine is done and before the files laid out for it go. */
  readonly before?: () => Promise<void>;
}

/** How often a machine may choose to drop a snapshot that nobody else wants dropped. */
const ABORTS_MAX = 8;

/** A signal nobody aborts. */
function never(): AbortSignal {
  return new AbortController().signal;
}

/** One instance under examination. */
export class Probe {
  /** The machine. */
  readonly subject: Subject;
  /** The rule that a throw, or a promise that does not settle, breaks in this experiment; each method's own if not set. */
  blame: string | undefined;
  /** Whether all that was given to the machine is overwritten when it has returned (R11). */
  scribbles = false;
  /** True if answers and the data of results are overwritten: they are the caller's (R4, R13). */
  spoils = false;
  /** True if answers are kept, for {@linkcode Probe.expectKept}. */
  keeps = false;
  #kept: [answer: unknown, copy: unknown][] = [];
  /** Whether `close()` was called, or must not be: after a crash, or while something hangs. */
  over = false;
  readonly #settings: ProbeSettings;
  readonly #timers = new Set<Timer>();

  /** A probe of an instance that was just made. */
  constructor(subject: Subject, settings: ProbeSettings) {
    this.subject = subject;
    this.#settings = settings;
  }

  /** Leaves the instance to itself: it is not closed, and what is pending is not waited for. */
  abandon(): void {
    this.over = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }

  /** How a call ends: anything but never. */
  async outcome<T>(
    rule: string,
    what: string,
    call: () => MaybePromise<T>,
  ): Promise<Outcome<T>> {
    const ms = this.#settings.settleTimeoutMs;
    const late = (): Breach => {
      // What hangs still runs, and nothing may be called beside it (R10).
      this.over = true;
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

  /** What a call returns; a throw is a breach. */
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

  /** Applies entries as one batch; `meanwhile` runs beside it. Returns the machine's own results, checked. */
  async update(
    entries: readonly LogEntry[],
    meanwhile?: () => Promise<void>,
  ): Promise<Result[]> {
    if (this.subject.type !== RegularStateMachine) {
      return await this.#updateBatch(entries, meanwhile);
    }
    const results: Result[] = [];
    for (const entry of entries) {
      results.push(...await this.#updateBatch([entry], undefined));
    }
    return results;
  }

  async #updateBatch(
    entries: readonly LogEntry[],
    meanwhile: (() => Promise<void>) | undefined,
  ): Promise<Result[]> {
    const given = entries.map(({ index, cmd }): Entry => ({
      index,
      cmd: cmd.slice(),
    }));
    // The machine may do with the array what it likes.
    const kept = [...given];
    const returned = this.value(
      "R5",
      "update()",
      () => this.subject.update(given),
    );
    const beside = meanwhile?.();
    const [settled] = await Promise.allSettled([returned, beside]);
    if (settled.status === "rejected") throw settled.reason;
    await beside;
    const results = resultsOf(
      settled.value,
      entries.map(({ index }) => index),
      this.subject.type,
    );
    for (const [i, { cmd }] of kept.entries()) {
      if (equalBytes(cmd, entries[i]!.cmd)) continue;
      throw new Breach(
        "R13",
        `update() writes into a command, which is the host's: ${
          show(entries[i]!.cmd)
        } became ${show(cmd)}`,
      );
    }
    if (this.scribbles) this.#scribble(given, kept);
    if (!this.spoils) return results;
    const own = results.map(copyResult);
    for (const { data } of results) scribble(data);
    return own;
  }

  /** Does to a batch what its owner may do with it once `update()` has returned. */
  #scribble(given: Entry[], kept: readonly Entry[]): void {
    for (const entry of kept) {
      scribble(entry.cmd);
      (entry as { index: number }).index = -1;
      entry.result = undefined;
    }
    given.length = 0;
  }

  /** Applies entries that begin at step `from`, batch by batch; `between` runs before each batch and at the end. */
  async apply(
    history: History,
    entries: readonly LogEntry[],
    options: {
      readonly from?: number;
      readonly batching?: Batching;
      readonly between?: () => Promise<void>;
      readonly meanwhile?: () => Promise<void>;
    } = {},
  ): Promise<Result[]> {
    const { from = 0, batching = "as drawn", between, meanwhile } = options;
    const results: Result[] = [];
    for (const batch of batchesOf(history, entries, batching, from)) {
      await between?.();
      results.push(...await this.update(batch, meanwhile));
    }
    await between?.();
    return results;
  }

  /** Asks one query; what the machine throws is its answer. */
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
        `naLookup() returned ${show(outcome.value)}, which is no Uint8Array`,
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
    if (this.scribbles) scribble(given);
    if (!outcome.ok) return { thrown: show(outcome.error) };
    const value = copyOf(outcome.value);
    if (this.keeps) this.#kept.push([outcome.value, copyOf(outcome.value)]);
    if (this.spoils) spoil(outcome.value);
    return { value };
  }

  /** Throws a breach if an answer that was kept is not what it was; forgets them. */
  expectKept(): void {
    for (const [answer, copy] of this.#kept.splice(0)) {
      if (structuralEquals(answer, copy)) continue;
      throw new Breach(
        "R13",
        `An answer of lookup(), which is the caller's, changed with an update from ${
          show(copy)
        } to ${show(answer)}: it is the machine's own state, or a part of it`,
      );
    }
  }

  /** Asks all queries of a history. */
  async lookups(history: History): Promise<Answer[]> {
    const answers: Answer[] = [];
    for (const query of history.queries) {
      answers.push(await this.lookup(query));
    }
    return answers;
  }

  /** Asks all byte queries of a history, if the machine takes such. */
  async naLookups(history: History): Promise<Answer[]> {
    if (this.subject.naLookup === undefined) return [];
    const answers: Answer[] = [];
    for (const query of history.naQueries) {
      const answer = await this.#naLookup(query);
      if (answer !== undefined) answers.push(answer);
    }
    return answers;
  }

  /** The hash of the state, if the machine has one. */
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
      `getHash() gave ${show(hash)}, not a bigint in 0…2^64-1`,
    );
  }

  /** All that can be seen of the state now. */
  async observe(history: History): Promise<Observation> {
    return {
      hash: await this.hash(),
      answers: await this.lookups(history),
      naAnswers: await this.naLookups(history),
    };
  }

  /** Marks the present state for a snapshot. */
  prepare(): Promise<unknown> {
    return this.value(
      "C4",
      "prepareSnapshot()",
      () => this.subject.prepareSnapshot(),
    );
  }

  /** How saving the state of `context` into `sink` ends; `rule` is broken when it never does. */
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

  /** Saves the state of `context`; undefined if the machine chose to drop the snapshot (R7). */
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
    if (sink.stranger !== undefined) {
      throw new Breach(
        "R6",
        `saveSnapshot() wrote ${
          show(sink.stranger.chunk)
        }, which is no Uint8Array`,
      );
    }
    return {
      bytes: sink.bytes(),
      files: await files.keep(this.#settings.files),
    };
  }

  /** Saves the present state; `prepared` runs between the moment that is saved and the saving. */
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

  /** How recovering from a snapshot ends; `rule` is broken when it never does. */
  async recoverFrom(
    rule: string,
    saved: Saved,
    recovery: Recovery = {},
  ): Promise<Outcome<void>> {
    const { sizes = WHOLE, hook, signal = never(), before } = recovery;
    const laid = await lay(saved.files, this.#settings.files);
    try {
      const outcome = await this.outcome(
        rule,
        "recoverFromSnapshot()",
        () =>
          this.subject.recoverFromSnapshot(
            source(saved.bytes, sizes, hook),
            laid.files,
            signal,
          ),
      );
      if (outcome.ok) await before?.();
      return outcome;
    } finally {
      await laid.remove();
    }
  }

  /** Replaces the state by a saved one; a throw is a breach. */
  async recover(saved: Saved, recovery: Recovery = {}): Promise<void> {
    const outcome = await this.recoverFrom("R9", saved, recovery);
    if (outcome.ok) return;
    throw new Breach(
      this.blame ?? "R9",
      `recoverFromSnapshot() threw ${show(outcome.error)}`,
      { cause: outcome.error },
    );
  }

  /** Makes what was applied durable. */
  sync(): Promise<void> {
    return this.value("D6", "sync()", () => this.subject.sync());
  }

  /** Closes the instance; a throw is a breach. */
  close(): Promise<void> {
    this.over = true;
    this.blame = undefined;
    return this.value("R10", "close()", () => this.subject.close());
  }
}
