/**
 * Record of what the processes of a soak did: each writes down every operation
 * before it begins and after it has ended, so that SIGKILL loses nothing of it.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Operation on one register, a key of the key-value machine whose values are all different. */
export type Operation =
  | { readonly type: "read" }
  /** Sets the register to the value of that name. */
  | { readonly type: "write"; readonly value: string }
  /** Sets the register to a value if it has the expected one. */
  | {
    readonly type: "swap";
    readonly expected: string;
    readonly value: string;
  };

/** Way of a command to the log: as a proposal alone, as one in a session, or through the outbox. */
export type Way = "alone" | "session" | "outbox";

/** Commands that a client numbers: the row `key` has the number of the last one, and each sets it only from the number before. */
export interface Series {
  readonly key: string;
  readonly number: number;
}

/** Replay of a log into a fresh machine. */
export interface Replay {
  /** State hash of the machine. */
  readonly hash: string;
  /** Names of all commands, in the order in which they were applied. */
  readonly names: readonly string[];
}

/** State of a replica. */
export interface ReplicaReport {
  /** Applied index. */
  readonly index: number;
  /** State hash of the machine. */
  readonly hash: string;
  /** Last number of each series in the committed state, by key. */
  readonly series: Readonly<Record<string, number>>;
  /** Number of pending submissions. */
  readonly pending: number;
  /** Replay of its log, of a replica whose log is its own. */
  readonly replayed?: Replay;
}

/** Line that a process writes down. */
export type Line =
  /** The process runs its replica of a cluster on what it has stored. */
  | {
    readonly type: "started";
    readonly cluster: number;
    /** Last number of the client's submissions in the optimistic view. */
    readonly submitted: number;
    /** Names of the pending submissions. */
    readonly pending: readonly string[];
  }
  /** An operation is about to begin. */
  | {
    readonly type: "call";
    readonly cluster: number;
    /** Name of the operation, unique in a soak. */
    readonly name: string;
    /** Way of a command to the log; undefined for a read. */
    readonly way?: Way | undefined;
    readonly key: string;
    readonly operation: Operation;
    readonly series?: Series | undefined;
    readonly ms: number;
  }
  /** A submission is durable: its promise has resolved. */
  | { readonly type: "durable"; readonly name: string }
  /** An operation has ended; `found` is the value that a read, or a swap that failed, has found. */
  | {
    readonly type: "result";
    readonly name: string;
    readonly found?: string | null | undefined;
    readonly ms: number;
  }
  /** An operation has failed in a way that says it was not applied and never will be. */
  | { readonly type: "rejected"; readonly name: string; readonly error: string }
  /** The outcome of an operation is unknown. */
  | { readonly type: "unknown"; readonly name: string; readonly error: string }
  /** The process itself has found a violation. */
  | { readonly type: "violation"; readonly text: string }
  /** Number of checks that the process has made since the line before. */
  | { readonly type: "checked"; readonly views: number }
  /** Answer to a request. */
  | {
    readonly type: "answer";
    readonly request: number;
    readonly value?: unknown;
    readonly error?: string;
  };

/** Request to a process. */
export interface Request {
  readonly request: number;
  readonly what: keyof Requests;
  readonly argument?: unknown;
}

/** Requests that a process answers. */
export interface Requests {
  /** Connects again at once. */
  reconnect(): void;
  /** Ends the load; resolves once no submission is pending. */
  quiesce(): Promise<void>;
  /** Resolves to the state of each cluster, once it has applied these indexes. */
  report(indexes: readonly number[]): Promise<readonly ReplicaReport[]>;
}

/** Writes a line down; a call may begin once that has resolved. */
export type Write = (line: Line) => Promise<void> | void;

/** First key of the registers, and the end of their range. */
export const REGISTERS = { start: "r/", end: "r0" } as const;

/** Key of a register. */
export function registerOf(number: number): string {
  return `r/${number}`;
}

/** Prefix of the keys of series. */
export const SERIES = "n/";

/** End of the range of those keys. */
export const SERIES_END = "n0";

/** Value of a register: its name, and padding whose length it states. */
export function valueOf(name: string, padding: number): string {
  return `«${name}»${padding}:${"x".repeat(padding)}`;
}

/** Name of a value, or of the last value in a command. */
export function nameIn(text: string): string {
  const [, name, padding, rest] =
    /^«(.*?)»(\d+):(x*)$/.exec(text.slice(text.lastIndexOf("«"))) ?? [];
  if (name === undefined || rest!.length !== Number(padding)) {
    throw new Error(`Value is damaged: ${text.slice(0, 100)}`);
  }
  return name;
}
