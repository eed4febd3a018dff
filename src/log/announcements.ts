/**
 * Announcements of the replicas that share a log in this process.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Announcements } from "./log.ts";

/** Announcements of all replicas on one log, in the order of the first of each. */
export class SharedAnnouncements {
  readonly #all = new Map<object, readonly string[] | undefined>();
  readonly #listeners = new Set<() => void>();

  /** Returns the part of one replica, which is identified by its open log. */
  of(log: object): Announcements {
    const all = this.#all;
    const listeners = this.#listeners;
    return {
      get isFirst(): boolean {
        return all.keys().next().value === log;
      },
      announce: (changes) => {
        all.set(log, changes);
        this.#changed();
      },
      isKnown: (change) =>
        [...all.values()].every((known) => known?.includes(change)),
      watch: (listener) => {
        const own = (): void => listener();
        listeners.add(own);
        return () => void listeners.delete(own);
      },
    };
  }

  /** Removes the announcement of a replica that is not live any more. */
  remove(log: object): void {
    if (this.#all.delete(log)) this.#changed();
  }

  #changed(): void {
    for (const listener of [...this.#listeners]) listener();
  }
}
