/**
 * Simulated origin: the locks, channels and databases that its tabs share, in
 * simulated time, and tabs that can be frozen, suspended and killed.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { chain } from "../../src/async.ts";
import { ErrClusterClosed } from "../../src/log/errors.ts";
import type { StoreLease } from "../../src/store/lease.ts";
import { MemoryBlockStore } from "../../src/store/memory_block_store.ts";
import type {
  Block,
  BlockStore,
  Changes,
  Durability,
  ListOptions,
  UpdateFound,
  UpdateReads,
} from "../../src/store/store.ts";
import type {
  LifeEvent,
  TabChannel,
  TabPlatform,
} from "../../src/tabs/platform.ts";
import type { MaybePromise } from "../../src/statemachine/types.ts";
import { generator } from "../../src/testing/simulated_clock.ts";
import type {
  SimulatedClock,
  SimulatedEnv,
} from "../../src/testing/simulated_clock.ts";

/** Random numbers of a simulation. */
export class Chance {
  readonly #next: () => number;

  constructor(seed: number) {
    this.#next = generator(seed);
  }

  /** An integer from 0, below `n`. */
  below(n: number): number {
    return this.#next() % n;
  }

  /** One of the items. */
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }

  /** True in `percent` of 100 calls. */
  percent(percent: number): boolean {
    return this.below(100) < percent;
  }
}

interface LockRequest {
  readonly tab: SimulatedTab;
  readonly hold: () => Promise<void>;
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
}

/** Locks of the origin. */
class Locks {
  readonly #waiting = new Map<string, LockRequest[]>();
  readonly #held = new Map<string, LockRequest>();

  request(
    tab: SimulatedTab,
    name: string,
    { signal, steal }: { signal?: AbortSignal; steal?: boolean },
    hold: () => Promise<void>,
  ): Promise<unknown> {
    return new Promise<void>((resolve, reject) => {
      // Code of a tab that has ended may still run in this turn.
      if (tab.isKilled) return;
      const request = { tab, hold, resolve, reject };
      const waiting = this.#waiting.get(name) ?? [];
      this.#waiting.set(name, waiting);
      if (steal) {
        const before = this.#held.get(name);
        this.#held.delete(name);
        if (before !== undefined) {
          before.tab.soon(() =>
            before.reject(new DOMException("Lock was stolen", "AbortError"))
          );
        }
        waiting.unshift(request);
      } else waiting.push(request);
      signal?.addEventListener("abort", () => {
        const present = this.#waiting.get(name)!;
        const at = present.indexOf(request);
        if (at < 0) return;
        present.splice(at, 1);
        reject(new DOMException("Request was aborted", "AbortError"));
      });
      this.#grant(name);
    });
  }

