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
  type QueryAnswer,
  type QueryArguments,
  typed,
  type TypedOptions,
  type TypedReplica,
} from "./app.ts";
export type { Mark, MarkingEdit, Marks } from "./marks.ts";
export {
  type CommandContext,
  type OldState,
  Rejected,
  type TypedMachine,
  type TypedQuery,
} from "./core.ts";
export {
  type CallOf,
  type CommandVersions,
  type DecodedCommand,
  defineMachine,
  MachineDefinition,
  type MachineOptions,
  type MachineTypes,
  type Queries,
  type ThrownCommand,
} from "./definition.ts";
export {
  type CommandDescription,
  describeMachine,
  fingerprintOf,
  type MachineDescription,
} from "./description.ts";
export type { JSONSchema, ToJSONSchema } from "./json_schema.ts";
export {
  ErrInvalidArguments,
  ErrInvalidDefinition,
  ErrInvalidQuery,
  ErrNotPlain,
  ErrSchemaAsync,
  ErrSchemaNotIdempotent,
  ErrTypedSnapshot,
} from "./errors.ts";
export { ErrNewerCode, ErrOtherAuthor } from "../statemachine/errors.ts";
export type { Plain } from "./plain.ts";
export { newID } from "./random.ts";
export type { LibraryCode } from "./result.ts";
export type { Schema, SchemaIssue, SchemaResult } from "./schema.ts";
export {
  type Indexes,
  type IndexKey,
  type IndexScalar,
  type Prefix,
  type RowOf,
  type Table,
  table,
  type TableIndexes,
  type TableOf,
  type TableRange,
} from "./table.ts";
