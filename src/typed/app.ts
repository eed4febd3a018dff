/**
 * Typed access of an application to a replica.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  checkOptions,
  isFunction,
  isText,
  optional,
  type OptionChecks,
} from "../options.ts";
import { isSameBytes } from "../bytes.ts";
import { describe } from "../describe.ts";
import { ErrProposalRefused } from "../rsm/errors.ts";
import type { Submission } from "../nodehost/outbox.ts";
import type { Replica } from "../nodehost/replica.ts";
import type { Result } from "../statemachine/types.ts";
import { decodeCommand, encodeCommand } from "./command.ts";
import {
  type AnyCommand,
  coreOf,
  LibraryQuery,
  type Rejected,
  shownArguments,
  type TypedQuery,
  WatchedQuery,
} from "./core.ts";
import type { MachineDefinition } from "./definition.ts";
import { ErrInvalidArguments } from "./errors.ts";
import { EditHistory, editSeed, type SeededCall } from "./history.ts";
import { type Marks, marksQuery } from "./marks.ts";
import { newSeed } from "./random.ts";
import { codeOf, type LibraryCode, valueOf } from "./result.ts";
import { parseArguments } from "./schema.ts";
import type { Watch } from "../watch/mod.ts";

/** Outcome of a command: its value, or the code with which it was rejected. */
export type Outcome<R> =
  | { readonly ok: true; readonly value: Exclude<R, Rejected> }
  | {
    readonly ok: false;
    readonly code: (R extends Rejected<infer C> ? C : never) | LibraryCode;
  };

/** Command of an application, as submitted. */
export interface Edit<R> {
  /**
   * Outcome, once the cluster has decided the command. Rejects as the result of a
   * submission does: with `ErrProposalRefused` if the server refused the command
   * itself, as its `validate` does, and with another error if the outcome cannot be
   * known.
   */
  readonly result: Promise<Outcome<R>>;
}

/** Command that is not applied: queued, or rejected and not dismissed yet. */
export interface PendingEdit {
  /** Number of the submission in its outbox, in the order of submission; the same after a restart. */
  readonly id: number;
  /** Name of the command. */
  readonly name: string;
  /** Arguments, of the newest version; as they are stored, if an upcast throws. */
  readonly args: unknown;
  /** State of the submission. */
  readonly state: "queued" | "applied" | "refused" | "unknown";
  /** Code with which it was rejected, or the reason of the server. */
  readonly code: string | undefined;
  /** Removes it, once it is rejected or of unknown outcome. */
  dismiss(): Promise<void>;
}

/** Part of a replica that typed access uses. */
export type TypedReplica = Pick<
  Replica<TypedQuery, unknown>,
  | "submit"
  | "pending"
  | "onPending"
  | "watch"
  | "view"
  | "staleRead"
  | "principal"
>;

/** Options of {@linkcode typed}. */
export interface TypedOptions {
  /**
   * Author of the commands: the id of the principal who is signed in, by which the
   * server checks it. Commands of another author than the principal wait until their
   * author signs in.
   *
   * @default {the principal of the last welcome of a server; null for the anonymous one}
   */
  readonly by?: string;
  /** Clock of the time in commands, in milliseconds since 1970. @default {Date.now} */
  readonly now?: () => number;
  /** Creates the 16 bytes of a command's seed. @default {crypto.getRandomValues} */
  readonly seed?: () => Uint8Array;
}

const CHECKS: OptionChecks<TypedOptions> = {
  by: optional(isText),
  now: optional(isFunction),
  seed: optional(isFunction),
};

/** Arguments of a query after the state. */
export type QueryArguments<F> = F extends
  (state: never, ...args: infer A) => unknown ? A
  : never;

/** Answer of a query. */
export type QueryAnswer<F> = F extends (...args: never[]) => infer A ? A
  : never;

