/**
 * What a browser tells of the network and of the page: good moments to connect.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Calls `wake` whenever connecting may go well again; returns what ends that. */
export type Hints = (wake: () => void) => () => void;

/**
 * The hints of a browser (U38): the network is back, or the page is seen again,
 * was taken out of the cache or thawed. Where there are no such events, nothing.
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
