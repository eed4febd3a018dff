/**
 * Loading of the parts of a host that no start needs.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Loads a module at the first call; after a failure, the next call tries again. */
function once<T>(load: () => Promise<T>): () => Promise<T> {
  let loading: Promise<T> | undefined;
  return () =>
    loading ??= load().catch((error) => {
      loading = undefined;
      throw error;
    });
}

/** Loads what makes and imports snapshots, and appends decisions to skip an entry. */
export const loadOnDemand: () => Promise<typeof import("./on_demand.ts")> =
  /* @__PURE__ */ once(() => import("./on_demand.ts"));

/** Loads what replays entries into new machines, and reads the log for inspectors. */
export const loadReplays: () => Promise<
  typeof import("../divergence/replays.ts")
> = /* @__PURE__ */ once(() => import("../divergence/replays.ts"));
