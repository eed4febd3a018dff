/**
 * Ports through which a tab meets the other tabs of its origin: locks, channels and
 * the life cycle of its page; and the browser's own.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type Env, systemEnv } from "../env.ts";

/** Locks that all tabs of an origin share: the part of Web Locks that tabs use. */
export interface TabLocks {
  /** Requests a lock, and holds it until the promise of `hold` settles; rejects if the lock is stolen. */
  request(
    name: string,
    options: { readonly signal?: AbortSignal; readonly steal?: boolean },
    hold: () => Promise<void>,
  ): Promise<unknown>;
  /** Lists the locks. Some browsers notice only then that a holder is gone. */
  query(): Promise<unknown>;
}

/** Channel to the other tabs of an origin. */
export interface TabChannel {
  /** Sends a message to every other channel of the name. */
  post(message: unknown): void;
  /** Closes the channel. */
  close(): void;
}

/**
 * Event in the life of a page: `hide` and `freeze` when its script may end without
 * another event, `show` and `resume` when it goes on after that, and `visibility`
 * when it becomes visible or hidden.
 */
export type LifeEvent = "hide" | "freeze" | "show" | "resume" | "visibility";

/** Life cycle of a page. */
export interface PageLife {
  /** True if a person can see the page. */
  readonly isVisible: boolean;
  /** Calls `listener` with each event; returns a function that ends the calls. */
  watch(listener: (event: LifeEvent) => void): () => void;
}

/** Opens a channel of a name. */
export type OpenChannel = (
  name: string,
  listener: ((message: unknown) => void) | undefined,
) => TabChannel;

/** Ports of one tab. */
export interface TabPlatform {
  /** Clock, random numbers and timers. */
  readonly env: Env;
  /** Locks that the tabs share; undefined where there are none. */
  readonly locks: TabLocks | undefined;
  /** Opens a channel, which needs no listener if it only sends; undefined where there are none. */
  readonly openChannel: OpenChannel | undefined;
  /** Life cycle of the page. */
  readonly life: PageLife;
}

const EVENTS: readonly (readonly [string, LifeEvent])[] = [
  ["pagehide", "hide"],
  ["pageshow", "show"],
  ["freeze", "freeze"],
  ["resume", "resume"],
  ["visibilitychange", "visibility"],
];

const pageLife: PageLife = {
  get isVisible(): boolean {
    return globalThis.document?.visibilityState !== "hidden";
  },
  watch(listener: (event: LifeEvent) => void): () => void {
    const undo = EVENTS.map(([type, event]) => {
      // Those of a document bubble to its window, except where they do not exist.
      const target: EventTarget = event === "hide" || event === "show"
        ? globalThis
        : globalThis.document ?? globalThis;
      const heard = (): void => listener(event);
      target.addEventListener(type, heard);
      return () => target.removeEventListener(type, heard);
    });
    return () => {
      for (const step of undo) step();
    };
  },
};

function openChannel(
  name: string,
  listener: ((message: unknown) => void) | undefined,
): TabChannel {
  const channel = new BroadcastChannel(name);
  if (listener !== undefined) {
    channel.onmessage = ({ data }): void => listener(data);
  }
  return {
    post: (message) => channel.postMessage(message),
    close: () => channel.close(),
  };
}

/** Ports of the page that runs this code. */
export function browserPlatform(env: Env = systemEnv): TabPlatform {
  return {
    env,
    locks: globalThis.navigator?.locks as TabLocks | undefined,
    openChannel: globalThis.BroadcastChannel === undefined
      ? undefined
      : openChannel,
    life: pageLife,
  };
}
