/**
 * Group commit: items that arrive while a write is under way share the next one.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Runs asynchronous work one piece at a time, in the order in which it was added. */
export class SerialQueue {
  /** Settles once all work added so far is done; never rejects. */
  #last: Promise<unknown> = Promise.resolve();

  /** Runs `work` after all work added before it; settles as it does. */
  run<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => {});
    return result;
  }

  /** Waits until no work is left, including work that is added while it waits. */
  async settled(): Promise<void> {
    for (let last: unknown; last !== this.#last;) await (last = this.#last);
  }
}

/** Options of {@linkcode GroupCommit}. */
export interface GroupCommitOptions<T, R> {
  /**
   * Writes a group in one atomic step and returns one result for each item. If it
   * rejects, nothing was written, and every item of the group rejects with its reason.
   */
  readonly write: (group: readonly T[]) => Promise<readonly R[]>;
  /** Size of an item, in bytes. */
  readonly sizeOf: (item: T) => number;
  /** Largest size of a group, in bytes; a larger item is a group of its own. */
  readonly bytesMax: number;
  /**
   * Most items of a group.
   *
   * @default {Infinity}
   */
  readonly itemsMax?: number;
  /**
   * Called before a write to wait for items that are about to arrive; called
   * seldom while none do.
   */
  readonly gather?: (() => Promise<void>) | undefined;
  /** Called after the items of a group were resolved. */
  readonly onCommit?: () => void;
}

interface WaitingItem<T, R> {
  readonly item: T;
  readonly resolve: (result: R) => void;
  readonly reject: (reason: unknown) => void;
}

/** After this many writes in a row that no item joined, only every n-th write gathers. */
const UNJOINED_MAX = 8;

/**
 * Collects items and writes them in groups, in the order in which they arrive.
 * Other work of the same owner runs between the writes of groups.
 */
export class GroupCommit<T, R> extends SerialQueue {
  readonly #options: GroupCommitOptions<T, R>;
  /** Items whose write has not begun. */
  #waiting: WaitingItem<T, R>[] = [];
  /** True if a write of waiting items is queued. */
  #isQueued = false;
  /** Number of gathering writes in a row that no item joined. */
  #unjoined = 0;

  constructor(options: GroupCommitOptions<T, R>) {
    super();
    this.#options = options;
  }

  /** Adds an item; resolves with its result once its group is written. */
  add(item: T): Promise<R> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ item, resolve, reject });
      this.#queueWrite();
    });
  }

  #queueWrite(): void {
    if (this.#isQueued) return;
    this.#isQueued = true;
    // Never rejects: the items of the group reject instead.
    void this.run(() => this.#writeGroup());
  }

  async #writeGroup(): Promise<void> {
    const { write, gather, onCommit } = this.#options;
    if (gather !== undefined) await this.#gather(gather);
    this.#isQueued = false;
    const group = this.#nextGroup();
    if (this.#waiting.length > 0) this.#queueWrite();
    let results: readonly R[];
    try {
      results = await write(group.map(({ item }) => item));
    } catch (error) {
      for (const { reject } of group) reject(error);
      return;
    }
    for (const [i, { resolve }] of group.entries()) resolve(results[i]!);
    onCommit?.();
  }

  async #gather(gather: () => Promise<void>): Promise<void> {
    if (
      this.#unjoined > UNJOINED_MAX && ++this.#unjoined % UNJOINED_MAX !== 0
    ) return;
    const { length } = this.#waiting;
    await gather();
    this.#unjoined = this.#waiting.length > length ? 0 : this.#unjoined + 1;
  }

  /** Removes as many waiting items as one group may hold, at least one. */
  #nextGroup(): WaitingItem<T, R>[] {
    const { sizeOf, bytesMax, itemsMax = Infinity } = this.#options;
    const waiting = this.#waiting;
    let count = 0;
    for (let size = 0; count < waiting.length; count++) {
      size += sizeOf(waiting[count]!.item);
      if (count > 0 && (count === itemsMax || size > bytesMax)) break;
    }
    this.#waiting = waiting.slice(count);
    return waiting.slice(0, count);
  }
}
