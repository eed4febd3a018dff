/**
 * Linearizability checker for recorded histories: decides whether calls that
 * overlapped in time can be put into one order, in agreement with real time, in
 * which a sequential model gives each caller the answer it got.
 *
 * The search is that of Wing and Gong with the memoisation of Lowe: a set of calls
 * that led to a state is tried once. Calls with an unknown outcome may take effect
 * at any time after their start, or never.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { LINEARIZABILITY_STEPS_MAX } from "../limits.ts";
import {
  checkOptions,
  isCount,
  optional,
  type OptionChecks,
} from "../options.ts";
import { SampanError } from "../statemachine/errors.ts";
import { show, structuralEquals } from "./value.ts";

/** Sequential specification of one object; its state must not be changed in place. */
export interface SequentialModel<S, I, O> {
  /** Returns the state before the first call. */
  init(): S;
  /** Applies one call to a state; returns the next state and the output. */
  step(state: S, input: I): readonly [state: S, output: O];
  /**
   * Identifies a state by a primitive: equal for equal states only.
   *
   * @default the state itself
   */
  identify?(state: S): unknown;
  /**
   * True if two outputs are equal.
   *
   * @default deep equality
   */
  isSame?(one: O, other: O): boolean;
  /**
   * True for an input that changes no state, which shortens the search.
   *
   * @default false for every input
   */
  isReadOnly?(input: I): boolean;
}

/** One call in a recorded history. Calls that certainly had no effect are left out of a history. */
export interface RecordedCall<I, O> {
  /** Name of the caller, for messages. */
  readonly client: string;
  /** Object that the call concerns; the objects of different keys are independent. */
  readonly key?: string | undefined;
  /** Input of the call. */
  readonly input: I;
  /** Time of the start, on any clock that all callers share. */
  readonly start: number;
  /** Time at which the caller got the output; undefined if the outcome is unknown. A call that ends at the time at which another starts overlaps it. */
  readonly end?: number | undefined;
  /** Output, if the outcome is known. */
  readonly output?: O;
}

/** Options of {@linkcode checkLinearizability}. */
export interface LinearizabilityOptions {
  /**
   * Most steps of the model for one key.
   *
   * @default {1_000_000}
   */
  readonly stepsMax?: number;
}

const CHECKS: OptionChecks<LinearizabilityOptions> = {
  stepsMax: optional(isCount(1)),
};

/** Smallest part found of a history that no sequential order explains. */
export interface LinearizabilityViolation<I, O> {
  /** Key of the object. */
  readonly key: string | undefined;
  /** Calls that contradict each other, even if every other call of the key took effect at any time after its start, or never. */
  readonly calls: readonly RecordedCall<I, O>[];
  /** Description with the calls, and the order that explains the most of them. */
  readonly text: string;
}

/** Thrown when a history has too many possible orders to decide whether one of them explains it. */
export class ErrCheckUndecided extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrCheckUndecided";
}

/**
 * Checks the calls of each key against a sequential model; returns the smallest
 * part found that no order explains, or undefined if the history is linearizable.
 *
 * ```ts
 * import { assert } from "@std/assert";
 * import { checkLinearizability, type SequentialModel } from "./mod.ts";
 *
 * type Input = { write: number } | "read";
 * const register: SequentialModel<number, Input, number> = {
 *   init: () => 0,
 *   step: (state, input) =>
 *     input === "read" ? [state, state] : [input.write, input.write],
 *   isReadOnly: (input) => input === "read",
 * };
 * const violation = checkLinearizability(register, [
 *   { client: "a", input: { write: 1 }, start: 1, end: 2, output: 1 },
 *   { client: "b", input: "read", start: 3, end: 4, output: 0 },
 * ]);
 * assert(violation?.calls.length === 2); // The read is stale.
 * ```
 *
 * @throws ErrCheckUndecided after too many steps of the model
 */
export function checkLinearizability<S, I, O>(
  model: SequentialModel<S, I, O>,
  calls: Iterable<RecordedCall<I, O>>,
  options: LinearizabilityOptions = {},
): LinearizabilityViolation<I, O> | undefined {
  checkOptions("Options of the check", options, CHECKS);
  const { stepsMax = LINEARIZABILITY_STEPS_MAX } = options;
  const keys = new Map<string | undefined, RecordedCall<I, O>[]>();
  for (const call of calls) {
    const others = keys.get(call.key);
    if (others === undefined) keys.set(call.key, [call]);
    else others.push(call);
  }
  for (const [key, calls] of keys) {
    const search = new Search(model, calls, stepsMax);
    if (search.run()) continue;
    const smallest = shrink(model, calls, stepsMax);
    return {
      key,
      calls: smallest.filter(isKnown),
      text: explain(model, smallest, stepsMax),
    };
  }
  return undefined;
}

function isKnown({ end }: { readonly end?: number | undefined }): boolean {
  return end !== undefined;
}

/**
 * Order in which calls are tried: those that change nothing, which is never wrong;
 * then those with a known outcome; then the others, which take effect only where
 * another call needs it.
 */
