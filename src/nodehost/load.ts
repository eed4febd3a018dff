/**
 * Loading of the parts of a host that few pages need.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Parts that are loaded when they are first needed. */
export type OnDemand = typeof import("./on_demand.ts");

let loading: Promise<OnDemand> | undefined;

/** Loads the parts of a host that no start needs, once; after a failure, the next call tries again. */
export function loadOnDemand(): Promise<OnDemand> {
  return loading ??= import("./on_demand.ts").catch((error) => {
    loading = undefined;
    throw error;
  });
}
