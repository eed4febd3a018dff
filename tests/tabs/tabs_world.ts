/**
 * Tabs of one origin that are opened, closed, frozen, suspended and killed at random
 * while they submit, in simulated time, with what must hold in every one of them.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { NodeHost, type Replica, type Submission } from "../../mod.ts";
import { systemEnv } from "../../src/env.ts";
import { preload } from "../../src/statemachine/load.ts";
import { BlockLogDB } from "../../src/log/block_log.ts";
import { BlockOutbox } from "../../src/offline/block_outbox.ts";
import { BlockSnapshotStore } from "../../src/snapshot/block_snapshot_store.ts";
import { SharedTabs } from "../../src/tabs/shared_tabs.ts";
import type { TabPlatform } from "../../src/tabs/platform.ts";
import type { TabState } from "../../src/tabs/tab_state.ts";
import { SimulatedClock } from "../../src/testing/simulated_clock.ts";
import { ListMachine } from "./list_machine.ts";
import { SimulatedOrigin, type SimulatedTab } from "./origin.ts";

type List = readonly string[];

/** Tab with an application, which checks what it shows. */
export class Visitor {
  readonly name: string;
  readonly tab: SimulatedTab;
  readonly tabs: SharedTabs;
  readonly host: NodeHost;
  replica: Replica<null, List> | undefined;
  /** Error of the start, if it failed. */
  error: unknown;
  /** Committed list that was seen last. */
  committed: List = [];
  /** Texts whose submission has resolved, in order. */
  readonly stored: string[] = [];
  readonly results: Promise<unknown>[] = [];
  #submitted = 0;
  readonly #world: TabsWorld;

  constructor(
    world: TabsWorld,
    name: string,
    { code = 1, locks = true, refuses }: VisitorOptions,
  ) {
    this.#world = world;
    this.name = name;
    const tab = this.tab = world.origin.tab();
    const { env } = tab;
    const platform: TabPlatform = {
      ...tab.platform,
      ...(locks ? {} : { locks: undefined }),
      ...(refuses === undefined ? {} : REFUSING[refuses]),
    };
    this.tabs = new SharedTabs("world", platform, {
      code,
      onCluster: undefined,
    });
    this.host = new NodeHost({
      env,
      logDB: new BlockLogDB(tab.store("log"), { env }),
      outbox: new BlockOutbox(tab.store("outbox"), { env }),
      snapshots: new BlockSnapshotStore(tab.store("snapshots"), { env }),
      tabs: this.tabs,
    });
    this.host.startCluster<null, List>(() => new ListMachine(), {
      clusterID: 1n,
      nodeID: 1n,
      snapshotEntries: 20,
    }).then(
      (replica) => this.replica = replica,
      (error) => this.error = error,
    );
  }

  get state(): TabState {
    return this.tabs.status.state;
  }

  /** True if its code runs now. */
  get isAwake(): boolean {
    return !this.tab.isKilled && !this.tab.env.isSuspended;
  }

  /** Submits a text of its own. */
  submit(): void {
    const { replica } = this;
    if (replica === undefined) return;
    const text = `${this.name}.${++this.#submitted}`;
    this.#world.submitted.add(text);
    replica.submit(new TextEncoder().encode(text)).then(
      (submission) => this.#onStored(text, submission),
      (error) => this.#world.complain(`${this.name} cannot submit: ${error}`),
    );
  }

