/**
 * Loading of the parts of a host that a new page does not need.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { loadOnce } from "../statemachine/load.ts";

/** Loads what makes, imports and recovers snapshots, and appends decisions to skip an entry. */
export const loadOnDemand: () => Promise<typeof import("./on_demand.ts")> =
  /* @__PURE__ */ loadOnce(
    "makes and recovers snapshots",
    () => import("./on_demand.ts"),
  );

/** Loads what replays entries into new machines, and reads the log for inspectors. */
export const loadReplays: () => Promise<
  typeof import("./replays.ts")
> = /* @__PURE__ */ loadOnce(
  "replays entries",
  () => import("./replays.ts"),
);
