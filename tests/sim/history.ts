/**
 * History of one simulated world: every operation with its begin and end, and
 * everything else that the oracles judge after the run.
 *
 * The command of an operation is a text that is unique in its world. The state of
 * a machine is, for each key, the list of the commands that were applied to it, in
 * order. A command's result is the length of its key's list after it; a lookup's
 * result is the whole list.
 *
 * @module
 */

import type { LogBatch } from "../../src/log/log.ts";
import { RecordKind } from "../../src/log/records.ts";

/** Call of an application. */
export type OperationKind =
  | "propose"
  | "submit"
  | "read"
  | "staleRead"
  | "naRead"
  | "view"
  | "watch";

/** Result of an operation: the length of a list for a command, a list for a lookup. */
export type Value = number | readonly string[];

/** End of an operation as its caller learned it. */
export type Outcome =
  /** The command was applied, or the lookup answered. */
  | { readonly kind: "ok"; readonly value: Value }
  /** The command was not applied and never will be. */
  | { readonly kind: "rejected"; readonly error: unknown }
  /** The command may have been applied, or may be applied later. */
  | { readonly kind: "unknown"; readonly error: unknown };

/** Properties of an operation that are known when it begins. */
export interface OperationInit {
  /** Process that calls; each life of a device's or a server's process is another one, such as `a/2`. */
  readonly process: string;
  readonly cluster: bigint;
  readonly kind: OperationKind;
  /** Key whose list the operation changes or looks up; without one a lookup concerns the list of all commands. */
  readonly key?: string | undefined;
  /** Unique text of the command; empty for a lookup. */
  readonly input: string;
  /** Client session of the command: the session's name, or the outbox's. Commands of one session are applied in the order in which they began. */
  readonly session?: string | undefined;
  /** List that a view must show: committed and pending commands at this moment. */
  readonly expected?: readonly string[] | undefined;
}

/** One call, from its begin to its end. */
export interface Operation extends OperationInit {
  expected?: readonly string[] | undefined;
  /** Event of the world at which it began. */
  readonly start: number;
  /** Event at which its caller got an answer; undefined if it never did. */
  end?: number | undefined;
  outcome?: Outcome | undefined;
  /** Event at which the outbox acknowledged a submission as stored. */
  stored?: number | undefined;
  /** Process that first got the result of a submission: a later one of the device, or one with a copy of its outbox. */
  answeredBy?: string | undefined;
  /** True if a submission may be gone although it was stored: power was cut before it was synced. */
  mayBeLost?: boolean;
  /** True if a power cut may have taken its refusal, which was told, from the outbox. */
  mayReturn?: boolean;
  /** True if its user dismissed a submission. */
  isDismissed?: boolean;
  /** Commands that a view may show twice: committed, and queued in an outbox that does not know that it has sent them. */
  mayRepeat?: ReadonlySet<string> | undefined;
}

/** Event in the life of a client session. */
export type SessionEvent = "opened" | "claimed" | "closed" | "evicted";

/** State of one replica after all faults have ended. */
export interface FinalState {
  readonly process: string;
  readonly cluster: bigint;
  /** Kind of machine. */
  readonly machine: string;
  /** State version of the machine's code, on which its hash depends. */
  readonly stateVersion: number;
  readonly appliedIndex: number;
  readonly hash: bigint;
  /** All applied commands in order. */
  readonly list: readonly string[];
  /** Submissions that the device still lists, by command. */
  readonly pending: ReadonlyMap<string, "queued" | "refused" | "unknown">;
}

/** Compaction of the server's log. */
export interface Compaction {
  readonly cluster: bigint;
  readonly process: string;
  /** Index of the last entry that was removed. */
  readonly upTo: number;
  /** Indexes of the good full snapshots that the process could recover from at that moment. */
  readonly snapshots: readonly number[];
}

/** High-water mark of a bounded queue. */
export interface QueueMark {
  readonly queue: string;
  readonly size: number;
  readonly max: number;
}

/** Section of the coverage table. */
export type CoverageGroup = "fault" | "error" | "state" | "event";

