/**
 * State machines off the main thread: a machine of any kind runs in a dedicated
 * worker, behind the interface of its kind.
 *
 * This module is browser compatible.
 *
 * @module
 */

export { ErrWorkerFailed } from "./errors.ts";
export { type MachineOfAnyKind, serveMachine } from "./serve_machine.ts";
export {
  type PureMethods,
  workerMachine,
  type WorkerMachineOptions,
} from "./worker_machine.ts";
export type {
  CommandGroup,
  IAdmit,
  IConcurrentStateMachine,
  IGroup,
  IMerge,
  IOnDiskStateMachine,
  IRefusal,
  IStateMachine,
} from "../statemachine/machines.ts";
export type {
  Entry,
  ISnapshotFileCollection,
  MaybePromise,
  Result,
  SnapshotFile,
} from "../statemachine/types.ts";
export { SampanError } from "../statemachine/errors.ts";
