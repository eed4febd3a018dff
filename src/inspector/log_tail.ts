/**
 * Newest entries of a log, followed while an inspector is open.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../env.ts";
import { sleep } from "../async.ts";
import { INSPECTOR_ENTRIES_MAX, INSPECTOR_SAMPLE_MS } from "../limits.ts";
import { ErrCompacted } from "../log/errors.ts";
import type {
  EntryReader,
  LoggedEntry,
  LoggedOutcome,
  Replica,
  ReplicaHistory,
} from "../nodehost/mod.ts";
import type { Result } from "../statemachine/types.ts";
import { errorText } from "./show.ts";

/** Entry with its command decoded, and its outcome as far as it is known. */
export interface ShownEntry extends LoggedEntry {
  /** Decoded command; undefined for other records and for bytes that are not a command. */
  readonly call?: unknown;
  /** Outcome of a command of a session, if it was known when it was applied here. */
  readonly outcome?: LoggedOutcome;
}

/** Decodes a command, with its result if that is known. */
export type Decode = (cmd: Uint8Array, result: Result | undefined) => unknown;

/** Dependencies of a {@linkcode LogTail}. */
export interface LogTailOptions {
  readonly replica: Pick<
    Replica,
    "appliedIndex" | "untilApplied" | "logInfo" | "history"
  >;
  readonly env: Env;
  /** Decodes a command. */
  readonly decode: Decode | undefined;
  /** Called after entries have arrived, or the log could not be read. */
  readonly changed: () => void;
}

/** Newest entries of a log. */
export class LogTail {
  readonly #options: LogTailOptions;
  readonly #stopped = new AbortController();
  #entries: ShownEntry[] = [];
  #problem: string | undefined;
  /** Index of the last entry whose outcome was asked for. */
  #asked = 0;
  #isAsking = false;
  /** Set if the log does not have the entries any more that come after those that are known. */
  #isBehind = false;

  /** Follows the log from its newest entries on. */
  constructor(options: LogTailOptions) {
    this.#options = options;
    // Never rejects: a failure is a problem that is shown.
    void this.#follow();
  }

  /** Entries in order, the newest last. */
  get entries(): readonly ShownEntry[] {
    return this.#entries;
  }

  /** Reason why the log cannot be read now, as text; undefined if it can. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** Ends the reading. */
  close(): void {
    this.#stopped.abort();
  }

  async #follow(): Promise<void> {
    const { signal } = this.#stopped;
    const { env, changed } = this.#options;
    while (!signal.aborted) {
      try {
        const { replica } = this.#options;
        await this.#read(await replica.history(), signal);
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof ErrCompacted && !this.#isBehind) {
          this.#isBehind = true;
          continue;
        }
        this.#problem = errorText(error);
        changed();
      }
      await sleep(env, INSPECTOR_SAMPLE_MS, signal).catch(() => {});
    }
  }

  /** Reads entries until the log fails or the inspector is closed. */
  async #read(history: ReplicaHistory, signal: AbortSignal): Promise<void> {
    const reader = this.#open(history, signal);
    try {
      while (!signal.aborted) {
        const entries = await reader.next();
        if (signal.aborted) return;
        this.#problem = undefined;
        this.#isBehind = false;
        this.#add(entries);
        // Never rejects: outcomes that are not known are left out.
        void this.#askOutcomes(history);
      }
    } finally {
      reader.close();
    }
  }

  /** Opens a reader after the newest entry that is known, or as far back as the list goes and the log has entries. */
  #open(history: ReplicaHistory, signal: AbortSignal): EntryReader {
    const { appliedIndex, logInfo } = this.#options.replica;
    const known = this.#entries.at(-1)?.index;
    const oldest = Math.max(0, appliedIndex - INSPECTOR_ENTRIES_MAX);
    const first = logInfo !== undefined && logInfo.first <= logInfo.last
      ? logInfo.first - 1
      : 0;
    if (this.#isBehind) {
      this.#entries = [];
      return history.follow(appliedIndex, signal);
    }
    return history.follow(known ?? Math.max(oldest, first), signal);
  }

  /** Adds the outcomes of the newest entries, once they are applied: a session keeps them only until its client has acknowledged them. Never rejects. */
  async #askOutcomes(history: ReplicaHistory): Promise<void> {
    if (this.#isAsking) return;
    this.#isAsking = true;
    const { replica, decode, changed } = this.#options;
    try {
      for (;;) {
        const upTo = this.#entries.at(-1)?.index ?? 0;
        if (upTo <= this.#asked) return;
        await replica.untilApplied(upTo, this.#stopped.signal);
        const all = this.#entries;
        for (let i = all.length - 1; i >= 0; i--) {
          const entry = all[i]!;
          const { index, cmd, session, series } = entry;
          if (index <= this.#asked) break;
          if (index > upTo || cmd === undefined) continue;
          if (session === undefined || series === undefined) continue;
          const outcome = history.outcomeOf(session, series);
          if (outcome !== undefined) all[i] = shown(entry, outcome, decode);
        }
        this.#asked = upTo;
        changed();
      }
    } catch {
      // The replica has ended: no more is known.
    } finally {
      this.#isAsking = false;
    }
  }

  #add(entries: readonly LoggedEntry[]): void {
    const { decode, changed } = this.#options;
    for (const entry of entries) {
      this.#entries.push(shown(entry, undefined, decode));
    }
    // Trimmed rarely: a removal from the front moves all others.
    if (this.#entries.length > 2 * INSPECTOR_ENTRIES_MAX) {
      this.#entries = this.#entries.slice(-INSPECTOR_ENTRIES_MAX);
    }
    changed();
  }
}

/** Entry as it is shown. */
function shown(
  entry: LoggedEntry,
  outcome: LoggedOutcome | undefined,
  decode: Decode | undefined,
): ShownEntry {
  const { cmd } = entry;
  return {
    ...entry,
    ...(cmd === undefined || decode === undefined
      ? {}
      : { call: decoded(decode, cmd, outcome?.result) }),
    ...(outcome === undefined ? {} : { outcome }),
  };
}

/** Decodes a command; undefined if the decoder of the application throws. */
export function decoded(
  decode: Decode,
  cmd: Uint8Array,
  result?: Result,
): unknown {
  try {
    return decode(cmd, result);
  } catch {
    return undefined;
  }
}
