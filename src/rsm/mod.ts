/**
 * Replicated state machine: one user machine driven by the rules of the contract.
 * Adapters give its three kinds one interface, a guard excludes calls that must
 * not overlap, and the session table makes proposals exactly-once. Commands reach
 * a machine only through here, whichever log they come from.
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