  #grant(name: string): void {
    if (this.#held.has(name)) return;
    const next = this.#waiting.get(name)?.shift();
    if (next === undefined) return;
    this.#held.set(name, next);
    next.tab.soon(() => {
      if (this.#held.get(name) !== next) return;
      const release = (): void => {
        if (this.#held.get(name) !== next) return;
        this.#held.delete(name);
        next.resolve();
        this.#grant(name);
      };
      next.hold().then(release, release);
    });
  }

  /** Releases what a tab that ends holds and waits for. */
  ended(tab: SimulatedTab): void {
    for (const [name, waiting] of this.#waiting) {
      this.#waiting.set(name, waiting.filter((one) => one.tab !== tab));
      if (this.#held.get(name)?.tab === tab) {
        this.#held.delete(name);
        this.#grant(name);
      }
    }
  }
}

interface Port {
  readonly tab: SimulatedTab;
  readonly listener: ((message: unknown) => void) | undefined;
  isOpen: boolean;
  /** Messages under way from each channel, in order. */
  readonly inboxes: Map<Port, unknown[]>;
}

/** Database that all tabs of the origin use. */
class Disk {
  readonly #blocks: () => BlockStore;
  token: string | undefined;

  constructor(blocks: () => BlockStore) {
    this.#blocks = blocks;
  }

  /** Content of the database, in memory. */
  get blocks(): BlockStore {
    return this.#blocks();
  }
}

/** Everything that the tabs of an origin share. */
export class SimulatedOrigin {
  readonly clock: SimulatedClock;
  readonly chance: Chance;
  readonly locks: Locks = new Locks();
  readonly #ports = new Map<string, Set<Port>>();
  readonly #disks = new Map<string, Disk>();
  /** Returns the error of an operation on a database; undefined if it succeeds. */
  fault: (tab: SimulatedTab, disk: string) => Error | undefined = () =>
    undefined;
  /** Number of messages that tabs have posted. */
  posted = 0;
  readonly #env: SimulatedEnv;
  #made = 0;
  /** Writes under way. */
  readonly #writes = new Set<PendingWrite>();
  #powerCuts = 0;

  readonly #blocks: (name: string) => () => BlockStore;

  /** Creates an origin; `blocks` returns the content of a database, in memory. */
  constructor(
    clock: SimulatedClock,
    seed: number,
    blocks?: (name: string) => BlockStore,
  ) {
    this.clock = clock;
    this.chance = new Chance(seed);
    const env = this.#env = clock.env("origin");
    this.#blocks = (name) => {
      if (blocks !== undefined) return () => blocks(name);
      const store = new MemoryBlockStore({ env });
      return () => store;
    };
  }

  /** Opens a tab, whose process has `env`. */
  tab(env: SimulatedEnv = this.clock.env(`tab ${++this.#made}`)): SimulatedTab {
    return new SimulatedTab(this, env);
  }

  disk(name: string): Disk {
    let disk = this.#disks.get(name);
    if (disk === undefined) {
      this.#disks.set(name, disk = new Disk(this.#blocks(name)));
    }
    return disk;
  }

  /** Removes all databases, as a browser does that needs room. */
  clear(): void {
    this.#disks.clear();
  }

  open(
    tab: SimulatedTab,
    name: string,
    listener: ((message: unknown) => void) | undefined,
  ): TabChannel {
    const ports = this.#ports.get(name) ?? new Set();
    this.#ports.set(name, ports);
    const port: Port = { tab, listener, isOpen: true, inboxes: new Map() };
    ports.add(port);
    return {
      post: (message) => {
        if (!port.isOpen) throw new DOMException("Closed", "InvalidStateError");
        this.posted++;
        for (const to of ports) {
          if (to !== port && to.listener !== undefined) {
            this.#send(port, to, structuredClone(message));
          }
        }
      },
      close: () => {
        port.isOpen = false;
        ports.delete(port);
      },
    };
  }

  #send(from: Port, to: Port, message: unknown): void {
    const inbox = to.inboxes.get(from) ?? [];
    to.inboxes.set(from, inbox);
    inbox.push(message);
    this.#env.setTimer(() => {
      if (from.tab.isKilled && this.chance.percent(10)) inbox.pop();
      to.tab.env.setTimer(() => {
        const next = inbox.shift();
        if (next !== undefined && to.isOpen) to.listener!(next);
      }, 0);
    }, this.chance.below(4));
  }

  /** Runs an operation of a database after the time that it takes, also if the tab has ended by then, in most cases. */
  operate<T>(
    tab: SimulatedTab,
    work: () => MaybePromise<T>,
    isWrite = false,
  ): Promise<T> {
    const powerCuts = this.#powerCuts;
    return new Promise((resolve, reject) => {
      const land = (): void => {
        this.#writes.delete(write);
        if (powerCuts !== this.#powerCuts) return;
        if (tab.isKilled && this.chance.percent(50)) return;
        let settle: () => void;
        try {
          const value = work();
          settle = () => resolve(value);
        } catch (error) {
          settle = () => reject(error);
        }
        tab.soon(settle);
      };
      const delay = this.chance.below(3);
      const write = { tab, land, cancel: this.#env.setTimer(land, delay) };
      if (isWrite) this.#writes.add(write);
    });
  }

  /** Has the writes of a tab that are under way take effect after a time, behind what other tabs write until then. */
  holdUp(tab: SimulatedTab, ms: number): void {
    for (const write of this.#writes) {
      if (write.tab !== tab) continue;
      write.cancel();
      write.cancel = this.#env.setTimer(write.land, ms);
    }
  }

  /** Cuts the power, once all tabs are killed: nothing that was under way takes effect. */
  cutPower(): void {
    this.#powerCuts++;
  }
}

/** Write of a tab that has not taken effect. */
interface PendingWrite {
  readonly tab: SimulatedTab;
  readonly land: () => void;
  cancel: () => void;
}

/** Tab of a simulated origin. */
export class SimulatedTab {
  readonly env: SimulatedEnv;
  readonly origin: SimulatedOrigin;
  readonly platform: TabPlatform;
  isVisible = true;
  readonly #listeners = new Set<(event: LifeEvent) => void>();

  constructor(origin: SimulatedOrigin, env: SimulatedEnv) {
    this.origin = origin;
    this.env = env;
    const { locks } = origin;
    const isVisible = (): boolean => this.isVisible;
    this.platform = {
      env,
      locks: {
        request: (name, options, hold) =>
          locks.request(this, name, options, hold),
        query: () => Promise.resolve(),
      },
      openChannel: (name, listener) => origin.open(this, name, listener),
      life: {
        get isVisible(): boolean {
          return isVisible();
        },
        watch: (listener) => {
          this.#listeners.add(listener);
          return () => void this.#listeners.delete(listener);
        },
      },
    };
  }

  /** True once the process of the tab has ended. */
  get isKilled(): boolean {
    return this.env.isDead;
  }

  /** Calls back in the tab: once it goes on, if it is suspended. */
  soon(callback: () => void): void {
    this.env.setTimer(callback, 0);
  }

  /** Reports an event of the page's life. */
  happen(event: LifeEvent): void {
    for (const listener of [...this.#listeners]) listener(event);
  }

  /** Suspends the process of the tab; some of its last writes take effect only when another tab may lead. */
  suspend(): void {
    const { chance } = this.origin;
    if (chance.percent(50)) this.origin.holdUp(this, chance.below(8_000));
    this.env.suspend();
  }

  /** Continues the process of the tab, and the writes that were held up; with `lost`, its clock has not advanced in between. */
  resume(lost = false): void {
    this.origin.holdUp(this, 0);
    this.env.resume(lost);
  }

  /** Ends the process of the tab. */
  kill(): void {
    this.origin.holdUp(this, 0);
    this.env.kill();
    this.origin.locks.ended(this);
  }

  /** Creates a store in a database of the origin. */
  store(name: string): BlockStore {
    return new SharedStore(this, name);
  }
}

/** Store in a database that all tabs of the origin use, under a lease. */
class SharedStore implements BlockStore {
  readonly #tab: SimulatedTab;
  readonly #name: string;
  #lease: StoreLease | undefined;
  #isClosed = false;

  constructor(tab: SimulatedTab, name: string) {
    this.#tab = tab;
    this.#name = name;
  }

  /** The database, also after it was cleared. */
  get #disk(): Disk {
    return this.#tab.origin.disk(this.#name);
  }

  #operate<T>(
    work: (blocks: BlockStore) => MaybePromise<T>,
    isWrite = false,
  ): Promise<T> {
    if (this.#isClosed) return Promise.reject(new ErrClusterClosed());
    const { origin } = this.#tab;
    return origin.operate(this.#tab, () => {
      const error = origin.fault(this.#tab, this.#name);
      if (error !== undefined) throw error;
      return work(this.#disk.blocks);
    }, isWrite);
  }

  share(lease: StoreLease): void {
    this.#lease = lease;
    lease.add({
      claim: (next) =>
        this.#operate(() => {
          this.#disk.token = next(this.#disk.token);
        }),
      verify: async () => {
        const check = lease.guard(false);
        const refusal = check(await this.#operate(() => this.#disk.token));
        if (refusal !== undefined) throw refusal;
      },
    });
  }

  identity(): Promise<string> {
    return this.#operate((blocks) => blocks.identity());
  }

  get(keys: readonly string[]): Promise<(Uint8Array | undefined)[]> {
    return this.#operate((blocks) => blocks.get(keys));
  }

  list(from: string, to: string, options?: ListOptions): Promise<Block[]> {
    return this.#operate((blocks) => blocks.list(from, to, options));
  }

  keys(from: string, to: string, options?: ListOptions): Promise<string[]> {
    return this.#operate((blocks) => blocks.keys(from, to, options));
  }

  async write(changes: Changes, durability: Durability): Promise<void> {
    const check = this.#lease?.guard(false);
    await this.#operate((blocks) => {
      const refusal = check?.(this.#disk.token);
      if (refusal !== undefined) throw refusal;
      return blocks.write(changes, durability);
    }, true);
  }

  async update(
    reads: UpdateReads,
    decide: (found: UpdateFound) => Changes | undefined,
    durability: Durability,
    isShared: boolean,
  ): Promise<boolean> {
    const check = this.#lease?.guard(isShared);
    return await this.#operate((blocks) => {
      const refusal = check?.(this.#disk.token);
      if (refusal !== undefined) throw refusal;
      // In memory: nothing happens in between.
      const { keys, range: [from, to] = ["", ""], ...options } = reads;
      const inRange = blocks.list(from, to, options) as Block[];
      const found = blocks.get(keys) as (Uint8Array | undefined)[];
      const changes = decide({ blocks: found, inRange });
      if (changes === undefined) return false;
      return chain(blocks.write(changes, durability), () => true);
    }, true);
  }

  close(): Promise<void> {
    this.#isClosed = true;
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
