/**
 * Observer of a server's logs: records what was committed and what was compacted,
 * whatever faults are injected above.
 *
 * @module
 */

import { isPromise } from "../../src/async.ts";
import type { Log, LogBatch, LogDB, LogReader } from "../../src/log/log.ts";
import type { SnapshotSource } from "../../src/log/log.ts";
import type { MaybePromise } from "../../src/statemachine/types.ts";
import type { History } from "./history.ts";

function then<T, U>(
  value: MaybePromise<T>,
  use: (value: T) => U,
): MaybePromise<U> {
  return isPromise(value) ? value.then(use) : use(value);
}

function observeReader(
  reader: LogReader,
  seen: (batch: LogBatch) => void,
): LogReader {
  const next = reader.next.bind(reader);
  reader.next = (): MaybePromise<LogBatch> =>
    then(next(), (batch) => {
      seen(batch);
      return batch;
    });
  return reader;
}

/** Has a log database record in `history` what its logs deliver and compact; `snapshots` are those that the process can recover from. */
export function observeLogs(
  logDB: LogDB,
  history: History,
  process: string,
  snapshots: SnapshotSource | undefined = logDB.snapshots,
): void {
  const open = logDB.open.bind(logDB);
  logDB.open = (cluster, nodeID): MaybePromise<Log> =>
    then(open(cluster, nodeID), (log) => {
      const { read, compact } = log;
      log.read = (after, options): MaybePromise<LogReader> =>
        then(
          read.call(log, after, options),
          (reader) =>
            observeReader(reader, (batch) => history.committed(cluster, batch)),
        );
      if (compact === undefined) return log;
      const full = async (): Promise<number[]> =>
        (await snapshots?.list(cluster) ?? [])
          .filter(({ kind }) => kind === "full").map(({ index }) => index);
      log.compact = async (upTo): Promise<void> => {
        const indexes = await full();
        history.compacted({ cluster, process, upTo, snapshots: indexes });
        await compact.call(log, upTo);
        // While a replica replaces the snapshot of another at the same index, in one
        // atomic write, the store lists neither.
        indexes.push(...await full().catch(() => []));
      };
      return log;
    });
}