type Rank = 0 | 1 | 2;

/** Start or end of a call, in a doubly linked list in order of time. */
interface Event<I, O> {
  readonly call: RecordedCall<I, O>;
  /** Number of the call. */
  readonly id: number;
  /** End of the call, for its start if the outcome is known; undefined for an end. */
  readonly end: Event<I, O> | undefined;
  readonly isStart: boolean;
  readonly rank: Rank;
  previous: Event<I, O>;
  next: Event<I, O>;
}

/** Call in the order tried at present. */
interface Choice<S, I, O> {
  readonly event: Event<I, O>;
  /** State before the call. */
  readonly state: S;
  readonly rank: Rank;
}

/** Search for an order that explains the calls of one key. */
class Search<S, I, O> {
  readonly #model: SequentialModel<S, I, O>;
  readonly #stepsMax: number;
  readonly #head: Event<I, O>;
  /** Calls with a known outcome that are not in the order yet. */
  #left = 0;
  /** Steps of the model so far. */
  steps = 0;
  readonly #set: Uint16Array;
  /** Sets of calls that were tried, by the state they led to. */
  readonly #tried = new Map<unknown, Set<string>>();
  /** Longest order found. */
  longest: readonly RecordedCall<I, O>[] = [];
  /** State after the longest order. */
  longestState: S;

  constructor(
    model: SequentialModel<S, I, O>,
    calls: readonly RecordedCall<I, O>[],
    stepsMax: number,
  ) {
    this.#model = model;
    this.#stepsMax = stepsMax;
    this.longestState = model.init();
    this.#set = new Uint16Array(Math.ceil(calls.length / 16));
    const head = this.#head = { isStart: true } as Event<I, O>;
    head.next = head.previous = head;
    for (const { event } of this.#eventsOf(calls)) {
      event.previous = head.previous;
      event.next = head;
      head.previous.next = event;
      head.previous = event;
    }
  }

  /** Events in order of time; a start before an end at the same time. */
  #eventsOf(
    calls: readonly RecordedCall<I, O>[],
  ): { at: number; event: Event<I, O> }[] {
    const events: { at: number; event: Event<I, O> }[] = [];
    calls.forEach((call, id) => {
      const isReadOnly = this.#model.isReadOnly?.(call.input) ?? false;
      if (!isKnown(call) && isReadOnly) return;
      const rank: Rank = isReadOnly ? 0 : isKnown(call) ? 1 : 2;
      const event = { call, id, rank } as Event<I, O>;
      let end: Event<I, O> | undefined;
      if (call.end !== undefined) {
        this.#left++;
        end = { ...event, end: undefined, isStart: false };
        events.push({ at: call.end, event: end });
      }
      events.push({
        at: call.start,
        event: { ...event, end, isStart: true },
      });
    });
    return events.sort((a, b) =>
      a.at - b.at || Number(b.event.isStart) - Number(a.event.isStart)
    );
  }

  /** Runs the search; true if there is an order that explains all calls with a known outcome. */
  run(): boolean {
    const head = this.#head;
    const order: Choice<S, I, O>[] = [];
    let state = this.#model.init();
    let event = head.next;
    let rank: Rank = 0;
    while (this.#left > 0) {
      if (event !== head && event.isStart) {
        const next = event.rank === rank ? this.#try(state, event) : undefined;
        if (next === undefined) {
          event = event.next;
          continue;
        }
        order.push({ event, state, rank });
        this.#lift(event);
        state = next.state;
        if (order.length > this.longest.length) {
          this.longest = order.map(({ event }) => event.call);
          this.longestState = state;
        }
        [event, rank] = [head.next, 0];
      } else if (rank < 2) {
        [event, rank] = [head.next, rank + 1 as Rank];
      } else {
        let choice: Choice<S, I, O> | undefined;
        do {
          choice = order.pop();
          if (choice === undefined) return false;
          this.#unlift(choice.event);
          // No other call need be tried in the place of one that changes nothing.
        } while (choice.rank === 0);
        ({ state, rank } = choice);
        event = choice.event.next;
      }
    }
    return true;
  }

  /** Applies a call; undefined if its output is another one, or its set of calls and state were tried before. */
  #try(state: S, { call, id }: Event<I, O>): { state: S } | undefined {
    if (++this.steps > this.#stepsMax) {
      throw new ErrCheckUndecided(
        `Calls${
          call.key === undefined ? "" : ` of key ${JSON.stringify(call.key)}`
        } are not decided after ${this.#stepsMax} steps of the model; check shorter histories, or histories with fewer overlapping calls and unknown outcomes`,
      );
    }
    const [next, output] = this.#model.step(state, call.input);
    if (isKnown(call) && !isSame(this.#model, output, call.output as O)) {
      return undefined;
    }
    this.#flip(id);
    const set = String.fromCharCode(...this.#set);
    this.#flip(id);
    const identity = identify(this.#model, next);
    let sets = this.#tried.get(identity);
    if (sets === undefined) this.#tried.set(identity, sets = new Set());
    if (sets.has(set)) return undefined;
    sets.add(set);
    return { state: next };
  }

  #flip(id: number): void {
    this.#set[id >> 4]! ^= 1 << (id & 15);
  }

  #lift(event: Event<I, O>): void {
    this.#flip(event.id);
    unlink(event);
    if (event.end === undefined) return;
    unlink(event.end);
    this.#left--;
  }

  #unlift(event: Event<I, O>): void {
    this.#flip(event.id);
    if (event.end !== undefined) {
      relink(event.end);
      this.#left++;
    }
    relink(event);
  }
}

