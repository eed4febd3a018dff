/**
 * Reference replay: the rules of the replicated state written a second time, as
 * short and slow as possible, so that a mistake in the product does not hide
 * behind itself.
 *
 * @module
 */

import { RecordKind } from "../../src/log/records.ts";
import {
  SESSION_SHARE,
  SESSION_WINDOW_MAX,
  SESSIONS_DEFAULT,
} from "../../src/limits.ts";
import { RecordCursor } from "../../src/rsm/record_codec.ts";
import type { CommittedLog } from "./history.ts";

interface ReferenceSession {
  readonly index: number;
  readonly client: string;
  readonly owner: string;
  next: number;
  responded: number;
}

/** Result of a replay. */
export interface Replay {
  /** Applied commands in order. */
  readonly list: readonly string[];
  /** Index of the record of each applied command. */
  readonly indexes: readonly number[];
  /** Last index of the log. */
  readonly last: number;
  /** Commands that are skipped, with the indexes of their records. */
  readonly skipped: ReadonlyMap<string, number>;
  /** Number of sessions that were evicted. */
  readonly evicted: number;
  /** First index that no reader has seen, if there is a hole in the log. */
  readonly hole: number | undefined;
}

/** Text of the command that a machine adds to its list, undefined if it refuses or rejects the command. */
export type ReferenceMachine = (cmd: Uint8Array) => string | undefined;

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

/** Replays a log by the rules of sessions, skips and evictions. */
export function replay(
  { records }: CommittedLog,
  machine: ReferenceMachine,
): Replay {
  const cursor = new RecordCursor();
  const last = records.size === 0 ? 0 : Math.max(...records.keys());
  const skips = skippedIn(records);
  const skipped = new Map<string, number>();
  const list: string[] = [];
  const indexes: number[] = [];
  // In order of use, the least recently used one first.
  const sessions = new Map<number, ReferenceSession>();
  let max = SESSIONS_DEFAULT;
  let hasBegun = false;
  let evicted = 0;
  let hole: number | undefined;

  const touch = (session: ReferenceSession): void => {
    sessions.delete(session.index);
    sessions.set(session.index, session);
  };
  const evict = (): void => {
    const all = [...sessions.values()];
    const owners = new Map<string, ReferenceSession[]>();
    for (const one of all) {
      owners.set(one.owner, [...owners.get(one.owner) ?? [], one]);
    }
    const [largest] = [...owners]
      .filter(([, own]) => own.length > max * SESSION_SHARE)
      .sort(([a, one], [b, other]) =>
        other.length - one.length || (a < b ? -1 : 1)
      );
    sessions.delete((largest?.[1] ?? all)[0]!.index);
    evicted++;
  };
  /** True if the record at the cursor is the next of its session. */
  const admit = (): boolean => {
    const session = sessions.get(cursor.session);
    if (session === undefined) return false;
    touch(session);
    const acknowledged = Math.min(cursor.series - cursor.lag, session.next) - 1;
    session.responded = Math.max(session.responded, acknowledged);
    if (
      cursor.series !== session.next ||
      cursor.series - session.responded > SESSION_WINDOW_MAX
    ) return false;
    session.next++;
    return true;
  };
  const apply = (index: number, bytes: Uint8Array): void => {
    const command = machine(bytes.subarray(cursor.start));
    if (command === undefined) return;
    if (skips.has(index)) {
      skipped.set(command, index);
      return;
    }
    list.push(command);
    indexes.push(index);
  };

  for (let index = 1; index <= last; index++) {
    const bytes = records.get(index);
    if (bytes === undefined) {
      hole ??= index;
      continue;
    }
    cursor.read(bytes, 0, bytes.length);
    const { kind } = cursor;
    if (kind === RecordKind.Epoch || kind === RecordKind.SkipEntry) continue;
    if (kind === RecordKind.Config) {
      if (!hasBegun) max = cursor.sessionsMax();
      hasBegun = true;
      continue;
    }
    hasBegun = true;
    switch (kind) {
      case RecordKind.Proposal:
        apply(index, bytes);
        break;
      case RecordKind.SessionProposal:
        if (admit()) apply(index, bytes);
        break;
      case RecordKind.Skip:
        admit();
        break;
      case RecordKind.Register: {
        const registration = cursor.registration();
        const client = `${registration.clientID}`;
        const owner = text(registration.owner);
        const known = [...sessions.values()].find((one) =>
          one.client === client && one.owner === owner
        );
        if (known !== undefined) {
          touch(known);
          break;
        }
        if (sessions.size >= max) evict();
        sessions.set(index, { index, client, owner, next: 1, responded: 0 });
        break;
      }
      case RecordKind.Claim: {
        const session = sessions.get(cursor.session);
        if (session !== undefined) touch(session);
        break;
      }
      case RecordKind.Unregister:
        sessions.delete(cursor.session);
    }
  }
  return { list, indexes, last, skipped, evicted, hole };
}

/** Indexes of the entries that an operator has decided to skip. */
function skippedIn(records: ReadonlyMap<number, Uint8Array>): Set<number> {
  const cursor = new RecordCursor();
  const skipped = new Set<number>();
  for (const [index, bytes] of records) {
    if (bytes[0] !== RecordKind.SkipEntry) continue;
    cursor.read(bytes, 0, bytes.length);
    if (cursor.target > 0 && cursor.target < index) skipped.add(cursor.target);
  }
  return skipped;
}
