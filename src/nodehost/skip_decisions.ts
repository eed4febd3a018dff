/**
 * Decisions of operators to skip an entry, as records of the log (H17).
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Log, LogBatch } from "../log/log.ts";
import { lastOf, RecordKind } from "../log/records.ts";
import { RecordCursor } from "../rsm/record_codec.ts";
import type { SkippedEntry } from "../rsm/skipped_entries.ts";

/** Reads the decisions in a batch. */
export function skipsIn({ first, records }: LogBatch): SkippedEntry[] {
  const skips: SkippedEntry[] = [];
  const { bytes, ends } = records;
  for (let i = 0; i < ends.length; i++) {
    const start = i === 0 ? 0 : ends[i - 1]!;
    if (bytes[start] !== RecordKind.SkipEntry) continue;
    const cursor = new RecordCursor();
    cursor.read(bytes, start, ends[i]!);
    const { target: index } = cursor;
    const decidedAt = first + i;
    if (index === 0 || index >= decidedAt) continue;
    const reason = new TextDecoder().decode(cursor.reason());
    skips.push({ index, decidedAt, reason });
  }
  return skips;
}

/** Reads the decisions after an index, up to the present end of the log; waits until `signal` aborts. */
export async function skipsAfter(
  log: Log,
  after: number,
  signal?: AbortSignal,
): Promise<SkippedEntry[]> {
  const skips: SkippedEntry[] = [];
  const reader = await log.read(after, { signal });
  try {
    for (let at = after; at < reader.lastAtStart;) {
      const batch = await reader.next();
      skips.push(...skipsIn(batch));
      at = lastOf(batch);
    }
  } finally {
    reader.close();
  }
  return skips;
}