  #onStored(text: string, { result }: Submission): void {
    this.stored.push(text);
    this.#world.stored.push(text);
    this.results.push(result.catch((error) => error));
  }

  /** Checks what the tab shows now, and returns it. */
  look(): List | undefined {
    const { replica } = this;
    if (replica === undefined || !this.isAwake) return undefined;
    if (replica.status.state !== "running") {
      this.#world.complain(
        `${this.name} is ${replica.status.state}: ${replica.status.error}`,
      );
      return undefined;
    }
    const committed = replica.staleRead(null);
    // While an update is under way, the answer comes later.
    if (!isList(committed)) return undefined;
    if (this.committed.some((text, i) => committed[i] !== text)) {
      this.#world.complain(
        `${this.name} (${this.state}) went back from ${this.committed} to ${committed}`,
      );
    }
    this.committed = committed;
    const view = replica.view.lookup(null);
    if (!isList(view)) return undefined;
    const twice = view.find((text, i) => view.indexOf(text) < i);
    if (twice !== undefined) {
      const at = replica.appliedIndex;
      this.#world.complain(
        `${this.name} (${this.state}) shows ${twice} twice at ${at}: ${
          view.slice(-5)
        }, committed ${committed.slice(-5)}`,
      );
    }
    const missing = this.stored.find((text) => !view.includes(text));
    if (missing !== undefined) {
      this.#world.complain(
        `${this.name} (${this.state}) does not show ${missing}: ${
          view.slice(-5)
        }; ${replica.pending().length} pending`,
      );
    }
    return view;
  }
}

/** Options of {@linkcode TabsWorld.open}. */
export interface VisitorOptions {
  /** Version of the application's code. @default {1} */
  readonly code?: number;
  /** False in a browser without Web Locks. @default {true} */
  readonly locks?: boolean;
  /** Part that the browser refuses to the page, as where site data is blocked. */
  readonly refuses?: "locks" | "channels";
}

const refusal = new DOMException("The request was denied", "SecurityError");

/** Parts of a platform as browsers refuse them. */
const REFUSING: Readonly<
  Record<"locks" | "channels", Partial<TabPlatform>>
> = {
  locks: {
    locks: {
      request: () => Promise.reject(refusal),
      query: () => Promise.reject(refusal),
    },
  },
  channels: {
    openChannel: () => {
      throw refusal;
    },
  },
};

/** Options of a run. */
export interface RunOptions {
  readonly seed: number;
  /** Most tabs that are alive at a time. */
  readonly tabs: number;
  readonly steps: number;
}

/** Tabs of one origin. */
export class TabsWorld {
  readonly clock: SimulatedClock;
  readonly origin: SimulatedOrigin;
  readonly submitted: Set<string> = new Set();
  readonly stored: string[] = [];
  readonly violations: string[] = [];
  visitors: Visitor[] = [];
  #opened = 0;

  constructor(seed: number) {
    this.clock = new SimulatedClock(seed);
    this.origin = new SimulatedOrigin(this.clock, seed);
  }

  complain(what: string): void {
    this.violations.push(`${this.clock.now} ms: ${what}`);
  }

  open(options: VisitorOptions = {}): Visitor {
    const visitor = new Visitor(this, `t${++this.#opened}`, options);
    this.visitors.push(visitor);
    return visitor;
  }

  /** Advances the simulated time. */
  async pass(ms: number): Promise<void> {
    const until = this.clock.now + ms;
    do await settled(); while (this.clock.runNext(until));
    await settled();
  }

  /** Does one thing that may happen to tabs. */
  act(tabsMax: number): void {
    const { chance } = this.origin;
    this.visitors = this.visitors.filter(({ tab }) => !tab.isKilled);
    const { visitors } = this;
    if (
      visitors.length === 0 || visitors.length < tabsMax && chance.percent(8)
    ) {
      this.open();
      return;
    }
    const one = chance.pick(visitors);
    const { tab } = one;
    switch (chance.below(visitors.length > 1 ? 40 : 30)) {
      case 30:
        return tab.kill();
      case 31:
        // Closed.
        if (one.isAwake) tab.happen("hide");
        return tab.kill();
      case 32:
      case 33:
        // Frozen, with an event.
        if (!one.isAwake) return;
        tab.happen("freeze");
        return tab.suspend();
      case 34:
        // Into the back/forward cache.
        if (!one.isAwake) return;
        tab.happen("hide");
        return tab.suspend();
      case 35:
        // Stopped, with no event.
        return tab.suspend();
      case 36:
      case 37:
      case 38:
        return this.wake(one);
      case 39:
        tab.isVisible = !tab.isVisible;
        if (one.isAwake) tab.happen("visibility");
        return;
      default:
        if (one.isAwake) one.submit();
    }
  }

  wake(one: Visitor): void {
    const { tab } = one;
    if (tab.isKilled || !tab.env.isSuspended) return;
    tab.resume();
    tab.soon(() => {
      if (one.state === "cached") tab.happen("resume");
    });
  }