function unlink<I, O>({ previous, next }: Event<I, O>): void {
  previous.next = next;
  next.previous = previous;
}

function relink<I, O>(event: Event<I, O>): void {
  event.previous.next = event;
  event.next.previous = event;
}

function isSame<S, I, O>(
  model: SequentialModel<S, I, O>,
  one: O,
  other: O,
): boolean {
  return model.isSame?.(one, other) ?? structuralEquals(one, other);
}

function identify<S, I, O>(
  model: SequentialModel<S, I, O>,
  state: S,
): unknown {
  return model.identify === undefined ? state : model.identify(state);
}

/** Forgets the outcome of a call: a history that has an order still has one afterwards. */
function forget<I, O>(call: RecordedCall<I, O>): RecordedCall<I, O> {
  const { client, key, input, start } = call;
  return { client, key, input, start };
}

/** Part of a history up to a time. */
function before<I, O>(
  calls: readonly RecordedCall<I, O>[],
  time: number,
): RecordedCall<I, O>[] {
  return calls.filter(({ start }) => start <= time).map((call) =>
    call.end !== undefined && call.end > time ? forget(call) : call
  );
}

/** Forgets the outcomes of as many calls as possible, with the history still without an order. */
function shrink<S, I, O>(
  model: SequentialModel<S, I, O>,
  calls: readonly RecordedCall<I, O>[],
  stepsMax: number,
): readonly RecordedCall<I, O>[] {
  // Forgotten outcomes allow for many more orders, so the steps are limited.
  let left = stepsMax;
  const isViolation = (
    calls: readonly RecordedCall<I, O>[],
    steps: number,
  ): boolean => {
    const search = new Search(model, calls, steps);
    try {
      return !search.run();
    } catch (error) {
      if (error instanceof ErrCheckUndecided) return false;
      throw error;
    } finally {
      left -= search.steps;
    }
  };
  const ends = calls.flatMap(({ end }) => end ?? []).sort((a, b) => a - b);
  let [low, high] = [0, ends.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isViolation(before(calls, ends[middle]!), stepsMax)) high = middle;
    else low = middle + 1;
  }
  let smallest = before(calls, ends[high]!);
  left = stepsMax;
  for (let size = smallest.length; size >= 1; size >>= 1) {
    for (let from = 0; from < smallest.length; from += size) {
      const fewer = smallest.map((call, i) =>
        i >= from && i < from + size ? forget(call) : call
      );
      const steps = Math.min(left, 1000 + 20 * fewer.length);
      if (fewer.some(isKnown) && isViolation(fewer, steps)) smallest = fewer;
    }
  }
  return smallest.filter((call) =>
    isKnown(call) || !(model.isReadOnly?.(call.input) ?? false)
  );
}

/** Most calls that a text shows. */
const SHOWN_MAX = 12;

function explain<S, I, O>(
  model: SequentialModel<S, I, O>,
  calls: readonly RecordedCall<I, O>[],
  stepsMax: number,
): string {
  const known = calls.filter(isKnown).sort((a, b) => a.start - b.start);
  const others = calls.length - known.length;
  const { key } = known[0]!;
  const search = new Search(model, calls, stepsMax);
  search.run();
  const { longest, longestState } = search;
  const missing = known.find((call) => !longest.includes(call))!;
  const [, output] = model.step(longestState, missing.input);
  const of = key === undefined ? "" : ` of key ${JSON.stringify(key)}`;
  const whatever = others === 0
    ? ""
    : `, even if each of ${others} others took effect at any time after its start, or never`;
  const shown = known.slice(-SHOWN_MAX);
  const order = longest.slice(-SHOWN_MAX)
    .map(({ client, input }) => `${client}: ${show(input)}`);
  return [
    `No order explains these calls${of}${whatever}:`,
    ...shown.length < known.length
      ? [`  (${known.length - shown.length} earlier calls)`]
      : [],
    ...shown.map((call) => `  ${line(call)} [${call.start}, ${call.end}]`),
    order.length === 0
      ? "At the beginning"
      : `The order that explains the most ends with ${order.join("; ")}; then`,
    `  ${missing.client}: ${show(missing.input)} → ${show(output)}`,
  ].join("\n");
}

function line<I, O>({ client, input, output }: RecordedCall<I, O>): string {
  return `${client}: ${show(input)} → ${show(output)}`;
}
