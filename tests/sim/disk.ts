/**
 * Simulated storage of one process, which survives the process: it can be slow,
 * fail, lose what was not synced when power is cut, and be copied.
 *
 * @module
 */

import { ErrStoreFull, ErrUnknownOutcome } from "../../mod.ts";
import { isSameBytes } from "../../src/bytes.ts";
import {
  type Block,
  type BlockStore,
  type Changes,
  type Durability,
  ErrStoreCorrupted,
  type ListOptions,
  MemoryBlockStore,
} from "../../src/store/mod.ts";
import type { MaybePromise } from "../../src/statemachine/types.ts";
import type { Env } from "../../src/env.ts";
import { FaultyBlockStore } from "../../src/testing/faulty_block_store.ts";

/** Store whose calls take time and run one after the other. */
class SlowStore implements BlockStore {
  readonly #inner: FaultyBlockStore;
  readonly #env: Env;
  readonly #delay: () => number;
  #last: Promise<unknown> = Promise.resolve();

  readonly #isLying: boolean;

  constructor(
    inner: FaultyBlockStore,
    env: Env,
    delay: () => number,
    isLying: boolean,
  ) {
    this.#isLying = isLying;
    this.#inner = inner;
    this.#env = env;
    this.#delay = delay;
  }

  #call<T>(call: () => MaybePromise<T>): Promise<T> {
    const called = this.#last.then(async () => {
      await new Promise<void>((resolve) => {
        this.#env.setTimer(resolve, this.#delay());
      });
      return await call();
    });
    this.#last = called.catch(() => {});
    return called;
  }

  identity(): Promise<string> {
    return this.#call(() => this.#inner.identity());
  }

  get(keys: readonly string[]): Promise<(Uint8Array | undefined)[]> {
    return this.#call(() => this.#inner.get(keys));
  }

  list(from: string, to: string, options?: ListOptions): Promise<Block[]> {
    return this.#call(() => this.#inner.list(from, to, options));
  }

  keys(from: string, to: string, options?: ListOptions): Promise<string[]> {
    return this.#call(() => this.#inner.keys(from, to, options));
  }

  write(changes: Changes, durability: Durability): Promise<void> {
    // The caller may change its bytes once the call has returned.
    const put = (changes.put ?? []).map(({ key, bytes }) => ({
      key,
      bytes: bytes.slice(),
    }));
    const real = this.#isLying ? "relaxed" : durability;
    return this.#call(() => this.#inner.write({ ...changes, put }, real));
  }

  async close(): Promise<void> {
    await this.#last;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Damage of one stored block. */
export type Damage =
  /** One bit of the block is flipped. */
  | "corrupted"
  /** Second half of the block is missing. */
  | "torn"
  /** The block is missing. */
  | "lost"
  /** The block has the content of another one. */
  | "misdirected"
  /** Reading the block fails. */
  | "unreadable";

/** All kinds of damage. */
export const DAMAGES: readonly Damage[] = [
  "corrupted",
  "torn",
  "lost",
  "misdirected",
  "unreadable",
];

/** Error of a read of an unreadable block. */
export class ErrUnreadable extends Error {
  override readonly name = "ErrUnreadable";
}

/** True if an error says that a block is damaged or cannot be read, itself or by its causes. */
export function reportsDamage(error: unknown): boolean {
  for (let at = error; at instanceof Error; at = at.cause) {
    if (at instanceof ErrStoreCorrupted || at instanceof ErrUnreadable) {
      return true;
    }
  }
  return false;
}

/**
 * Names of the blocks of a log or an outbox whose loss shows. The newest block of a
 * series need not be missed by any other one, nor a settled command; a store that
 * loses one has broken its promise that a write is durable.
 */
export function missedIfLost(names: readonly string[]): string[] {
  const newest = new Map<string, string>();
  const seriesOf = (name: string): string | undefined =>
    /^.*\/[bc]\//.exec(name)?.[0];
  for (const name of names) {
    const series = seriesOf(name);
    if (series !== undefined) newest.set(series, name);
  }
  return names.filter((name) =>
    !name.includes("/k/") && newest.get(seriesOf(name) ?? "") !== name
  );
}

/** Damaged block, and what repairs it. */
interface DamagedBlock {
  readonly key: string;
  /** Content that it had. */
  readonly good: Uint8Array;
  /** Content that it has instead, undefined if it is missing. */
  readonly bad: Uint8Array | undefined;
}

/** Store some of whose blocks cannot be read. */
class UnreadableStore extends FaultyBlockStore {
  readonly #keys: ReadonlySet<string>;

  constructor(store: BlockStore, keys: ReadonlySet<string>) {
    super({ store });
    this.#keys = keys;
  }

  #check(isRead: (key: string) => boolean): void {
    for (const key of this.#keys) {
      if (isRead(key)) throw new ErrUnreadable(`EIO: ${key} is unreadable`);
    }
  }

  override get(
    keys: readonly string[],
  ): MaybePromise<(Uint8Array | undefined)[]> {
    this.#check((key) => keys.includes(key));
    return super.get(keys);
  }

  override list(
    from: string,
    to: string,
    options?: ListOptions,
  ): MaybePromise<Block[]> {
    this.#check((key) => key >= from && key < to);
    return super.list(from, to, options);
  }
}

