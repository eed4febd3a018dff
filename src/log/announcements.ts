/**
 * Announcements of the replicas that share a log in this process.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Announcements } from "./log.ts";

/** Announcements of the replicas on one log, each of which is identified by its open log. */
export interface AnnouncementBoard {
  /** Returns the part of one replica. */
  of(log: object): Announcements;
  /** Removes the announcement of a replica that is not live any more. */
  remove(log: object): void;
}

/** Announcements of all replicas of this process on one log, in the order of the first of each. */
export class SharedAnnouncements implements AnnouncementBoard {
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