/** Violation that the world itself found, or an oracle. */
export interface Violation {
  /** Oracle that found it. */
  readonly oracle: string;
  readonly text: string;
}

/** Committed log of one cluster, as every reader of the server's log has seen it. */
export interface CommittedLog {
  /** Records by index; a log that was put back to an older copy begins a new one. */
  readonly records: Map<number, Uint8Array>;
  /** Index of the last record that this log has from an older copy, 0 for the first log. */
  readonly restoredAt: number;
  /** Event at which it began. */
  readonly start: number;
}

/** Names of the kinds of records. */
const RECORD_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(RecordKind).map(([name, kind]) => [kind, name]),
);

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Everything that happened in one world. */
export class History {
  readonly operations: Operation[] = [];
  readonly finals: FinalState[] = [];
  readonly compactions: Compaction[] = [];
  readonly rejections: unknown[] = [];
  readonly violations: Violation[] = [];
  /** High-water marks by queue. */
  readonly queues: Map<string, QueueMark> = new Map();
  /** Number of times that each event happened, as `group: name`. */
  readonly counts: Map<string, number> = new Map();
  /** Logs of each cluster: one, and another for each time that the server was put back to an older copy. */
  readonly logs: Map<bigint, CommittedLog[]> = new Map();
  /** Reasons for which a cluster may rightly not know the outcome of a submission. */
  readonly excuses: Map<bigint, Set<string>> = new Map();
  /** Event at which the first final state was recorded; undefined before that. */
  settledAt: number | undefined;
  #event = 0;
  /** Index of the last decision to skip an entry, by cluster. */
  readonly #skips = new Map<bigint, number>();
  /** Names of what was met by group, so that they are not built each time. */
  readonly #keys = new Map<CoverageGroup, Map<string, string>>();

  /** Number of events so far. */
  get event(): number {
    return this.#event;
  }

  /** Records the begin of an operation. */
  begin(init: OperationInit): Operation {
    // Every operation has the same properties in the same order, which is faster.
    const { process, cluster, kind, key, input, session, expected } = init;
    const operation: Operation = {
      process,
      cluster,
      kind,
      key,
      input,
      session,
      expected,
      start: ++this.#event,
      end: undefined,
      outcome: undefined,
      stored: undefined,
      answeredBy: undefined,
      mayBeLost: false,
      isDismissed: false,
      mayRepeat: undefined,
    };
    this.operations.push(operation);
    return operation;
  }

  /** Records the end of an operation; only the first counts. */
  end(operation: Operation, outcome: Outcome): void {
    if (operation.outcome !== undefined) return;
    operation.end = ++this.#event;
    operation.outcome = outcome;
    if (outcome.kind !== "ok") this.failed(outcome.error);
  }

  /** Records that the call of an operation was answered, with something that is not judged. */
  answered(operation: Operation): void {
    operation.end ??= ++this.#event;
  }

  /** Records that an outbox acknowledged a submission as stored. */
  stored(operation: Operation): void {
    operation.stored ??= ++this.#event;
  }

  /** Records that a power cut may have taken what a session's outbox had stored and not synced. */
  mayLose(session: string): void {
    for (const operation of this.operations) {
      if (operation.session !== session) continue;
      if (operation.outcome === undefined) operation.mayBeLost = true;
      // That the device has refused it itself; it is sent then.
      if (operation.outcome?.kind === "rejected") operation.mayReturn = true;
    }
  }

  /** Records a reason for which outcomes in a cluster may be unknown: evictions, copies of an outbox, power cuts. */
  excuse(cluster: bigint, reason: string): void {
    let reasons = this.excuses.get(cluster);
    if (reasons === undefined) this.excuses.set(cluster, reasons = new Set());
    reasons.add(reason);
  }

  /** Records an event in the life of a session. */
  session(event: SessionEvent, cluster: bigint): void {
    this.met("event", `session ${event}`);
    if (event === "evicted") this.excuse(cluster, "eviction");
  }

  /** Records the injection of a fault. */
  fault(name: string): void {
    this.met("fault", name);
  }