/** Typed access to a replica. */
export interface App<I, R, Q, S = unknown> {
  /**
   * Submits commands: each resolves once it is durable on this device, and is
   * shown by the optimistic view from then on (U25).
   *
   * @throws ErrInvalidArguments, ErrSchemaAsync, ErrSchemaNotIdempotent, ErrNotPlain before anything is stored
   */
  readonly do: {
    readonly [K in keyof I]: (
      args: I[K],
    ) => Promise<Edit<K extends keyof R ? R[K] : never>>;
  };
  /** Queries the optimistic view. */
  readonly ask: {
    readonly [K in keyof Q]: (
      ...args: QueryArguments<Q[K]>
    ) => Promise<QueryAnswer<Q[K]>>;
  };
  /** Watches queries of the optimistic view. A query is asked again only if a row, an index key, a table or a value that it read has changed. */
  readonly watch: {
    readonly [K in keyof Q]: (
      ...args: QueryArguments<Q[K]>
    ) => Watch<QueryAnswer<Q[K]>>;
  };
  /** Lists commands that are queued, and those rejected or of unknown outcome until they are dismissed. */
  pending(): readonly PendingEdit[];
  /** Calls `listener` after each change of that list; returns a function that ends it. */
  onPending(listener: () => void): () => void;
  /**
   * Watches which rows and values the commands of {@linkcode pending} touched in the
   * optimistic view: `app.marks.getSnapshot()?.cards.get(id)?.state`. A refused
   * command stays marked until it is dismissed; one that changed nothing is marked
   * at the rows that it asked for by key.
   */
  readonly marks: Watch<Marks<S, PendingEdit>>;
  /**
   * Undoes the newest edit of this author on this device whose command has an
   * `inverse`: submits the command that it gives. Resolves once that is durable,
   * with undefined if there is nothing to undo. Works offline. The command is sent
   * once the edit is decided. If the edit is refused, it is refused as well, with the
   * code `sampan:edit-refused`, and is never run; otherwise it is decided on its own
   * when it arrives. If it is rejected, the edit can be neither undone nor redone any
   * more.
   *
   * At most `UNDO_EDITS_MAX` edits can be undone. After a restart those can that are
   * still queued.
   *
   * @throws what `inverse` throws, and what `do` throws
   */
  undo(): Promise<Edit<R[keyof R]> | undefined>;
  /** Submits the edit that was undone last once more, if no other edit was made since; resolves with undefined if nothing is left. */
  redo(): Promise<Edit<R[keyof R]> | undefined>;
  /** True if there is an edit to undo. */
  readonly canUndo: boolean;
  /** True if there is an edit to redo. */
  readonly canRedo: boolean;
  /** Calls `listener` after each change of `canUndo` or `canRedo`, at least; returns a function that ends it. */
  onHistory(listener: () => void): () => void;
}

/** Outcome of a result, or of the error in its place. */
async function outcomeOf<R>(result: Promise<Result>): Promise<Outcome<R>> {
  const decided = await result.catch((error) => {
    if (error instanceof ErrProposalRefused && error.result !== undefined) {
      return error.result;
    }
    // Refused by the server, not by the machine, or of unknown outcome.
    throw error;
  });
  const code = codeOf(decided);
  return (code === undefined
    ? { ok: true, value: valueOf(decided) }
    : { ok: false, code }) as Outcome<R>;
}

/** Creates an object whose properties are created when they are first used. */
function byName<T extends object>(
  names: Iterable<string>,
  create: (name: string) => unknown,
): T {
  const object: Record<string, unknown> = {};
  for (const name of names) object[name] = create(name);
  return Object.freeze(object) as T;
}

/**
 * Gives an application typed access to a replica of a defined machine.
 *
 * @param replica replica that was started with `definition.create`
 */
