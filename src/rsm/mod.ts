/**
 * One machine, driven by the rules: an adapter that makes the three kinds one, a
 * guard that keeps apart what must not overlap, the session table, the records
 * of the log, the apply loop, and saving and recovering it all. Nothing reaches a
 * machine but through here, whatever log it came from.
 *
 * This module is browser compatible.
 *
 * ```ts
 * import { CallGuard, Op } from "./mod.ts";
 *
 * const guard = new CallGuard(1);
 * const read = guard.run(Op.Lookup, () => Promise.resolve("read"));
 * const wrote = guard.run(Op.Update, () => "wrote"); // waits for the read
 * console.log(await read, await wrote); // read wrote
 * ```
 *
 * @module
 */

export * from "./state_machine.ts";
export * from "./errors.ts";
export * from "./call_guard.ts";
export * from "./host_state.ts";
export * from "./managed_machine.ts";
export * from "./record_codec.ts";
export * from "./session_table.ts";
export { ErrSkippedApplied, type SkippedEntry } from "./skipped_entries.ts";
export * from "./recover_snapshot.ts";
export * from "./save_snapshot.ts";
