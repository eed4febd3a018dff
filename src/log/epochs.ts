/**
 * Search for epoch records in a batch, without a view of each record.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { LogBatch } from "./log.ts";
import type { Epoch } from "./history.ts";
import { epochOf, recordAt } from "./records.ts";

const EPOCH_BYTES = 9;

/** The epochs in a batch, in order. */
export function epochsIn({ first, records }: LogBatch): Epoch[] {
  const found: Epoch[] = [];
  let start = 0;
  for (const [i, end] of records.ends.entries()) {
    // A view costs more than all the rest.
    const epoch = end - start === EPOCH_BYTES
      ? epochOf(recordAt(records, i))
      : undefined;
    if (epoch !== undefined) found.push({ index: first + i, id: epoch });
    start = end;
  }
  return found;
}