export function typed<S, I, R, Q>(
  replica: TypedReplica,
  definition: MachineDefinition<S, I, R, Q>,
  options: TypedOptions = {},
): App<I, R, Q, S> {
  checkOptions("Options of typed access", options, CHECKS);
  const { now = Date.now, seed = newSeed } = options;
  const author = (): string | null => options.by ?? replica.principal;
  const core = coreOf(definition);
  const { commands, queries } = core;
  const submit = async (
    { name, args: input, seed }: SeededCall,
  ): Promise<Edit<unknown>> => {
    const command = commands.get(name);
    if (command === undefined) {
      throw new ErrInvalidArguments(
        `Machine ${core.name} has no command ${
          describe(name)
        }, which an \`inverse\` returned`,
      );
    }
    const { args: schema, version } = command;
    const args = parseArguments(name, schema, input) as never;
    const at = Math.max(0, Math.floor(now()));
    const cmd = encodeCommand({ name, version, at, by: author(), seed, args });
    return editOf(await replica.submit(cmd));
  };
  const history = new EditHistory<Edit<unknown>>({
    core,
    author,
    submit,
    run: async () => {
      const isQueued = ({ state }: Submission): boolean => state === "queued";
      const query = new LibraryQuery((machine) =>
        machine.rehearse(
          replica.pending().filter(isQueued).map(({ cmd }) => cmd),
        )
      );
      await replica.staleRead(query);
    },
  });
  const edit = async (
    name: string,
    args: unknown,
  ): Promise<Edit<unknown>> => {
    const call = { name, args, seed: editSeed(seed()) };
    return await history.edit(() =>
      history.isUndoable(name) ? history.add(call) : submit(call)
    );
  };
  for (const submission of replica.pending()) {
    const envelope = decodeCommand(submission.cmd);
    if (submission.state !== "queued" || envelope === undefined) continue;
    const { args } = pendingOf(commands, submission);
    history.restore(envelope, args, () => editOf(submission));
  }
  return {
    do: byName(
      commands.keys(),
      (name) => (args: unknown) => edit(name, args),
    ),
    ask: byName(
      queries.keys(),
      (name) => async (...args: unknown[]) =>
        await replica.view.lookup({ name, args }),
    ),
    watch: byName(
      queries.keys(),
      (name) => (...args: unknown[]) =>
        replica.watch(new WatchedQuery(name, args)),
    ),
    pending: () => replica.pending().map((one) => pendingOf(commands, one)),
    onPending: (listener) => replica.onPending(listener),
    marks: replica.watch(
      marksQuery({
        tables: core.newState().tables.map(({ name }) => name),
        pending: () =>
          replica.pending().map((submission) => ({
            cmd: submission.cmd,
            edit: pendingOf(commands, submission),
          })),
      }),
    ) as Watch<Marks<S, PendingEdit>>,
    undo: () => history.undo() as Promise<Edit<R[keyof R]> | undefined>,
    redo: () => history.redo() as Promise<Edit<R[keyof R]> | undefined>,
    get canUndo(): boolean {
      return history.canUndo;
    },
    get canRedo(): boolean {
      return history.canRedo;
    },
    onHistory: (listener) => history.onChange(listener),
  };
}

function editOf(submission: Submission): Edit<unknown> {
  const result = outcomeOf<unknown>(submission.result);
  // An application may ignore the outcome.
  result.catch(() => {});
  return { result };
}

/** Pending edits of submissions: each is the same object until the submission changes. */
const edits = /* @__PURE__ */ new WeakMap<
  Submission,
  { readonly cmd: Uint8Array; readonly edit: PendingEdit }
>();

function pendingOf(
  commands: ReadonlyMap<string, AnyCommand>,
  submission: Submission,
): PendingEdit {
  const { id, cmd, state } = submission;
  const known = edits.get(submission);
  if (
    known?.edit.id === id && known.edit.state === state &&
    isSameBytes(known.cmd, cmd)
  ) return known.edit;
  const envelope = decodeCommand(cmd);
  const edit: PendingEdit = {
    id,
    name: envelope?.name ?? "",
    args: envelope && shownArguments(commands.get(envelope.name), envelope),
    state,
    code: submission.reason,
    dismiss: () => submission.dismiss(),
  };
  edits.set(submission, { cmd, edit });
  return edit;
}
