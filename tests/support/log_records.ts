/**
 * Helpers that drive a state machine without a host: records, batches, a
 * recording listener and random logs.
 *
 * @module
 */

import type { LogBatch } from "../../src/log/mod.ts";
import { epochRecord, packRecords, RecordKind } from "../../src/log/records.ts";
import {
  type ApplyListener,
  type ClaimOutcome,
  configRecord,
  type MachineFactory,
  type Outcome,
  type ProgressListener,
  proposalHeadLength,
  putProposalHead,
  putSessionHead,
  registerRecord,
  sessionHeadLength,
  StateMachine,
  unregisterRecord,
} from "../../src/rsm/mod.ts";
import type { Checkpoint } from "../../src/log/mod.ts";
import type { Result } from "../../src/statemachine/mod.ts";
import type { Random } from "./random.ts";

/** Origin of the listener's own proposals. */
export const OWN = [0x11111111, 0x99999999] as const;

/** Encodes a proposal outside of any session. */
export function proposal(
  sequence: number,
  cmd: Uint8Array,
  [low, high]: readonly [number, number] = OWN,
): Uint8Array {
  const bytes = new Uint8Array(proposalHeadLength(sequence) + cmd.length);
  bytes.set(cmd, putProposalHead(bytes, 0, low, high, sequence));
  return bytes;
}

function sessionRecord(
  kind: typeof RecordKind.SessionProposal | typeof RecordKind.Skip,
  session: number,
  series: number,
  lag: number,
  cmd: Uint8Array,
): Uint8Array {
  const length = sessionHeadLength(session, series, lag) + cmd.length;
  const bytes = new Uint8Array(length);
  bytes.set(cmd, putSessionHead(bytes, 0, kind, session, series, lag));
  return bytes;
}

/** Encodes a proposal of a session. */
export function sessionProposal(
  session: number,
  series: number,
  lag: number,
  cmd: Uint8Array,
): Uint8Array {
  const kind = RecordKind.SessionProposal;
  return sessionRecord(kind, session, series, lag, cmd);
}

/** Encodes a record that skips a series. */
export function skip(
  session: number,
  series: number,
  lag: number,
): Uint8Array {
  const kind = RecordKind.Skip;
  return sessionRecord(kind, session, series, lag, new Uint8Array(0));
}

/** One call of a listener. */
export type ListenerCall =
  | readonly ["proposal", number, Result]
  | readonly ["skipped", number, string]
  | readonly ["registered", bigint, number]
  | readonly ["unregistered", number]
  | readonly ["claimed", number, bigint, ClaimOutcome]
  | readonly ["answered", string, number, Outcome, Result | undefined];

/** Listener that records its calls. */
export class Listener implements ApplyListener<string>, ProgressListener {
  readonly originLow: number = OWN[0];
  readonly originHigh: number = OWN[1];
  readonly locals: Map<number, string> = new Map();
  readonly heard: ListenerCall[] = [];
  readonly applieds: number[] = [];
  readonly checkpoints: Omit<Checkpoint, "nodeID">[] = [];

  proposalSkipped(sequence: number, reason: string): void {
    this.heard.push(["skipped", sequence, reason]);
  }
  proposalApplied(sequence: number, result: Result): void {
    this.heard.push(["proposal", sequence, result]);
  }
  registered(clientID: bigint, session: number): void {
    this.heard.push(["registered", clientID, session]);
  }
  unregistered(session: number): void {
    this.heard.push(["unregistered", session]);
  }
  claimed(session: number, holder: bigint, outcome: ClaimOutcome): void {
    this.heard.push(["claimed", session, holder, outcome]);
  }
  answered(
    local: string,
    series: number,
    outcome: Outcome,
    result: Result | undefined,
  ): void {
    this.heard.push(["answered", local, series, outcome, result]);
  }
  applied(index: number): void {
    this.applieds.push(index);
  }
  checkpoint(checkpoint: Omit<Checkpoint, "nodeID">): void {
    this.checkpoints.push(checkpoint);
  }

