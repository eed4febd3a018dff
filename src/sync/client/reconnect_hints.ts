/**
 * Events of the platform after which reconnecting may succeed.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Function that calls `wake` whenever reconnecting may succeed; it returns a function that stops it. */
export type Hints = (wake: () => void) => () => void;

/**
 * Calls `wake` when the network is back, and when the page becomes visible, is
 * restored from the back/forward cache, or is resumed (U38). Does nothing on
 * platforms without these events.
 */
export function browserHints(wake: () => void): () => void {
  const { document } = globalThis as {
    document?: EventTarget & { readonly visibilityState?: string };
  };
  const seen = (): void => {
    if (document?.visibilityState !== "hidden") wake();
  };
  const all: [EventTarget | undefined, string, () => void][] = [
    [globalThis, "online", wake],
    [globalThis, "pageshow", wake],
    [document, "visibilitychange", seen],
    [document, "resume", wake],
  ];
  for (const [target, type, listener] of all) {
    target?.addEventListener?.(type, listener);
  }
  return () => {
    for (const [target, type, listener] of all) {
      target?.removeEventListener?.(type, listener);
    }
  };
}
