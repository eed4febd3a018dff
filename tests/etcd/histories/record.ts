/**
 * Operations of a history, and the lines that its processes write.
 *
 * @module
 */

/** Kind of an operation on one key. */
export type Op = "put" | "get" | "cas" | "append";

/** Input of an operation. */
export interface Input {
  readonly op: Op;
  /** Value that a put or a swap writes, or an append adds. */
  readonly value?: string | undefined;
  /** Value that a swap expects; null for an absent key. */
  readonly expected?: string | null | undefined;
}

/** Output of an operation. */
export interface Output {
  /** Value of the key after the operation; null if it is absent. */
  readonly value: string | null;
  /** False for a swap that found another value than it expected. */
  readonly swapped?: boolean | undefined;
}

/** Operation in the file of a history, one in each line. Times are in nanoseconds of one clock that all processes share. */
export interface HistoryLine {
  /** Name of the client. */
  readonly client: string;
  readonly op: Op;
  readonly key: string;
  /** Operation as it was called, with the id of a command. */
  readonly input: Input & { readonly id?: string | undefined };
  /** Answer; null without one. */
  readonly output: Output | null;
  /** True if the answer is known, false if the operation certainly has no effect, null if its outcome is unknown. */
  readonly ok: boolean | null;
  readonly call: number;
  /** Time of the answer; null without one. */
  readonly return: number | null;
}

/** State of a replica. */
export interface Report {
  readonly index: number;
  readonly hash: string;
  /** Number of commands that were applied. */
  readonly applied: number;
  /** Ids of commands that were applied more than once. */
  readonly doubled: readonly string[];
}

/** Request of the coordinator to a process. */
export type Request =
  | { readonly what: "stop load" }
  /** Stops the program as an operator does. */
  | { readonly what: "shut down" }
  /** Sets the clock of the process so far forward, or back. */
  | { readonly what: "jump"; readonly ms: number }
  | { readonly what: "report"; readonly index: number }
  /** Resolves to all ids in order and all values. */
  | { readonly what: "state" };

/** Line that a process writes. */
export type Line =
  /** Its clients are at work. */
  | { readonly type: "started"; readonly url?: string | undefined }
  /** An operation is about to begin. */
  | {
    readonly type: "call";
    readonly number: number;
    readonly client: string;
    readonly key: string;
    readonly input: HistoryLine["input"];
    readonly at: number;
  }
  /** An operation has ended. */
  | {
    readonly type: "return";
    readonly number: number;
    readonly ok: boolean | null;
    readonly output: Output | null;
    readonly at: number;
    readonly error?: string | undefined;
  }
  /** Something of the host has happened that a history counts. */
  | { readonly type: "event"; readonly name: string }
  /** The process itself has found a violation. */
  | { readonly type: "violation"; readonly text: string }
  | { readonly type: "answer"; readonly value: unknown };

/** State of a machine. */
export interface State {
  /** Ids of all commands in the order in which they were applied. */
  readonly ids: readonly string[];
  readonly values: Readonly<Record<string, string>>;
}
