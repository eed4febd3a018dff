/**
 * State that the actors of one simulation share: its seed, time, network and
 * profile, and the failures found so far.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { random32 } from "../support/random.ts";
import { SimulatedEnv } from "./env.ts";
import { type Cut, Network } from "./network.ts";

/** Cluster of every simulation. */
export const CLUSTER = 1n;

/** Reason with which the server and the operator refuse a command. */
export const REFUSED = "Command contains a forbidden word (simulated)";

/** Part of a command that the server's `validate` refuses. */
export const BAD = "bad";

/** Ways in which connections break. */
export const CUTS: readonly Cut[] = ["clean", "halves", "silent"];

/** Faults of a simulation; that connections break and processes die is part of each. */
export interface Profile {
  /** One command in this many is refused; 0 for none. */
  readonly refusals: number;
  /** True if sessions are evicted while their clients are away. */
  readonly evictions: boolean;
  /** True if the log is compacted while clients are away. */
  readonly compaction: boolean;
  /** True if tokens expire. */
  readonly tokens: boolean;
  /** True if an outbox is copied to another device. */
  readonly copies: boolean;
  /** True if outboxes fail to write. */
  readonly fullStores: boolean;
  /** True if power is cut, so that what was written last is lost. */
  readonly powerCuts: boolean;
  /** True if snapshots are cut off on the way, and the network stays away for a while. */
  readonly cutSnapshots: boolean;
  /** True if the server is put back to older copies of its store, and devices start over. */
  readonly restores: boolean;
  /** True if commands at which every machine throws get into the log, and an operator has them skipped. */
  readonly poisons: boolean;
}

/** Number of times that each event happened, to show that it happened at all. */
export type Counts = Record<string, number>;

/** Shared state of the actors of one simulation. */
export class SimulationContext {
  readonly seed: number;
  readonly profile: Profile;
  readonly counts: Counts;
  readonly env: SimulatedEnv;
  readonly random: () => number;
  readonly network: Network;
  /** Entries between two comparisons of the replicas' hashes. */
  hashEntries = 8;
  /** Number of times that the server was put back to an older copy of its store. */
  history = 0;
  /** True if the server was put back by the test itself, beside the profile. */
  isRestored = false;
  /** True while no faults are injected. */
  isHealing = false;
  /** Number of times that all sessions were evicted. */
  evictions = 0;
  readonly #background = new Set<Promise<unknown>>();
  readonly #failures: string[] = [];

  constructor(seed: number, profile: Profile, counts: Counts) {
    this.seed = seed;
    this.profile = profile;
    this.counts = counts;
    this.env = new SimulatedEnv(seed);
    this.random = random32(seed);
    this.network = new Network(this.env, this.random);
  }

  /** True once in `of` times. */
  chance(of: number): boolean {
    return this.random() % of === 0;
  }

  count(event: string): void {
    this.counts[event] = (this.counts[event] ?? 0) + 1;
  }

  /** Notes a violation, which the next `check()` throws. */
  fail(violation: string): void {
    this.#failures.push(`${violation} (at ${this.env.now()} ms)`);
  }

  /** Throws the violations found so far. */
  check(): void {
    if (this.#failures.length > 0) throw new Error(this.#failures.join("\n"));
  }

  /** Lets work go on beside the test, whatever becomes of it; `end()` waits for it. */
  background(work: Promise<unknown>): void {
    const done = work.catch(() => {}).finally(() =>
      this.#background.delete(done)
    );
    this.#background.add(done);
  }

  /** True if replicas may rightly find that they diverge from the server. */
  get mayDiverge(): boolean {
    return this.isRestored || this.profile.restores;
  }

  /** Waits for the work in the background; fails if work or a timer is left. */
  async end(): Promise<void> {
    for (let i = 0; i < 100 && this.#background.size > 0; i++) {
      await this.env.advance(5_000);
    }
    assertEquals(this.#background.size, 0, "Background work never ended");
    await this.env.advance(60_000);
    assertEquals(this.env.timers, 0, "A timer is left");
  }
}
