/**
 * Model of an inspected server: asks its inspector from time to time.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { notify, timeLimit } from "../async.ts";
import type { Env } from "../env.ts";
import {
  INSPECTOR_ANSWER_MS_MAX,
  INSPECTOR_POLL_MS,
  INSPECTOR_SAMPLES_MAX,
} from "../limits.ts";
import type { EntryReport, ServerReport } from "../sync/inspector_report.ts";
import { envOf, type InspectorOptions } from "./options.ts";
import { errorText } from "./show.ts";

/** Rates of a server between two answers, per second. */
export interface ServerSample {
  /** Time of the answer, in milliseconds since 1970. */
  readonly at: number;
  readonly appended: number;
  readonly sent: number;
  readonly received: number;
  readonly entries: number;
  readonly refused: number;
  /** Median time of appends, in milliseconds; null without any. */
  readonly median: number | null;
  /** Time of appends below which 95 % are, in milliseconds; null without any. */
  readonly high: number | null;
}

/** Model of an inspected server. */
export class ServerModel {
  readonly #source: string;
  readonly #headers: () => Readonly<Record<string, string>>;
  readonly #env: Env;
  readonly #stopped = new AbortController();
  readonly #listeners = new Set<() => void>();
  #samples: ServerSample[] = [];
  #report: ServerReport | undefined;
  #problem: string | undefined;
  #answeredAt = 0;
  #cancel: (() => void) | undefined;

  /** Begins to ask the server at `source`, until it is closed. */
  constructor(options: InspectorOptions & { readonly source: string }) {
    this.#source = options.source.replace(/\/$/, "");
    this.#headers = options.headers ?? ((): Record<string, string> => ({}));
    this.#env = envOf(options);
    // Never rejects: a failure is a problem that is shown.
    void this.#ask();
  }

  /** Last answer of the server; undefined before the first. */
  get report(): ServerReport | undefined {
    return this.#report;
  }

  /** URL of the server's inspector. */
  get source(): string {
    return this.#source;
  }

  /** Time since the last answer, in milliseconds. */
  get answeredMs(): number {
    return this.#env.now() - this.#answeredAt;
  }

  /** Reason why the server did not answer last, as text; undefined if it did. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** Rates between the newest answers. */
  get samples(): readonly ServerSample[] {
    return this.#samples;
  }

  /** Calls `listener` after each answer; returns a function that ends the calls. */
  watch(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Asks no more. */
  close(): void {
    this.#stopped.abort();
    this.#cancel?.();
  }

  /** Takes a snapshot of a cluster on the server; returns its index. */
  async snapshot(clusterID: string): Promise<number> {
    const { index } = await this.#fetch(
      `/clusters/${clusterID}/snapshot`,
      "POST",
    ) as { index: number };
    return index;
  }

  /** Reads the newest entries of a cluster. */
  async entries(clusterID: string): Promise<readonly EntryReport[]> {
    return await this.#fetch(
      `/clusters/${clusterID}/entries`,
      "GET",
    ) as readonly EntryReport[];
  }

  async #ask(): Promise<void> {
    const { signal } = this.#stopped;
    const last = this.#report;
    try {
      const report = await this.#fetch("", "GET") as ServerReport;
      if (signal.aborted) return;
      this.#report = report;
      this.#answeredAt = this.#env.now();
      this.#problem = undefined;
      this.#sample(last, report);
    } catch (error) {
      if (signal.aborted) return;
      this.#problem = errorText(error);
    }
    for (const listener of [...this.#listeners]) notify(listener);
    this.#cancel = this.#env.setTimer(
      () => void this.#ask(),
      INSPECTOR_POLL_MS,
    );
  }

  #sample(last: ServerReport | undefined, next: ServerReport): void {
    const seconds = (next.uptimeMs - (last?.uptimeMs ?? Infinity)) / 1000;
    // Less than before: the server was restarted.
    if (!(seconds > 0) || next.totals === undefined) return;
    const { counts, appendMs } = next.totals;
    const rate = (name: string): number =>
      Math.max(
        0,
        ((counts[name] ?? 0) - (last?.totals?.counts[name] ?? 0)) / seconds,
      );
    this.#samples.push({
      at: Date.now(),
      appended: rate("appended"),
      sent: rate("sent"),
      received: rate("received"),
      entries: rate("entries"),
      refused: rate("refused"),
      ...appendMs,
    });
    if (this.#samples.length > INSPECTOR_SAMPLES_MAX) this.#samples.shift();
  }

  async #fetch(path: string, method: string): Promise<unknown> {
    const { signal, release } = timeLimit(
      this.#env,
      INSPECTOR_ANSWER_MS_MAX,
      "Nothing was answered",
    );
    try {
      const response = await fetch(this.#source + path, {
        method,
        headers: this.#headers(),
        signal,
      });
      if (response.ok) return await response.json();
      const reason = (await response.text()).trim().slice(0, 200);
      throw new Error(
        `Server answers ${response.status}${
          reason === "" ? "" : `: ${reason}`
        }`,
      );
    } finally {
      release();
    }
  }
}
