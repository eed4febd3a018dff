/**
 * Typed machines: one definition of state, commands and queries, from which comes
 * an ordinary machine of the contract, its validation on a server, and typed access
 * for an application.
 *
 * This module is browser compatible.
 *
 * @module
 */

export {
  type App,
  type Edit,
  type Outcome,
  type PendingEdit,
  typed,
  type TypedOptions,
  type TypedReplica,
} from "./app.ts";
export {
  type CommandContext,
  type OldState,
  Rejected,
  type TypedQuery,
} from "./core.ts";
export {
  type CommandOptions,
  defineMachine,
  MachineDefinition,
  type MachineOptions,
  type MachineTypes,
  type Queries,
  type ThrownCommand,
} from "./definition.ts";
export {
  ErrInvalidArguments,
  ErrInvalidDefinition,
  ErrInvalidQuery,
  ErrNewerCode,
  ErrNotPlain,
  ErrSchemaAsync,
  ErrSchemaNotIdempotent,
  ErrTypedSnapshot,
} from "./errors.ts";
export { TypedMachine } from "./machine.ts";
export type { Plain } from "./plain.ts";
export { newID } from "./random.ts";
export type { LibraryCode } from "./result.ts";
export type { Schema, SchemaIssue, SchemaResult } from "./schema.ts";
export {
  type Indexes,
  type IndexKey,
  type IndexScalar,
  type RowOf,
  type Table,
  table,
  type TableOf,
  type TableOptions,
  type TableRange,
} from "./table.ts";
