/**
 * One machine, driven by the rules: an adapter that makes the three kinds one, a
 * guard that keeps apart what must not overlap, the session table, the records
 * of the log, the apply loop, and saving and recovering it all. Nothing reaches a
 * machine but through here, whatever log it came from.
 *
 * This module is browser compatible.
 *
 * ```ts
 * import { Guard, Op } from "./mod.ts";
 *
 * const guard = new Guard(1);
 * const read = guard.run(Op.Lookup, () => Promise.resolve("read"));
 * const wrote = guard.run(Op.Update, () => "wrote"); // waits for the read
 * console.log(await read, await wrote); // read wrote
 * ```
 *
 * @module
 */

export * from "./driver.ts";
export * from "./errors.ts";
export * from "./guard.ts";
export * from "./host_state.ts";
export * from "./managed.ts";
export * from "./record.ts";
export * from "./sessions.ts";
export { ErrSkippedApplied, type SkippedEntry } from "./skips.ts";
export * from "./snapshots.ts";
