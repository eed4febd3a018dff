/**
 * A run of the playground: a world, the tour that plays in it, the sentences about
 * it, and what the person did, so that a URL can repeat it.
 *
 * @module
 */

import { compile, type Machine } from "./machine.ts";
import { type Sample, sampleOf, SAMPLES } from "./machines.ts";
import { narrate, type Sentence, type Tone } from "./narration.ts";
import { lengthOf, type Tour, TOURS } from "./tours.ts";
import { type Action, type Name, NAMES, World } from "./world.ts";

/** Action of the person at a simulated time, in milliseconds. */
export interface Recorded {
  readonly at: number;
  readonly action: Action;
}

/** Inputs of a run: they decide everything in it. */
export interface Setup {
  readonly seed: number;
  /** Number of the tour, from 0; undefined for a run without one. */
  readonly tour: number | undefined;
  /** Source text of the machine. */
  readonly code: string;
  /** Actions to repeat, in order. */
  readonly actions: readonly Recorded[];
}

/** Time to read the last sentence of a tour, in milliseconds. */
const READING_MS = 3_500;

/** Longest time of a run in a URL, in milliseconds. */
const RUN_MS_MAX = 3_600_000;

/** World with its tour, its sentences and its record. */
export class Run {
  readonly setup: Setup;
  readonly world: World;
  readonly machine: Machine;
  /** Sentences, the newest last. */
  readonly sentences: Sentence[];
  /** Actions of the person so far. */
  readonly recorded: Recorded[] = [];
  readonly #tour: Tour | undefined;
  /** Actions to repeat that are still to come, the next one last. */
  readonly #repeating: Recorded[];
  /** Actions that wait until the world stands still. */
  readonly #queued: Action[] = [];

  private constructor(
    setup: Setup,
    machine: Machine,
    world: World,
    sentences: Sentence[],
  ) {
    this.setup = setup;
    this.machine = machine;
    this.world = world;
    this.sentences = sentences;
    this.#tour = setup.tour === undefined ? undefined : TOURS[setup.tour];
    this.#repeating = [...setup.actions].reverse();
  }

  /**
   * Starts a run.
   *
   * @throws ErrMachineCode if the code of the machine is not right
   */
  static async start(setup: Setup): Promise<Run> {
    const machine = compile(setup.code);
    const sentences: Sentence[] = [];
    let isSetUp = false;
    const world = await World.create({
      seed: setup.seed,
      machine,
      onEvent(event, at): void {
        const said = isSetUp ? narrate(event) : undefined;
        if (said !== undefined) say(sentences, at, ...said);
      },
    });
    isSetUp = true;
    const run = new Run(setup, machine, world, sentences);
    run.#schedule();
    return run;
  }

  /** Schedules the moments of the tour. */
  #schedule(): void {
    for (const { at, say: text, act } of this.#tour?.moments ?? []) {
      const moment = (): void => {
        if (text !== undefined) {
          say(this.sentences, this.world.now, "step", text);
        }
        if (act !== undefined) this.world.act(act);
      };
      if (at === 0) moment();
      else this.world.later(moment, at);
    }
  }

  /** Length of the tour, in milliseconds; 0 without one. */
  get tourMs(): number {
    return this.#tour === undefined ? 0 : lengthOf(this.#tour);
  }

  /** True if the tour has said all, a while ago. */
  get isTold(): boolean {
    return this.#tour !== undefined &&
      this.world.now > this.tourMs + READING_MS;
  }

  /** True if nothing is under way, and nothing will happen without the person. */
  get isQuiet(): boolean {
    return this.world.isQuiet &&
      (this.#tour === undefined || this.isTold) &&
      this.#repeating.length === 0 && this.#queued.length === 0;
  }

  /** Has the person do something, as soon as the world stands still. */
  act(action: Action): void {
    this.#queued.push(action);
    if (!this.world.isBusy) this.#actNow();
  }

  #actNow(): void {
    const { world } = this;
    for (const action of this.#queued.splice(0)) {
      if (world.act(action)) this.recorded.push({ at: world.now, action });
    }
  }

  /** Lets simulated time pass up to `to`, in whole milliseconds. */
  async advance(to: number): Promise<void> {
    const { world } = this;
    if (world.isBusy || to <= world.now) return;
    for (;;) {
      const next = this.#repeating.at(-1);
      if (next === undefined || next.at > to) break;
      if (next.at > world.now) await world.advance(next.at);
      this.#repeating.pop();
      this.#queued.push(next.action);
      this.#actNow();
    }
    await world.advance(to);
    this.#actNow();
  }

  /** Lets time pass until something visible has changed. */
  async step(): Promise<void> {
    const { world } = this;
    if (world.isBusy) return;
    const next = this.#repeating.at(-1);
    if (next !== undefined && next.at - world.now < STEP_MS_MAX) {
      return await this.advance(next.at);
    }
    await world.step();
    this.#actNow();
  }

  /** Ends the run. */
  async close(): Promise<void> {
    await this.world.close();
  }
}