  checkpointFailed(error: unknown): void {
    throw error;
  }

  /** Outcomes of session proposals it was called with, without the results. */
  get outcomes(): string[] {
    return this.heard.flatMap((one) =>
      one[0] === "answered" ? [`${one[1]} ${one[2]} ${one[3]}`] : []
    );
  }
}

/** Creates a state machine and its listener. */
export function makeStateMachine(
  factory: MachineFactory,
  hashEntries = 0,
): { stateMachine: StateMachine<string>; listener: Listener } {
  const listener = new Listener();
  const stateMachine = new StateMachine(factory, 7n, 1n, listener, {
    progress: listener,
    hashEntries,
  });
  return { stateMachine, listener };
}

/** Record with its log index. */
export interface IndexedRecord {
  readonly index: number;
  readonly record: Uint8Array;
}

/** Places records at consecutive indexes. */
export function place(
  records: readonly Uint8Array[],
  first = 1,
): IndexedRecord[] {
  return records.map((record, i) => ({ index: first + i, record }));
}

/** Splits the records after index `after` into batches, at gaps and where `cut` decides. */
export function batchesOf(
  placed: readonly IndexedRecord[],
  after = 0,
  cut: () => boolean = () => false,
): LogBatch[] {
  const batches: LogBatch[] = [];
  let open: IndexedRecord[] = [];
  let follows = after;
  const seal = (): void => {
    if (open.length === 0) return;
    const records = packRecords(...open.map(({ record }) => record));
    batches.push({ follows, first: open[0]!.index, records });
    follows = open.at(-1)!.index;
    open = [];
  };
  for (const one of placed) {
    if (one.index <= after) continue;
    if (open.length > 0 && (one.index !== open.at(-1)!.index + 1 || cut())) {
      seal();
    }
    open.push(one);
  }
  seal();
  return batches;
}

/** Generator of random logs with every kind of record. */
export function randomLog(
  { below, chance, pick }: Random,
  length: number,
): IndexedRecord[] {
  const placed: IndexedRecord[] = [];
  const sessions: { index: number; next: number; responded: number }[] = [];
  /** Session records that may be repeated. */
  const sent: Uint8Array[] = [];
  let index = 0;
  const add = (record: Uint8Array): number => {
    index += chance(0.1) ? 1 + below(20) : 1;
    placed.push({ index, record });
    return index;
  };
  const cmd = (): Uint8Array =>
    Uint8Array.from({ length: below(12) }, () => below(256));
  add(epochRecord(1n));
  if (chance(0.5)) add(configRecord(2 + below(4)));
  for (let i = 0; i < length; i++) {
    const what = below(100);
    if (what < 5 || sessions.length === 0) {
      const owner = new Uint8Array(below(4)).fill(i);
      const at = add(registerRecord(BigInt(i), owner));
      sessions.push({ index: at, next: 1, responded: 0 });
      continue;
    }
    const session = pick(sessions);
    if (what < 7) add(unregisterRecord(chance(0.7) ? session.index : 3));
    else if (what < 10) add(epochRecord(BigInt(index)));
    else if (what < 11) add(configRecord(1 + below(9)));
    else if (what < 25) add(proposal(i, cmd()));
    else if (what < 35) add(proposal(i, cmd(), [5, 6]));
    else if (what < 60 && sent.length > 0) add(pick(sent.slice(-20)));
    else {
      const series = chance(0.9) ? session.next++ : 1 + below(session.next + 2);
      if (chance(0.4)) {
        session.responded += below(Math.max(1, series - session.responded));
      }
      const lag = Math.max(0, series - 1 - session.responded);
      const record = chance(0.1)
        ? skip(session.index, series, lag)
        : sessionProposal(session.index, series, lag, cmd());
      add(record);
      sent.push(record);
      // An immediate duplicate, and one with different content.
      if (chance(0.2)) add(record);
      if (chance(0.05)) {
        add(sessionProposal(session.index, series, lag, cmd()));
      }
    }
  }
  return placed;
}
