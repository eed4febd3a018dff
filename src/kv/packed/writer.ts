/**
 * Background writer of a packed store: one atomic write at a time.
 *
 * It is no `GroupCommit` of `store/group_commit.ts`: no caller waits for an item
 * of its own, a failed write must be retried unchanged because the directory in
 * memory already has its pages, and a synchronous store is written within the call.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { chain, isPromise } from "../../async.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import type {
  BlockStore,
  Changes as Writes,
  Durability,
} from "../../store/store.ts";
import type { NewPage } from "./page_blocks.ts";

/** Write of the store; a failed one is retried unchanged. */
export interface Job {
  readonly writes: Writes;
  durability: Durability;
  /** Pages whose blocks the write contains. */
  readonly pages: readonly NewPage[];
}

/** Failure of a write, or, without a job, of the reads before it. */
interface Failure {
  readonly job: Job | undefined;
  readonly error: unknown;
}

/** Runs jobs one at a time, and remembers how the last one ended. */
export class Writer {
  /** Write in progress, with the reads before it; never rejects. */
  writing: Promise<void> | undefined;
  /** Write that failed; retried before every other write. */
  #failed: Failure | undefined;
  /** Error after which the store refuses every change. */
  #broken: { readonly error: unknown } | undefined;
  /** Set if a write may not survive a power failure. */
  unsynced = false;
  readonly #store: BlockStore;
  readonly #onWritten: () => void;

  /** Creates a writer; `onWritten` is called after each job, when the next one may start. */
  constructor(store: BlockStore, onWritten: () => void) {
    this.#store = store;
    this.#onWritten = onWritten;
  }

  /** True if the last write failed and has to be retried. */
  get hasFailed(): boolean {
    return this.#failed !== undefined;
  }

  /** True if the store refuses every change. */
  get isBroken(): boolean {
    return this.#broken !== undefined;
  }

  /** Makes the store refuse every change, unless it does so already. */
  break(error: unknown): void {
    this.#broken ??= { error };
  }

  /** Forgets a failed write, which a replaced state needs no more. */
  forgetFailure(): void {
    this.#failed = undefined;
  }

  /** Throws the error that broke the store, if it is broken. */
  check(): void {
    if (this.#broken) throw this.#broken.error;
  }

  /** Throws the error of the last write, if it failed. */
  report(): void {
    this.check();
    if (this.#failed) throw this.#failed.error;
  }

  /** Waits until no write is in progress. */
  async settled(): Promise<void> {
    while (this.writing) await this.writing;
  }

  /** Retries the failed write. */
  retry(durability?: Durability): MaybePromise<void> {
    const { job, error } = this.#failed!;
    this.#failed = undefined;
    if (!job) throw error;
    job.durability = durability ?? job.durability;
    this.launch(job);
    return chain(this.writing, () => this.report());
  }

  /**
   * Starts a write: reads what it needs with `load`, then runs the job that
   * `build` returns, if any. A job that could not be built breaks the store.
   */
  start(
    load: () => MaybePromise<void>,
    build: () => Job | undefined,
  ): void {
    const begin = (): void => {
      this.writing = undefined;
      let job: Job | undefined;
      try {
        job = build();
      } catch (error) {
        // Half built: a retry is impossible.
        this.break(error);
        return;
      }
      if (job) this.launch(job);
    };
    const fail = (error: unknown): void => {
      this.writing = undefined;
      this.#failed = { job: undefined, error };
    };
    try {
      const loaded = load();
      if (!isPromise(loaded)) return begin();
      this.writing = loaded.then(begin).then(() => this.writing, fail);
    } catch (error) {
      fail(error);
    }
  }

  /** Runs a job; its failure is kept for the next call. */
  launch(job: Job): void {
    const failed = (error: unknown): void => {
      this.writing = undefined;
      this.#failed = { job, error };
    };
    const written = (): void => {
      this.writing = undefined;
      this.unsynced = job.durability === "relaxed";
      for (const { ref } of job.pages) ref.written = true;
      this.#onWritten();
    };
    try {
      const done = this.#store.write(job.writes, job.durability);
      if (!isPromise(done)) return written();
      this.writing = done.then(written, failed);
    } catch (error) {
      failed(error);
    }
  }
}
