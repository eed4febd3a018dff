/**
 * Contract suite for authors of machines, conformance suites for authors of
 * logs, stores and outboxes, and a linearizability checker for the histories that
 * applications record.
 *
 * The contract suite runs a machine against every rule of the contract that can be
 * observed from outside, with random histories, and reports the broken rule with
 * the smallest sequence of commands that breaks it. A conformance suite, such as
 * `logDBConformance()`, returns the cases that a port must pass, with name and
 * function, for any test runner.
 *
 * ```ts
 * import { checkStateMachine } from "./mod.ts";
 * import type { IStateMachine, Result } from "../statemachine/mod.ts";
 *
 * class Counter implements IStateMachine<null, bigint> {
 *   #count = 0n;
 *   update(cmd: Uint8Array): Result {
 *     return { value: this.#count += BigInt(cmd.length) };
 *   }
 *   lookup(): bigint {
 *     return this.#count;
 *   }
 *   async saveSnapshot(w: WritableStream<Uint8Array>): Promise<void> {
 *     const writer = w.getWriter();
 *     await writer.write(new TextEncoder().encode(`${this.#count}`));
 *     writer.releaseLock();
 *   }
 *   async recoverFromSnapshot(r: ReadableStream<Uint8Array>): Promise<void> {
 *     this.#count = BigInt(await new Response(r).text());
 *   }
 *   close(): void {}
 * }
 *
 * await checkStateMachine({
 *   create: () => new Counter(),
 *   commands: ["", "a", "bcd"].map((text) => new TextEncoder().encode(text)),
 *   queries: [null],
 * });
 * ```
 *
 * If it did not save its count, the error would name the rule, R9, and show that
 * one command suffices to see it.
 *
 * `simulate()` runs an application's test against a server and devices in simulated
 * network and time.
 *
 * This module is browser compatible.
 *
 * @module
 */

export {
  checkConcurrentStateMachine,
  checkOnDiskStateMachine,
  checkStateMachine,
} from "./contract.ts";
export type {
  Arbitrary,
  CheckConcurrentStateMachineOptions,
  CheckOnDiskStateMachineOptions,
  CheckOptions,
  CheckStateMachineOptions,
  Disk,
  Samples,
} from "./options.ts";
export { checkMachine, type CheckMachineOptions } from "./check_machine.ts";
export {
  checkUpgrade,
  type CheckUpgradeOptions,
  UpgradeViolation,
  type UpgradeViolationInit,
} from "./check_upgrade.ts";
export {
  type MachineDevice,
  type MachineWorld,
  simulateMachine,
  type SimulateMachineOptions,
} from "./simulated_machine.ts";
export { ContractViolation, type ContractViolationInit } from "./violation.ts";
// Types in the signatures above, so that a caller needs no other import.
export type {
  CreateConcurrentStateMachineFunc,
  CreateOnDiskStateMachineFunc,
  CreateStateMachineFunc,
  Entry,
  IConcurrentStateMachine,
  IOnDiskStateMachine,
  ISnapshotFileCollection,
  IStateMachine,
  MaybePromise,
  Result,
  SampanError,
  SnapshotFile,
} from "../statemachine/mod.ts";
export type { FileStore, OpenFile } from "../snapshot/file_store.ts";
export {
  blockStoreConformance,
  type BlockStoreConformanceOptions,
} from "./block_store_conformance.ts";
export type { ConformanceCase } from "./conformance.ts";
export {
  fileStoreConformance,
  type FileStoreConformanceOptions,
} from "./file_store_conformance.ts";
export {
  checkLinearizability,
  ErrCheckUndecided,
  type LinearizabilityOptions,
  type LinearizabilityViolation,
  type RecordedCall,
  type SequentialModel,
} from "./linearizability.ts";
export {
  logDBConformance,
  type LogDBConformanceOptions,
} from "./log_conformance.ts";
export {
  outboxConformance,
  type OutboxConformanceOptions,
} from "./outbox_conformance.ts";
export {
  snapshotStoreConformance,
  type SnapshotStoreConformanceOptions,
} from "./snapshot_store_conformance.ts";
export {
  simulate,
  type SimulatedComputer,
  type SimulatedDevice,
  type SimulatedWorld,
  type SimulateOptions,
} from "./simulated_world.ts";
export type { Cut } from "./simulated_network.ts";