/** Number of the newest sentences that are counted when they repeat, instead of being said again. */
const REPEATS_WITHIN = 6;

/** Time within which a single step reaches the next action to repeat, in milliseconds. */
const STEP_MS_MAX = 100;

function say(
  sentences: Sentence[],
  at: number,
  tone: Tone,
  text: string,
): void {
  const before = sentences.slice(-REPEATS_WITHIN)
    .find((sentence) => sentence.text === text);
  if (before !== undefined) {
    before.times++;
    return;
  }
  sentences.push({ at, tone, text, times: 1 });
}

// ------------------------------------------------------------------------ URLs

/** Setup in a URL; `unread` is code that the URL brings, which runs only if the person has read it and says so. */
export interface Found {
  readonly setup: Setup;
  readonly unread: string | undefined;
}

/** Reads an integer in 0…`max` from a text; undefined for anything else. */
function count(text: string | null, max: number): number | undefined {
  if (text === null || !/^\d{1,9}$/.test(text)) return undefined;
  const value = Number(text);
  return value <= max ? value : undefined;
}

type Row = readonly [at: number, verb: string, on: string, ...rest: unknown[]];

const VERBS: ReadonlySet<string> = new Set<Action["do"]>([
  "pause",
  "resume",
  "crash",
  "restart",
  "cut",
  "join",
  "slow",
  "fast",
  "snapshot",
  "compact",
  "skip",
  "lose",
  "lose answer",
  "double",
]);

function rowOf({ at, action }: Recorded): Row {
  const { do: verb, on } = action;
  return verb === "propose"
    ? [at, verb, on, action.command, action.session]
    : [at, verb, on];
}

/** Reads one action; undefined for anything else. */
function recordedOf(row: unknown): Recorded | undefined {
  if (!Array.isArray(row)) return undefined;
  const [at, verb, on, command, session] = row as unknown[];
  if (
    typeof at !== "number" || !Number.isInteger(at) || at < 0 ||
    at > RUN_MS_MAX || !NAMES.includes(on as Name)
  ) return undefined;
  if (verb === "propose") {
    if (typeof command !== "string" || typeof session !== "boolean") {
      return undefined;
    }
    return { at, action: { do: verb, on: on as Name, command, session } };
  }
  return VERBS.has(verb as string)
    ? { at, action: { do: verb, on } as Action }
    : undefined;
}

function actionsOf(text: string | null): readonly Recorded[] {
  if (text === null) return [];
  try {
    const rows = JSON.parse(text) as unknown;
    if (!Array.isArray(rows)) return [];
    const actions = rows.map(recordedOf)
      .filter((recorded) => recorded !== undefined);
    return actions.sort((a, b) => a.at - b.at);
  } catch {
    return [];
  }
}

/** Sample whose code is `code`, if it is one. */
export function sampleWith(code: string): Sample | undefined {
  return SAMPLES.find((sample) => sample.code === code);
}

/** Reads the setup of a run from a URL. What it does not say, or says wrongly, has its default. */
export function setupOf(url: URL): Found {
  const { searchParams: query, hash } = url;
  const fragment = new URLSearchParams(hash.slice(1));
  const machine = query.get("machine");
  const isFree = machine !== null || fragment.has("run") ||
    fragment.has("code");
  // A first visit begins with the tour.
  const number = count(query.get("tour"), TOURS.length) ?? (isFree ? 0 : 1);
  const tour = number === 0 ? undefined : number - 1;
  const id = machine ?? (tour === undefined ? null : TOURS[tour]!.machine);
  return {
    setup: {
      seed: count(query.get("seed"), SEED_MAX) ?? 1,
      tour,
      code: sampleOf(id).code,
      actions: actionsOf(fragment.get("run")),
    },
    unread: fragment.get("code") ?? undefined,
  };
}

/** Largest seed. */
export const SEED_MAX = 999_999;

/** URL that repeats a run, with what the person did in it. */
export function urlOf(
  base: URL,
  { seed, tour, code }: Setup,
  recorded: readonly Recorded[] = [],
): URL {
  const url = new URL(base.pathname, base);
  const query = url.searchParams;
  query.set("tour", String((tour ?? -1) + 1));
  const sample = sampleWith(code);
  if (tour === undefined || sample?.id !== TOURS[tour]!.machine) {
    if (sample !== undefined && sample !== SAMPLES[0]) {
      query.set("machine", sample.id);
    }
  }
  query.set("seed", String(seed));
  const fragment = new URLSearchParams();
  if (recorded.length > 0) {
    fragment.set("run", JSON.stringify(recorded.map(rowOf)));
  }
  if (sample === undefined) fragment.set("code", code);
  url.hash = fragment.toString();
  return url;
}