/** Storage that processes open one after the other. */
export class SimulatedDisk {
  readonly #env: Env;
  readonly #inner: MemoryBlockStore;
  readonly #damaged: DamagedBlock[] = [];
  readonly #unreadable = new Set<string>();
  /** Store of the process that opened it, with injected faults. */
  faulty: FaultyBlockStore;

  /** Creates an empty disk, whose identity is drawn from `env`. */
  constructor(
    env: Env,
    inner: MemoryBlockStore = new MemoryBlockStore({ env }),
  ) {
    this.#env = env;
    this.#inner = inner;
    this.faulty = new FaultyBlockStore({ store: inner });
  }

  /** True if it says that a write is durable which a power cut may undo. */
  isLying = false;

  /** Opens it for a process; with `delay`, each call takes that many milliseconds. */
  open(env: Env, delay?: () => number): BlockStore {
    const { isLying } = this;
    return delay === undefined && !isLying
      ? this.faulty
      : new SlowStore(this.faulty, env, delay ?? ((): number => 0), isLying);
  }

  /** Closes the store by force; of the writes that are not synced, the first `written` survive. */
  crash(written: number): void {
    this.faulty.crash(written);
    this.#reopen();
  }

  /** Number of writes that a power cut may undo; a disk that lies about syncs keeps none. */
  get unsynced(): number {
    return this.faulty.unsynced;
  }

  /** Has one of its next writes fail, and some after it. */
  breakWrites(
    after: number,
    times: number,
    how: "full" | "unknown" | "unknown after",
  ): void {
    this.faulty.fault = {
      at: this.faulty.writes + 1 + after,
      times,
      after: how === "unknown after",
      error: how === "full"
        ? new ErrStoreFull("ENOSPC: no space left")
        : new ErrUnknownOutcome("write() got no answer"),
    };
  }

  /** Names of the blocks that begin with a prefix. */
  names(prefix = ""): string[] {
    return this.#inner.keys(prefix, `${prefix}\x7f`);
  }

  /** True if a block is damaged and was not repaired. */
  get isDamaged(): boolean {
    return this.#damaged.length > 0;
  }

  /** Damages a block, while no process has the disk open. */
  damage(key: string, how: Damage, random: () => number): void {
    const [good] = this.#inner.get([key]);
    if (good === undefined) return;
    this.#damage(key, how, random);
    if (how === "unreadable") this.#unreadable.add(key);
    const [bad] = this.#inner.get([key]);
    this.#damaged.push({ key, good, bad });
    this.#reopen();
  }

  /** Repairs the damaged blocks that were not written since, as from a mirror; no process may have the disk open. */
  repair(): void {
    for (const { key, good, bad } of this.#damaged.splice(0).reverse()) {
      const [now] = this.#inner.get([key]);
      const isSame = now === undefined || bad === undefined
        ? now === bad
        : isSameBytes(now, bad);
      if (isSame) this.#inner.write({ put: [{ key, bytes: good }] }, "strict");
    }
    this.#unreadable.clear();
    this.#reopen();
  }

  #reopen(): void {
    this.faulty = this.#unreadable.size === 0
      ? new FaultyBlockStore({ store: this.#inner })
      : new UnreadableStore(this.#inner, this.#unreadable);
  }

  #damage(key: string, how: Damage, random: () => number): void {
    const [bytes] = this.#inner.get([key]);
    if (bytes === undefined) return;
    const put = (bytes: Uint8Array): void =>
      this.#inner.write({ put: [{ key, bytes }] }, "strict");
    switch (how) {
      case "corrupted":
        if (bytes.length > 0) {
          bytes[random() % bytes.length]! ^= 1 << random() % 8;
        }
        return put(bytes);
      case "torn":
        return put(bytes.slice(0, bytes.length >> 1));
      case "lost":
        return this.#inner.write({ delete: [key] }, "strict");
      case "misdirected": {
        const names = this.names();
        const [other] = this.#inner.get([names[random() % names.length]!]);
        return put(other!);
      }
    }
  }

  /** Removes everything. */
  erase(): void {
    this.#inner.write({ deleteRanges: [["", "\x7f"]] }, "strict");
  }

  /** Makes another one with the same content. */
  copy(): SimulatedDisk {
    const copy = new MemoryBlockStore({ env: this.#env });
    copy.write({ put: this.#inner.list("", "\x7f") }, "strict");
    const disk = new SimulatedDisk(this.#env, copy);
    disk.#damaged.push(...this.#damaged);
    for (const key of this.#unreadable) disk.#unreadable.add(key);
    disk.#reopen();
    return disk;
  }
}