  /** Records an error that a caller, an event or a status has shown, with its causes. */
  failed(error: unknown): void {
    for (let at = error; at instanceof Error; at = at.cause) {
      this.met("error", at.name);
    }
  }

  /** Records that something in the coverage table was met. */
  met(group: CoverageGroup, name: string): void {
    let keys = this.#keys.get(group);
    if (keys === undefined) this.#keys.set(group, keys = new Map());
    let key = keys.get(name);
    if (key === undefined) keys.set(name, key = `${group}: ${name}`);
    this.counts.set(key, (this.counts.get(key) ?? 0) + 1);
  }

  /** Records that a state machine of the documentation, such as a connection, went from one state to another. */
  transition(machine: string, from: string, to: string): void {
    this.met("state", `${machine}: ${from} → ${to}`);
  }

  /** Records a promise that rejected without a handler. */
  rejected(error: unknown): void {
    this.rejections.push(error);
  }

  /** Records the size of a queue and its bound. */
  queue(queue: string, size: number, max: number): void {
    const mark = this.queues.get(queue);
    if (mark === undefined || size > mark.size) {
      this.queues.set(queue, { queue, size, max });
    }
  }

  /** Records that a snapshot was saved. */
  snapshot(kind: "full" | "metadata"): void {
    this.met("event", `snapshot ${kind}`);
  }

  /** Records a compaction of the server's log. */
  compacted(compaction: Compaction): void {
    this.met("event", "compaction");
    this.compactions.push(compaction);
  }

  /** Records a batch that was read from the server's log; a record that was read before must be the same. */
  committed(cluster: bigint, { first, records }: LogBatch): void {
    const log = this.#log(cluster);
    let start = 0;
    records.ends.forEach((end, i) => {
      const index = first + i;
      const bytes = records.bytes.subarray(start, end);
      start = end;
      const known = log.records.get(index);
      if (known === undefined) {
        log.records.set(index, bytes.slice());
        if (bytes[0] === RecordKind.SkipEntry) {
          this.#skips.set(
            cluster,
            Math.max(index, this.#skips.get(cluster) ?? 0),
          );
        }
        this.met("event", `record: ${RECORD_NAMES.get(bytes[0]!)}`);
      } else if (!isEqual(known, bytes)) {
        this.fail("log", `Record ${index} of cluster ${cluster} has changed`);
      }
    });
  }

  /** Index of the last record of a cluster that a reader has seen, 0 without one. */
  lastIndex(cluster: bigint): number {
    return Math.max(0, ...this.#log(cluster).records.keys());
  }

  /** Index of the last decision to skip an entry of a cluster that a reader has seen, 0 without one. */
  lastSkip(cluster: bigint): number {
    return this.#skips.get(cluster) ?? 0;
  }

  #log(cluster: bigint): CommittedLog {
    let logs = this.logs.get(cluster);
    if (logs === undefined) {
      this.logs.set(
        cluster,
        logs = [{ records: new Map(), restoredAt: 0, start: 0 }],
      );
    }
    return logs.at(-1)!;
  }

  /** Records that the log of a cluster was put back to an older copy, whose last record is `index`. */
  restored(cluster: bigint, index: number): void {
    const { records } = this.#log(cluster);
    this.logs.get(cluster)!.push({
      records: new Map([...records].filter(([at]) => at <= index)),
      restoredAt: index,
      start: ++this.#event,
    });
    const skips = [...this.#log(cluster).records].filter(([, bytes]) =>
      bytes[0] === RecordKind.SkipEntry
    );
    this.#skips.set(cluster, Math.max(0, ...skips.map(([at]) => at)));
    this.excuse(cluster, "restore");
    this.met("event", "restore");
  }

  /** Records the state of a replica after all faults have ended and everything has settled. */
  final(state: FinalState): void {
    this.settledAt ??= ++this.#event;
    this.finals.push(state);
  }

  /** Records a violation that the world itself has found. */
  fail(oracle: string, text: string): void {
    this.violations.push({ oracle, text });
  }
}
