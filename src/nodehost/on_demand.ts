/**
 * Parts of a host that few pages need, and none needs to start: what makes
 * snapshots, imports them, appends decisions to skip an entry, and activates changes
 * of behaviour. Loaded by
 * `loadOnDemand()` only, so that bundlers put it into a file of its own.
 *
 * This module is browser compatible.
 *
 * @module
 */

export { saveSnapshot } from "../rsm/save_snapshot.ts";
export { copySnapshot } from "../snapshot/copy_snapshot.ts";
export { checkImport, inspectSnapshot } from "./import_check.ts";
export { activateChange, activateChanges } from "./activation.ts";
export { appendSkip } from "./skip_request.ts";
export { SnapshotMaker } from "./snapshot_maker.ts";
