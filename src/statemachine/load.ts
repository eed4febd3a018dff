/**
 * Loading of code when it is first needed.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrCodeNotLoaded } from "./errors.ts";

const loaders: (() => Promise<unknown>)[] = [];

/**
 * Makes a function that loads a module at its first call; after a failure, the next
 * call tries again. `what` says in messages what the code does.
 */
export function loadOnce<T>(
  what: string,
  load: () => Promise<T>,
): () => Promise<T> {
  let loading: Promise<T> | undefined;
  const once = (): Promise<T> =>
    loading ??= load().catch((cause) => {
      loading = undefined;
      throw new ErrCodeNotLoaded(what, { cause });
    });
  loaders.push(once);
  return once;
}

/**
 * Loads all code that is otherwise loaded when it is first needed: what makes and
 * recovers snapshots, for example. A page without a service worker calls it while it
 * has a network, to need none later.
 *
 * @throws ErrCodeNotLoaded if a part could not be loaded; the next call tries again
 */
export async function preload(): Promise<void> {
  await Promise.all(loaders.map((load) => load()));
}
