/**
 * Machines with forks for the tests of what is tried before it is ordered: each
 * is a list of words, and throws at commands of some shapes. A fork reads from its
 * machine, and reports each use after that was updated.
 *
 * @module
 */

import type {
  Entry,
  Forked,
  IConcurrentStateMachine,
  IFork,
  IHash,
  IStateMachine,
  MaybePromise,
  NodeHost,
  Replica,
  ReplicaConfig,
  Result,
} from "../../mod.ts";
import { bytes, text } from "../support/bytes.ts";
import {
  ConcurrentJournal,
  HostedDiskJournal,
  type Journal,
  RegularJournal,
} from "./journal.ts";
import { violations } from "../support/environment.ts";

/**
 * Applies a command to a list: `poison …` throws; `once x` throws if `x` is there,
 * `need x` if it is not; `no x` is refused, in its result; `move x y` and
 * everything else as they say.
 */
export function applyWords(list: string[], cmd: Uint8Array): Result {
  const command = text(cmd);
  const [verb, word = "", other = ""] = command.split(" ");
  const at = list.indexOf(word);
  switch (verb) {
    case "poison":
      throw new TypeError(`Cannot read ${word}`);
    case "once":
      if (at >= 0) throw new Error(`${word} is there already`);
      list.push(word);
      break;
    case "need":
      if (at < 0) throw new Error(`There is no ${word}`);
      list.push(command);
      break;
    case "no":
      return { value: 0n, data: bytes(`Not ${word}`) };
    case "add":
      list.push(word);
      break;
    case "move":
      if (at < 0) return { value: 0n, data: bytes(`There is no ${word}`) };
      list[at] = other;
      break;
    default:
      list.push(command);
  }
  return { value: BigInt(list.length) };
}

/** Reason of a result that is a refusal. */
export function refusalOfWords({ value, data }: Result): string | undefined {
  return value === 0n && data !== undefined ? text(data) : undefined;
}

/** Counters over all machines of a test. */
export class Counts {
  forks = 0;
  closed = 0;
  /** Commands that forks were given. */
  tried = 0;
  /** Called before a fork is made: may throw, or return a promise. */
  beforeFork: () => MaybePromise<void> = () => {};
  /** True to have every method take a turn. */
  isSlow = false;
}

/** A fork of a list, and of any of the machines. */
class WordsFork {
  readonly #of: Journal;
  readonly #length: number;
  readonly #counts: Counts;
  readonly #list: string[];
  #isClosed = false;
  #isUpdating = false;
  #hasThrown = false;

  constructor(of: Journal, counts: Counts) {
    this.#of = of;
    this.#counts = counts;
    this.#list = [...of.list];
    this.#length = of.list.length;
  }

  check(what: string): void {
    if (this.#isClosed) violations.push(`${what} of a fork that is closed`);
    if (this.#hasThrown) violations.push(`${what} of a fork that threw`);
    if (this.#isUpdating) violations.push(`${what} beside update() of a fork`);
    if (this.#of.list.length !== this.#length) {
      violations.push(`${what} of a fork whose machine was updated`);
    }
  }

  apply(cmd: Uint8Array): Result {
    this.#counts.tried++;
    try {
      return applyWords(this.#list, cmd);
    } catch (error) {
      this.#hasThrown = true;
      throw error;
    }
  }

  update<T>(work: () => T): MaybePromise<T> {
    this.check("update()");
    if (!this.#counts.isSlow) return work();
    this.#isUpdating = true;
    return Promise.resolve().then(() => {
      this.#isUpdating = false;
      return work();
    });
  }

  lookup(query: unknown): MaybePromise<unknown> {
    this.check("lookup()");
    const answer = query === null
      ? [...this.#list]
      : this.#list.includes(query as string);
    return this.#counts.isSlow ? Promise.resolve(answer) : answer;
  }

  close(): void {
    if (this.#isClosed) violations.push("A fork is closed twice");
    this.#isClosed = true;
    this.#counts.closed++;
  }
}

function forked<T>(
  of: Journal,
  counts: Counts,
  make: (fork: WordsFork) => T,
): MaybePromise<T> {
  counts.forks++;
  const work = (): T => make(new WordsFork(of, counts));
  const before = counts.beforeFork();
  return before instanceof Promise ? before.then(work) : work();
}

function onBatches(fork: WordsFork): Forked<IConcurrentStateMachine> {
  return {
    update: (entries: Entry[]) =>
      fork.update(() => {
        for (const entry of entries) entry.result = fork.apply(entry.cmd);
        return entries;
      }),
    lookup: (query) => fork.lookup(query),
    close: () => fork.close(),
  };
}

/** The kinds of machine. */
export const WORD_KINDS = ["regular", "concurrent", "hosted"] as const;

/** Starts a replica of words. */
export function startWords(
  host: NodeHost,
  config: ReplicaConfig,
  kind: typeof WORD_KINDS[number],
  counts: Counts,
  disk?: ConstructorParameters<typeof HostedDiskJournal>[0],
): Promise<Replica> {
  const faults = {
    refusal: refusalOfWords,
    before: (): void | Promise<void> =>
      counts.isSlow ? Promise.resolve() : undefined,
  };
  class Regular extends RegularJournal implements IFork<IStateMachine>, IHash {
    override apply(cmd: Uint8Array): Result {
      return applyWords(this.list, cmd);
    }
    fork(): MaybePromise<Forked<IStateMachine>> {
      return forked(this, counts, (fork) => ({
        update: (cmd: Uint8Array) => fork.update(() => fork.apply(cmd)),
        lookup: (query) => fork.lookup(query),
        close: () => fork.close(),
      }));
    }
  }
  class Concurrent extends ConcurrentJournal
    implements IFork<IConcurrentStateMachine> {
    override apply(cmd: Uint8Array): Result {
      return applyWords(this.list, cmd);
    }
    fork(): MaybePromise<Forked<IConcurrentStateMachine>> {
      return forked(this, counts, onBatches);
    }
  }
  class Hosted extends HostedDiskJournal
    implements IFork<IConcurrentStateMachine> {
    override apply(cmd: Uint8Array): Result {
      return applyWords(this.list, cmd);
    }
    fork(): MaybePromise<Forked<IConcurrentStateMachine>> {
      return forked(this, counts, onBatches);
    }
  }
  switch (kind) {
    case "regular":
      return host.startCluster((c, n) => new Regular(faults, c, n), config);
    case "concurrent":
      return host.startConcurrentCluster(
        (c, n) => new Concurrent(faults, c, n),
        config,
      );
    case "hosted":
      return host.startOnDiskCluster(
        (c, n) => new Hosted(disk!, faults, c, n),
        config,
      );
  }
}
