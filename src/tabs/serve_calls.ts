/**
 * Answers of the leading tab to calls of the others. Loaded at the first call.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { copyOf } from "../bytes.ts";
import { TAB_PART_BYTES, TAB_RECENT_BYTES } from "../limits.ts";
import { ErrCompacted } from "../log/errors.ts";
import type { Epoch } from "../log/history.ts";
import type { Log, LogBatch, LogInfo, LogReader } from "../log/log.ts";
import { readAgain } from "../log/read_again.ts";
import { lastOf } from "../log/records.ts";
import type { CompactionOptions, Replica } from "../nodehost/replica.ts";
import { ErrNotImplemented } from "../statemachine/errors.ts";
import type { SentError } from "../worker/sent_error.ts";
import type { Calls, StoreRequest } from "./messages.ts";
import { compactBatch, type RecentBatches } from "./recent_batches.ts";

/** Log of the leading tab. */
export interface ServedLog {
  readonly recent: RecentBatches;
  /** Returns the log of this tab, once it is open; fails if another tab leads by then. */
  readonly opened: () => Promise<Log>;
  /** Returns the log of this tab; throws if another tab leads. */
  readonly own: () => Log;
  readonly info: () => LogInfo;
  readonly principal: () => string | null | undefined;
  /** Cause for which this tab sends no submissions. */
  readonly blocked: () => SentError | undefined;
  /** Resolves if this tab may order records. */
  readonly verify: () => Promise<void>;
}

/** Dependencies of {@linkcode answerCall}. */
export interface ServeParts {
  readonly log: ServedLog;
  /** Resolves with the replica of this tab, once it has started. */
  readonly replica: () => Promise<Replica>;
  /** Outbox of the cluster in this tab, if there is one. */
  readonly outbox: {
    adopt(): void;
    dismiss(number: number): Promise<void>;
  } | undefined;
  /** Sends a part of an answer. */
  readonly part: (bytes: Uint8Array) => void;
}

/**
 * Answers a call of another tab.
 *
 * @throws ErrNotImplemented if newer code calls a method that this code does not know
 */
export async function answerCall(
  method: keyof Calls,
  args: unknown,
  { log, replica, outbox, part }: ServeParts,
): Promise<unknown> {
  switch (method) {
    case "read":
      return await read(log, args as Calls["read"]["args"]);
    case "append": {
      const { bytes, ends } = args as Calls["append"]["args"];
      return await (await log.opened()).append({ bytes, ends });
    }
    case "readIndex":
      await log.opened();
      await log.verify();
      return await log.own().readIndex();
    case "snapshot":
      return await send((await replica()).exportSnapshot(), part);
    case "requestSnapshot":
      return await (await replica()).requestSnapshot(options(args));
    case "requestCompaction":
      return await (await replica()).requestCompaction(options(args));
    case "adopt":
      return outbox?.adopt();
    case "dismiss": {
      const { number } = args as Calls["dismiss"]["args"];
      return await outbox?.dismiss(number);
    }
    default:
      throw new ErrNotImplemented(`Leading tab does not know ${method}`);
  }
}

/** Options of a request of a follower. */
function options(args: unknown): CompactionOptions {
  const { compactionOverhead } = args as StoreRequest;
  return compactionOverhead === undefined ? {} : { compactionOverhead };
}

/** Reads the log for a follower. */
async function read(
  log: ServedLog,
  { after, epoch, isStored }: Calls["read"]["args"],
): Promise<Calls["read"]["answer"]> {
  await log.opened();
  const { recent } = log;
  const { last } = recent;
  const principal = log.principal();
  const isSame = recent.agrees(after, epoch);
  const batches = recent.after(after) ??
    (isStored && isSame && after < last
      ? await stored(log.own(), after, epoch, last)
      : undefined);
  const result = !isSame
    ? "diverged"
    : batches === undefined
    ? "compacted"
    : "read";
  return {
    result,
    batches: result === "read" ? batches!.map(compactBatch) : [],
    last,
    log: log.info(),
    principal,
    blocked: log.blocked(),
  };
}

/** Reads a part of the log of this tab; undefined if it was compacted there. */
async function stored(
  log: Log,
  after: number,
  epoch: Epoch | undefined,
  last: number,
): Promise<LogBatch[] | undefined> {
  let reader: LogReader | undefined;
  try {
    reader = await readAgain(log, after, { epoch });
    const batches: LogBatch[] = [];
    let bytes = 0;
    while (bytes < TAB_RECENT_BYTES && after < last) {
      const batch = await reader.next();
      batches.push(batch);
      bytes += batch.records.bytes.length;
      after = lastOf(batch);
    }
    return batches;
  } catch (error) {
    if (error instanceof ErrCompacted) return undefined;
    throw error;
  } finally {
    reader?.close();
  }
}

/** Splits an exported snapshot into parts for a follower. */
async function send(
  source: ReadableStream<Uint8Array>,
  part: (bytes: Uint8Array) => void,
): Promise<void> {
  const reader = source.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    for (let at = 0; at < value.length; at += TAB_PART_BYTES) {
      part(copyOf(value.subarray(at, at + TAB_PART_BYTES)));
    }
  }
}
