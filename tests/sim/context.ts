/**
 * State that the actors of one world share: its seed, time, network, profile and
 * history.
 *
 * @module
 */

import type { HostEvent } from "../../mod.ts";
import {
  derivedSeed,
  generator,
  SimulatedClock,
  type SimulatedEnv,
} from "../../src/testing/simulated_clock.ts";
import { SimulatedNetwork } from "../../src/testing/simulated_network.ts";
import { advance, settle, type Settled } from "./env.ts";
import type { History } from "./history.ts";
import type { ClockProfile, Profile } from "./plan.ts";

/** Reason with which the server and the operator refuse a command. */
export const REFUSED = "Command contains a forbidden word (simulated)";

/** Time in which something without a fault must have ended, in simulated milliseconds. */
const BOUND_MS = 600_000;

/** Call in the background, of a process. */
interface Call {
  readonly env: SimulatedEnv;
  readonly what: string;
}

/** Shared state of the actors of one world. */
export class WorldContext {
  readonly seed: number;
  readonly profile: Profile;
  /** Clusters of the world. */
  readonly clusters: readonly bigint[];
  readonly history: History;
  readonly clock: SimulatedClock;
  readonly network: SimulatedNetwork;
  /** Environment of what belongs to no process: the network's infrastructure and the users. */
  readonly env: SimulatedEnv;
  /** Number of times that the log was put back to an older copy. */
  restores = 0;
  /** True while no faults are injected. */
  isHealing = false;
  readonly #envs = new Map<string, SimulatedEnv>();
  readonly #background = new Set<Call>();
  readonly #lives = new Map<string, number>();

  constructor(seed: number, profile: Profile, history: History) {
    this.seed = seed;
    this.profile = profile;
    this.clusters = Array.from(
      { length: profile.clusters },
      (_, i) => BigInt(i + 1),
    );
    this.history = history;
    this.clock = new SimulatedClock(seed);
    this.network = new SimulatedNetwork(derivedSeed(seed, "network"));
    this.env = this.clock.env("world");
  }

  /** Creates the random numbers of an actor. */
  random(name: string): () => number {
    return generator(derivedSeed(this.seed, name));
  }

  /** Begins the next life of a process; its name is `name/n` in the nth. */
  newProcess(name: string, clock?: ClockProfile): {
    readonly name: string;
    readonly env: SimulatedEnv;
  } {
    const life = (this.#lives.get(name) ?? 0) + 1;
    this.#lives.set(name, life);
    const full = `${name}/${life}`;
    const env = this.clock.env(full, clock);
    this.#envs.set(full, env);
    return { name: full, env };
  }

  /** Records an event of a host. */
  noteEvent(where: "server" | "device", event: HostEvent): void {
    const { history } = this;
    history.met("event", `${where}: ${event.type}`);
    const { error, failure } = event as { error?: unknown; failure?: unknown };
    if (error !== undefined) history.failed(error);
    if (failure !== undefined && failure !== error) history.failed(failure);
  }

  /** Records a violation that the world itself has found. */
  fail(oracle: string, text: string): void {
    this.history.fail(oracle, `${text} (at ${this.clock.now} ms)`);
  }

  /** Advances the time. */
  advance(ms: number): void {
    advance(this.clock, ms);
  }

  /** Advances the time until a promise has settled; undefined if it never does. */
  settle<T>(
    promise: Promise<T>,
    ms: number = BOUND_MS,
  ): Settled<T> | undefined {
    return settle(this.clock, promise, ms);
  }

  /** Advances the time until a promise has resolved; throws if it rejects or never settles. */
  until<T>(promise: Promise<T>, what: string): T {
    const settled = this.settle(promise);
    if (settled === undefined) {
      throw new Error(`${what} did not end in ${BOUND_MS} ms`);
    }
    if ("error" in settled) throw settled.error;
    return settled.value;
  }

  /** Lets work of a process go on, whatever becomes of it; `end()` waits for it unless the process dies. */
  background(env: SimulatedEnv, what: string, work: Promise<unknown>): void {
    const call: Call = { env, what };
    this.#background.add(call);
    const done = (): void => void this.#background.delete(call);
    work.then(done, done);
  }

  /** Waits for work in the background, and records what is left of it. */
  end(): void {
    const left = (): Call[] =>
      [...this.#background].filter(({ env }) => !env.isDead);
    for (let i = 0; i < 100 && left().length > 0; i++) this.advance(5_000);
    for (const { what } of left()) this.fail("end", `${what} never settled`);
    this.advance(60_000);
    for (const [name, { timers }] of this.#envs) {
      if (timers > 0) this.fail("end", `${timers} timers are left of ${name}`);
    }
  }
}