  /** Runs steps at random, and checks at the end that every tab shows the same. */
  async run({ tabs, steps }: Omit<RunOptions, "seed">): Promise<void> {
    // Loaded before, since that takes turns of the event loop.
    await preload();
    const { chance } = this.origin;
    for (let i = 0; i < steps && this.violations.length === 0; i++) {
      this.act(tabs);
      await this.pass(chance.pick([0, 1, 2, 5, 5, 20, 100, 500]));
      for (const one of this.visitors) one.look();
    }
    await this.end();
  }

  /** Wakes all tabs, waits until they have settled, and compares them. */
  async end(): Promise<void> {
    if (this.visitors.every(({ tab }) => tab.isKilled)) this.open();
    for (const one of this.visitors) {
      one.tab.isVisible = true;
      this.wake(one);
      if (one.isAwake) one.tab.happen("visibility");
    }
    for (let i = 0; i < 60; i++) {
      await this.pass(1_000);
      for (const one of this.visitors) one.look();
      if (this.violations.length > 0) return;
      if (this.#isSettled) break;
    }
    const alive = this.visitors.filter(({ tab }) => !tab.isKilled);
    const leaders = alive.filter(({ state }) => state === "leading");
    if (leaders.length !== 1) {
      return this.complain(
        `${leaders.length} tabs lead: ${
          alive.map(({ name, state }) => `${name} ${state}`)
        }`,
      );
    }
    const [{ committed: list }] = leaders as [Visitor];
    for (const one of alive) {
      if (one.replica === undefined) {
        this.complain(
          `${one.name} has not started (${one.state}): ${one.error}`,
        );
      } else if (one.committed.join() !== list.join()) {
        this.complain(
          `${one.name} (${one.state}) has ${one.committed}, the leader ${list}`,
        );
      } else if (one.replica.pendingCount > 0) {
        this.complain(
          `${one.name} (${one.state}) has ${one.replica.pendingCount} pending`,
        );
      }
    }
    this.#checkList(list);
    for (const { results, name } of alive) {
      for (const pending of results) {
        const result = await Promise.race([pending, settled()]);
        if (result === undefined) {
          this.complain(`${name} has a result that is open`);
        }
        if (result instanceof Error && !/result is lost/.test(`${result}`)) {
          this.complain(`${name} has the result ${result}`);
        }
      }
    }
  }

  get #isSettled(): boolean {
    const alive = this.visitors.filter(({ tab }) => !tab.isKilled);
    const applied = new Set(alive.map(({ replica }) => replica?.appliedIndex));
    return applied.size === 1 && !applied.has(undefined) &&
      alive.every(({ replica }) => replica!.pendingCount === 0);
  }

  #checkList(list: List): void {
    const at = new Map<string, number>();
    for (const [i, text] of list.entries()) {
      if (at.has(text)) this.complain(`${text} was applied twice: ${list}`);
      if (!this.submitted.has(text)) {
        this.complain(`${text} was never submitted`);
      }
      at.set(text, i);
    }
    const last = new Map<string, number>();
    for (const text of this.stored) {
      const place = at.get(text);
      if (place === undefined) {
        this.complain(`${text} was stored, and is lost: ${list}`);
        continue;
      }
      const [tab] = text.split(".") as [string];
      if (place < (last.get(tab) ?? -1)) {
        this.complain(`${text} was applied out of order: ${list}`);
      }
      last.set(tab, place);
    }
  }
}

function isList(answer: unknown): answer is List {
  return Array.isArray(answer);
}

/** Resolves once all microtasks have run. */
function settled(): Promise<void> {
  const { setImmediate } = globalThis as {
    setImmediate?: (callback: () => void) => void;
  };
  return setImmediate === undefined
    ? systemEnv.turn()
    : new Promise((resolve) => setImmediate(resolve));
}

/** Runs tabs at random; returns what must not have happened. */
export async function runTabs(options: RunOptions): Promise<TabsWorld> {
  const world = new TabsWorld(options.seed);
  await world.run(options);
  for (const { tab } of world.visitors) tab.kill();
  return world;
}
