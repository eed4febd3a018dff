/**
 * Conformance suite of {@linkcode LogDB}.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  BATCH_BYTES_MAX,
  BATCH_RECORDS_MAX,
  CHECKPOINTS_KEPT,
} from "../limits.ts";
import {
  ErrClusterAlreadyExist,
  ErrClusterClosed,
  ErrCompacted,
  ErrDiverged,
} from "../log/errors.ts";
import type {
  Checkpoint,
  Log,
  LogBatch,
  LogDB,
  LogReader,
  Records,
} from "../log/log.ts";
import type { Epoch } from "../log/history.ts";
import { epochOf, packRecords, recordAt } from "../log/records.ts";
import { withResolvers } from "../async.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import {
  type CaseDefinition,
  check,
  checkThrows,
  type ConformanceCase,
  conformanceCases,
  makeBytes,
  type PortContext,
} from "./conformance.ts";

/** Options of {@linkcode logDBConformance}. */
export interface LogDBConformanceOptions {
  /** Creates an empty LogDB. */
  create(): MaybePromise<LogDB>;
  /** Opens the data that `db`, which is closed, left behind; only for durable ports. */
  reopen?: ((db: LogDB) => MaybePromise<LogDB>) | undefined;
}

const CLUSTER = 7n;
const U64_MAX = (1n << 64n) - 1n;
/** Timeout of steps that are immediate, but may cross a network, in milliseconds. */
const PATIENCE_MS = 5_000;

/** Record with its index. */
interface Read {
  readonly index: number;
  readonly record: Uint8Array;
}

/** Rejects after a timeout, so that a reader that is never woken does not hang the case. */
async function within<T>(call: string, promise: MaybePromise<T>): Promise<T> {
  const late = withResolvers<never>();
  const timer = setTimeout(
    () =>
      late.reject(new Error(`${call} did not settle within ${PATIENCE_MS} ms`)),
    PATIENCE_MS,
  );
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** Polls a condition that may depend on a network. */
async function until(what: string, condition: () => boolean): Promise<void> {
  for (let waited = 0; !condition(); waited += 5) {
    check(
      waited < PATIENCE_MS,
      `${what} did not happen within ${PATIENCE_MS} ms`,
    );
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Resolves to the reason a promise rejects with. */
async function rejection(
  call: string,
  promise: MaybePromise<unknown>,
): Promise<unknown> {
  const nothing = {};
  const error = await within(
    call,
    Promise.resolve(promise).then(() => nothing, (error) => error),
  );
  check(error !== nothing, `${call} did not reject`);
  return error;
}

/** Calls `reader.next()`; an error it throws is a rejection. */
async function nextOf(reader: LogReader): Promise<LogBatch> {
  return await reader.next();
}

/** Reads at least `count` records, epochs apart, and checks that batches follow each other from `after` on (H15). */
async function take(
  reader: LogReader,
  after: number,
  count: number,
  epochs: Epoch[] = [],
): Promise<Read[]> {
  const found: Read[] = [];
  while (found.length < count) {
    const batch = await within("next()", nextOf(reader));
    const { follows, first, records } = batch;
    check(follows === after, `Batch follows ${follows}, not ${after}`);
    check(first > follows, `Batch after ${follows} begins at ${first}`);
    check(records.ends.length > 0, "Batch is empty");
    check(
      records.ends.at(-1) === records.bytes.length,
      "Batch has bytes beyond its last record",
    );
    check(
      records.bytes.constructor === Uint8Array,
      `Bytes are a ${records.bytes.constructor.name}, and machines expect a Uint8Array, whose slice() copies`,
    );
    for (let i = 0; i < records.ends.length; i++) {
      const record = recordAt(records, i);
      const epoch = epochOf(record);
      after = first + i;
      if (epoch === undefined) found.push({ index: after, record });
      else epochs.push({ index: after, id: epoch });
    }
  }
  return found;
}

/** Reads the `count` records after `after`, epochs apart. */
async function readAfter(
  log: Log,
  after: number,
  count: number,
  epochs?: Epoch[],
): Promise<Read[]> {
  const reader = await log.read(after);
  try {
    return await take(reader, after, count, epochs);
  } finally {
    reader.close();
  }
}

/** Reads the last epoch of a log with `count` other records. */
async function lastEpoch(log: Log, count: number): Promise<Epoch> {
  const epochs: Epoch[] = [];
  await readAfter(log, 0, count, epochs);
  const epoch = epochs.at(-1);
  check(epoch, "Log has no epoch record");
  return epoch;
}

function checkRecords(
  found: readonly Read[],
  expected: readonly Uint8Array[],
): void {
  check(
    found.length === expected.length,
    `Read ${found.length} records of ${expected.length}`,
  );
  for (const [i, { record }] of found.entries()) {
    const bytes = expected[i] as Uint8Array;
    check(
      record.length === bytes.length &&
        record.every((byte, at) => byte === bytes[at]),
      `Record ${i} is not what was appended`,
    );
  }
}

/** Makes a record of `length` bytes that is not an epoch. */
function makeRecord(length: number, seed: number): Uint8Array<ArrayBuffer> {
  const record = makeBytes(length, seed);
  if (length > 0) record[0] = 0x14;
  return record;
}

/** Appends `count` records as one batch each; returns their indexes. */
async function appendEach(log: Log, count: number): Promise<number[]> {
  const indexes: number[] = [];
  for (let i = 0; i < count; i++) {
    indexes.push(await log.append(packRecords(makeRecord(10, i))));
  }
  return indexes;
}

const isClosed = (error: unknown): boolean => error instanceof ErrClusterClosed;
const isDiverged = (error: unknown): boolean => error instanceof ErrDiverged;

/** Calls that must fail once a log is closed. */
const calls = (log: Log): [string, () => unknown][] => [
  ["append()", () => log.append(packRecords(makeRecord(1, 1)))],
  ["read()", () => log.read(0)],
  ["readIndex()", () => log.readIndex()],
  ["retain()", () => log.retain(0)],
  ["startAt()", () => log.startAt(1, undefined)],
  ["isEmpty()", () => log.isEmpty()],
  ...(log.compact === undefined
    ? []
    : [["compact()", () => log.compact!(0)] as [string, () => unknown]]),
];

function control(): { signal: AbortSignal; abort(reason: unknown): void } {
  const controller = new AbortController();
  return {
    signal: controller.signal,
    abort: (reason) => controller.abort(reason),
  };
}

/** Checks that a log compacted up to `upTo` reports its first index; it may have more records left, but not all. */
async function checkCut(log: Log, upTo: number): Promise<void> {
  let first = 0;
  await checkThrows(
    "read() of what was cut",
    (error) => {
      first = error instanceof ErrCompacted ? error.firstIndex : 0;
      return first > 1 && first <= upTo + 1;
    },
    () => log.read(0),
  );
  (await log.read(first - 1)).close();
  await checkThrows(
    "read() just before",
    (error) => error instanceof ErrCompacted && error.firstIndex === first,
    () => log.read(first - 2),
  );
}

/** Case of the suite. */
type LogCase = CaseDefinition<{
  readonly db: LogDB;
  /** Log of replica 1 of `CLUSTER`. */
  readonly log: Log;
  readonly reopen: PortContext<LogDB>["reopen"];
}>;

const CASES: readonly LogCase[] = [
  {
    rule: "H1",
    name:
      "append() returns the index of its first record, and indexes increase",
    async run({ log }): Promise<void> {
      const sizes = [1, 3, 1, 100, 2];
      const appended: Uint8Array[] = [];
      const indexes: number[] = [];
      for (const [i, size] of sizes.entries()) {
        const records = Array.from(
          { length: size },
          (_, j) => makeRecord(1 + (i * 7 + j) % 40, i + j),
        );
        const first = await log.append(packRecords(...records));
        check(Number.isSafeInteger(first) && first > 0, `Index is ${first}`);
        for (const [j, record] of records.entries()) {
          appended.push(record);
          indexes.push(first + j);
        }
      }
      const found = await readAfter(log, 0, appended.length);
      checkRecords(found, appended);
      for (const [i, { index }] of found.entries()) {
        check(index === indexes[i], `Record ${i} is at ${index}`);
        check(
          i === 0 || index > (indexes[i - 1] as number),
          "Log indexes do not increase",
        );
      }
    },
  },
  {
    rule: "H1",
    name: "concurrent append() calls take effect in call order",
    async run({ log }): Promise<void> {
      const records = Array.from({ length: 20 }, (_, i) => makeRecord(5, i));
      const firsts = await Promise.all(
        records.map((record) => log.append(packRecords(record))),
      );
      const found = await readAfter(log, 0, records.length);
      checkRecords(found, records);
      check(
        found.every(({ index }, i) => index === firsts[i]),
        "append() returned other indexes than read()",
      );
    },
  },
  {
    rule: "H1",
    name: "records are read byte for byte as appended",
    async run({ log }): Promise<void> {
      const all = Uint8Array.from({ length: 256 }, (_, i) => i);
      const records = [
        makeRecord(0, 0),
        makeRecord(1, 0),
        all,
        makeRecord(0, 0),
        makeRecord(70_000, 3),
        // As long as an epoch, but none.
        makeRecord(9, 4),
      ];
      await log.append(packRecords(...records));
      const large = makeRecord(BATCH_BYTES_MAX, 5);
      await log.append(packRecords(large));
      const many = Array.from(
        { length: BATCH_RECORDS_MAX },
        (_, i) => makeRecord(1 + i % 3, i),
      );
      await log.append(packRecords(...many));
      checkRecords(
        await readAfter(log, 0, records.length + 1 + many.length),
        [...records, large, ...many],
      );
    },
  },
  {
    rule: "H13",
    name: "the first append() writes an epoch before its records",
    async run({ db, log }): Promise<void> {
      const first = await log.append(packRecords(makeRecord(3, 1)));
      const reader = await log.read(0);
      const { follows, first: at, records } = await nextOf(reader);
      reader.close();
      check(follows === 0, `First batch follows ${follows}`);
      check(at < first, "No record precedes the first append");
      const id = epochOf(recordAt(records, 0));
      check(id !== undefined, "First record is not an epoch");
      const other = await db.open(CLUSTER + 1n, 1n);
      await other.append(packRecords(makeRecord(3, 1)));
      const epoch = await lastEpoch(other, 1);
      check(epoch.id !== id, "Two logs have the same epoch");
    },
  },
  {
    rule: "H15",
    name: "read() continues after any index",
    async run({ log }): Promise<void> {
      const records: Uint8Array[] = [];
      for (const [i, size] of [1, 5, 2, 1, 8].entries()) {
        const part = Array.from(
          { length: size },
          (_, j) => makeRecord(3 + j, i * 10 + j),
        );
        await log.append(packRecords(...part));
        records.push(...part);
      }
      const all = await readAfter(log, 0, records.length);
      for (let i = 0; i < all.length; i++) {
        const { index } = all[i] as Read;
        const found = await readAfter(log, index, all.length - i - 1);
        checkRecords(found, records.slice(i + 1));
        check(
          found.every((one, j) => one.index === all[i + 1 + j]?.index),
          `Indexes after ${index} differ from the first read`,
        );
      }
    },
  },
  {
    rule: "H1",
    name: "every reader receives all records that are appended later",
    async run({ db, log }): Promise<void> {
      const other = await db.open(CLUSTER, 2n);
      const readers = [
        await log.read(0),
        await log.read(0),
        await other.read(0),
      ];
      const waiting = readers.map((reader) => take(reader, 0, 1));
      const one = makeRecord(4, 1);
      await log.append(packRecords(one));
      let after = 0;
      for (const found of await Promise.all(waiting)) {
        checkRecords(found, [one]);
        after = (found[0] as Read).index;
      }
      const last = await lastEpoch(log, 1);
      check(last.index < after, "Epoch record follows the first record");
      const more = [makeRecord(5, 2), makeRecord(6, 3)];
      const again = readers.map((reader) => take(reader, after, 2));
      for (const record of more) await other.append(packRecords(record));
      for (const found of await Promise.all(again)) checkRecords(found, more);
      for (const reader of readers) reader.close();
    },
  },
  {
    rule: "H1",
    name: "lastAtStart is the last index when read() was called",
    async run({ log }): Promise<void> {
      const empty = await log.read(0);
      check(
        empty.lastAtStart === 0,
        `lastAtStart of an empty log is ${empty.lastAtStart}`,
      );
      const indexes = await appendEach(log, 3);
      const reader = await log.read(0);
      check(
        reader.lastAtStart >= indexes[2]!,
        `lastAtStart is ${reader.lastAtStart} after appends up to ${
          indexes[2]
        }`,
      );
      const last = reader.lastAtStart;
      await appendEach(log, 1);
      check(
        reader.lastAtStart === last,
        "lastAtStart changed while the log was read",
      );
      for (const one of [empty, reader]) one.close();
    },
  },
  {
    rule: "H10",
    name: "the signal rejects a waiting next() with its reason",
    async run({ log }): Promise<void> {
      const [last] = await appendEach(log, 1);
      const { signal, abort } = control();
      const reader = await log.read(last!, { signal });
      const waiting = nextOf(reader);
      const reason = new Error("Canceled");
      abort(reason);
      check(
        await rejection("next()", waiting) === reason,
        "next() rejected with another error",
      );
      check(
        await rejection("next() again", nextOf(reader)) === reason,
        "Second next() rejected with another error",
      );
      reader.close();
      // A signal that has aborted before leaves nothing to read.
      const error = await rejection(
        "read() after the abort",
        (async () => await nextOf(await log.read(0, { signal })))(),
      );
      check(error === reason, `read() after the abort: ${error}`);
      // Others go on.
      const live = await log.read(last!);
      const found = take(live, last!, 1);
      await appendEach(log, 1);
      await found;
      live.close();
    },
  },
  {
    rule: "H10",
    name: "close() of a reader rejects next(), and is idempotent",
    async run({ log }): Promise<void> {
      const [last] = await appendEach(log, 1);
      const reader = await log.read(last!);
      const waiting = nextOf(reader);
      reader.close();
      reader.close();
      check(
        isClosed(await rejection("next() that waits", waiting)),
        "next() rejected with another error",
      );
      check(
        isClosed(await rejection("next() after close()", nextOf(reader))),
        "next() after close() rejected with another error",
      );
      await appendEach(log, 1);
    },
  },
  {
    rule: "D13",
    name: "read() rejects an index beyond the last record",
    async run({ log }): Promise<void> {
      await checkThrows(
        "read(1) of an empty log",
        isDiverged,
        () => log.read(1),
      );
      const indexes = await appendEach(log, 2);
      const last = Math.max(indexes[1]!, await log.readIndex());
      await checkThrows("read()", isDiverged, () => log.read(last + 1));
      await checkThrows("read()", isDiverged, () => log.read(last + 1000));
      (await log.read(indexes[1]!)).close();
    },
  },
  {
    rule: "H13",
    name: "read() rejects an epoch that the log does not contain",
    async run({ log }): Promise<void> {
      const [first, last] = await appendEach(log, 2);
      const epoch = await lastEpoch(log, 2);
      (await log.read(last!, { epoch })).close();
      (await log.read(epoch.index, { epoch })).close();
      for (
        const [what, wrong] of [
          ["epoch", { ...epoch, id: epoch.id ^ 1n }],
          ["high half", { ...epoch, id: epoch.id ^ 1n << 63n }],
          ["index", { ...epoch, index: first! }],
        ] as const
      ) {
        await checkThrows(
          `read() with another ${what}`,
          isDiverged,
          () => log.read(last!, { epoch: wrong }),
        );
      }
    },
  },
  {
    rule: "H2",
    name: "readIndex() covers every append that has returned",
    async run({ db, log }): Promise<void> {
      check(await log.readIndex() === 0, "Index of an empty log is not 0");
      const other = await db.open(CLUSTER, 2n);
      for (let i = 0; i < 5; i++) {
        const first = await log.append(
          packRecords(makeRecord(2, 1), makeRecord(2, 2)),
        );
        for (const handle of [log, other]) {
          const index = await handle.readIndex();
          check(
            index >= first + 1,
            `readIndex() is ${index} after ${first + 1}`,
          );
        }
      }
      const index = await log.readIndex();
      (await log.read(index)).close();
    },
  },
  {
    rule: "H1",
    name: "isEmpty() is true until the first append",
    async run({ log }): Promise<void> {
      check(await log.isEmpty(), "A new log is not empty");
      await appendEach(log, 1);
      check(!await log.isEmpty(), "Empty after an append");
      await log.compact?.(await log.readIndex());
      check(!await log.isEmpty(), "Empty after it was compacted");
    },
  },
  {
    rule: "H11",
    name: "append() rejects batches beyond the limits",
    async run({ log }): Promise<void> {
      const wrong: [string, Records][] = [
        ["an empty batch", { bytes: new Uint8Array(0), ends: [] }],
        ["too many bytes", packRecords(new Uint8Array(BATCH_BYTES_MAX + 1))],
        [
          "too many records",
          packRecords(
            ...new Array(BATCH_RECORDS_MAX + 1).fill(new Uint8Array(1)),
          ),
        ],
        ["records beyond the bytes", {
          bytes: new Uint8Array(3),
          ends: [2, 4],
        }],
        ["bytes beyond the records", { bytes: new Uint8Array(3), ends: [2] }],
      ];
      const refuse = async (): Promise<void> => {
        for (const [what, records] of wrong) {
          await checkThrows(
            `append() of ${what}`,
            (error) => error instanceof RangeError,
            () => log.append(records),
          );
        }
      };
      await refuse();
      check(await log.isEmpty(), "A rejected batch was appended");
      const [first] = await appendEach(log, 1);
      await refuse();
      const [second] = await appendEach(log, 1);
      checkRecords(await readAfter(log, 0, 2), [
        makeRecord(10, 0),
        makeRecord(10, 0),
      ]);
      check(second! > first!, "Log indexes do not increase");
    },
  },
  {
    rule: "H7",
    name: "compact() removes records, and read() reports the first index left",
    async run({ log }): Promise<void> {
      if (log.compact === undefined) return;
      const indexes = await appendEach(log, 10);
      const epoch = await lastEpoch(log, 10);
      await log.compact(0);
      await readAfter(log, 0, 10);
      const upTo = indexes[5]!;
      await log.compact(upTo);
      await checkCut(log, upTo);
      const rest = await readAfter(log, upTo, 4);
      checkRecords(rest, [6, 7, 8, 9].map((i) => makeRecord(10, i)));
      await log.compact(upTo - 1);
      await readAfter(log, upTo, 4);
      (await log.read(upTo, { epoch })).close();
      await checkThrows(
        "read() with another epoch",
        isDiverged,
        () => log.read(upTo, { epoch: { ...epoch, id: epoch.id ^ 1n } }),
      );
      // All of it, and more than there is.
      const last = await log.readIndex();
      await log.compact(last + 1000);
      await checkCut(log, last);
      (await log.read(last, { epoch })).close();
      await checkThrows("read()", isDiverged, () => log.read(last + 1));
      check(await log.readIndex() >= last, "readIndex() has gone back");
      const reader = await log.read(last);
      const [next] = await appendEach(log, 1);
      check(next! > last, `Next append is at index ${next} after ${last}`);
      checkRecords(await take(reader, last, 1), [makeRecord(10, 0)]);
      reader.close();
    },
  },
  {
    rule: "H7",
    name: "compact() keeps records that an open reader has not read",
    async run({ db, log }): Promise<void> {
      if (log.compact === undefined) return;
      const other = await db.open(CLUSTER, 2n);
      const indexes = await appendEach(log, 6);
      const reader = await other.read(indexes[1]!);
      const last = await log.readIndex();
      await log.compact(last);
      await checkCut(log, indexes[1]!);
      checkRecords(
        await take(reader, indexes[1]!, 4),
        [2, 3, 4, 5].map((i) => makeRecord(10, i)),
      );
      await log.compact(last);
      await checkCut(log, last);
      const waiting = take(reader, last, 1);
      await appendEach(log, 1);
      await waiting;
      reader.close();
      await log.compact(await log.readIndex());
      await checkCut(log, await log.readIndex());
    },
  },
  {
    rule: "H7",
    name: "compact() ignores readers that have ended",
    async run({ db, log }): Promise<void> {
      if (log.compact === undefined) return;
      const other = await db.open(CLUSTER, 2n);
      const indexes = await appendEach(log, 3);
      const { signal, abort } = control();
      (await log.read(0)).close();
      await log.read(0, { signal });
      abort(new Error("Canceled"));
      await other.read(0);
      other.retain(0);
      await other.close();
      await log.compact(indexes[2]!);
      await checkCut(log, indexes[2]!);
    },
  },
  {
    rule: "H7",
    name: "compact() keeps retained records",
    async run({ db, log }): Promise<void> {
      if (log.compact === undefined) return;
      const other = await db.open(CLUSTER, 2n);
      const indexes = await appendEach(log, 6);
      const [one, two] = [other.retain(indexes[1]!), log.retain(indexes[3]!)];
      const last = await log.readIndex();
      await log.compact(last);
      await checkCut(log, indexes[1]!);
      await readAfter(log, indexes[1]!, 4);
      one.move(indexes[2]!);
      await log.compact(last);
      await checkCut(log, indexes[2]!);
      await readAfter(log, indexes[2]!, 3);
      one.release();
      one.release();
      await log.compact(last);
      await checkCut(log, indexes[3]!);
      checkRecords(await readAfter(log, indexes[3]!, 2), [
        makeRecord(10, 4),
        makeRecord(10, 5),
      ]);
      two.release();
      two.move(indexes[0]!);
      await log.compact(last);
      await checkCut(log, last);
    },
  },
  {
    rule: "D13",
    name: "startAt() makes an empty log continue after an index",
    async run({ db, log }): Promise<void> {
      const epoch = { index: 90, id: U64_MAX };
      await log.startAt(100, epoch);
      check(await log.readIndex() === 100, "readIndex() is not the start");
      for (const [index, refused] of [[0, true], [99, true], [100, false]]) {
        if (!refused) (await log.read(index as number, { epoch })).close();
        else {
          await checkThrows(
            `read(${index})`,
            (error) =>
              error instanceof ErrCompacted && error.firstIndex === 101,
            () => log.read(index as number),
          );
        }
      }
      await checkThrows("read(101)", isDiverged, () => log.read(101));
      await checkThrows(
        "read() with another epoch",
        isDiverged,
        () => log.read(100, { epoch: { index: 90, id: 1n } }),
      );
      const reader = await log.read(100, { epoch });
      const epochs: Epoch[] = [];
      const found = take(reader, 100, 1, epochs);
      const [first] = await appendEach(log, 1);
      check(first! > 100, `Next append is at index ${first}`);
      await found;
      check(epochs.length > 0, "Log has no epoch record");
      reader.close();
      (await log.read(first!, { epoch: epochs[0] })).close();
      // A reader at that index that knows only the older epoch has read another
      // history: that of a log which was rolled back and has grown again (U33).
      await checkThrows(
        "read() with an epoch before the last one there",
        isDiverged,
        () => log.read(first!, { epoch }),
      );
      const other = await db.open(CLUSTER + 1n, 1n);
      await other.startAt(5, undefined);
      (await other.read(5)).close();
      await checkThrows(
        "read() with an epoch of a log without epochs",
        isDiverged,
        () => other.read(5, { epoch }),
      );
    },
  },
  {
    rule: "H9",
    name: "startAt() rejects a log that is not empty",
    async run({ db, log }): Promise<void> {
      const [first] = await appendEach(log, 1);
      const other = await db.open(CLUSTER, 2n);
      for (const handle of [log, other]) {
        await checkThrows(
          "startAt()",
          (error) => error instanceof ErrClusterAlreadyExist,
          () => handle.startAt(100, undefined),
        );
      }
      checkRecords(await readAfter(log, 0, 1), [makeRecord(10, 0)]);
      const [second] = await appendEach(log, 1);
      check(
        second! > first! && second! < 100,
        `Next append is at index ${second}`,
      );
    },
  },
  {
    rule: "H15",
    name:
      "a reader before the index of startAt() fails with ErrCompacted, and other readers continue",
    async run({ log }): Promise<void> {
      const behind = await log.read(0);
      const waiting = nextOf(behind);
      waiting.catch(() => {});
      await log.startAt(100, undefined);
      const reader = await log.read(100);
      const found = take(reader, 100, 1);
      const [first] = await appendEach(log, 1);
      check(first! > 100, `Next append is at index ${first}`);
      await found;
      const error = await rejection("next() of the one left behind", waiting);
      check(error instanceof ErrCompacted, `next() rejected with ${error}`);
      for (const one of [behind, reader]) one.close();
    },
  },
  {
    rule: "H9",
    name:
      "startAt() is rejected while another replica has the log open, and at another index than before",
    async run({ db, log }): Promise<void> {
      const refused = (index: number): Promise<void> =>
        checkThrows(
          "startAt()",
          (error) => error instanceof ErrClusterAlreadyExist,
          () => log.startAt(index, undefined),
        );
      const other = await db.open(CLUSTER, 2n);
      await refused(8);
      await other.close();
      await log.startAt(8, undefined);
      // Interrupted before the snapshot is stored, an import can be repeated.
      await log.startAt(8, undefined);
      await refused(4);
      check(
        await log.readIndex() === 8,
        "readIndex() is not the index of startAt()",
      );
    },
  },
  {
    rule: "H11",
    name: "open() rejects a replica whose log is open",
    async run({ db, log }): Promise<void> {
      await checkThrows(
        "open()",
        (error) => error instanceof ErrClusterAlreadyExist,
        () => db.open(CLUSTER, 1n),
      );
      const two = await db.open(CLUSTER, 2n);
      const far = await db.open(U64_MAX, 1n);
      // The one that was refused has not taken anything away.
      await appendEach(log, 1);
      await log.close();
      const again = await db.open(CLUSTER, 1n);
      checkRecords(await readAfter(again, 0, 1), [makeRecord(10, 0)]);
      // Closing what is closed leaves the new one open.
      await log.close();
      await appendEach(again, 1);
      await checkThrows(
        "open()",
        (error) => error instanceof ErrClusterAlreadyExist,
        () => db.open(CLUSTER, 1n),
      );
      for (const one of [two, far, again]) await one.close();
    },
  },
  {
    rule: "R5",
    name: "clusters are independent",
    async run({ db, log }): Promise<void> {
      const other = await db.open(CLUSTER ^ U64_MAX, 1n);
      await log.append(packRecords(makeRecord(3, 1)));
      check(await other.isEmpty(), "Log of the other cluster is not empty");
      check(
        await other.readIndex() === 0,
        "Log of the other cluster has an index",
      );
      await other.append(packRecords(makeRecord(3, 2)));
      checkRecords(await readAfter(log, 0, 1), [makeRecord(3, 1)]);
      checkRecords(await readAfter(other, 0, 1), [makeRecord(3, 2)]);
      await log.compact?.(await log.readIndex());
      checkRecords(await readAfter(other, 0, 1), [makeRecord(3, 2)]);
      await log.close();
      await appendEach(other, 1);
    },
  },
  {
    rule: "H10",
    name: "close() rejects waiting and later calls",
    async run({ db, log }): Promise<void> {
      const [last] = await appendEach(log, 1);
      const other = await db.open(CLUSTER, 2n);
      const reader = await log.read(last!);
      const waiting = nextOf(reader);
      waiting.catch(() => {});
      const retention = log.retain(0);
      await log.close();
      check(
        isClosed(await rejection("next() that waits", waiting)),
        "Waiting next() rejected with another error",
      );
      check(
        isClosed(await rejection("next()", nextOf(reader))),
        "next() rejected with another error",
      );
      for (const [what, call] of calls(log)) {
        await checkThrows(`${what} after close()`, isClosed, call);
      }
      retention.move(1);
      retention.release();
      reader.close();
      await log.close();
      await appendEach(other, 1);
      await readAfter(other, 0, 2);
    },
  },
  {
    rule: "H10",
    name: "close() of the LogDB closes its logs, and is idempotent",
    async run({ db, log }): Promise<void> {
      const [last] = await appendEach(log, 1);
      const reader = await log.read(last!);
      const waiting = nextOf(reader);
      waiting.catch(() => {});
      await db.close();
      check(
        isClosed(await rejection("next() that waits", waiting)),
        "Waiting next() rejected with another error",
      );
      for (const [what, call] of calls(log)) {
        await checkThrows(`${what} after close()`, isClosed, call);
      }
      await checkThrows(
        "open() after close()",
        isClosed,
        () => db.open(CLUSTER, 3n),
      );
      await db.close();
      await db[Symbol.asyncDispose]();
      await log.close();
    },
  },
  {
    rule: "H12",
    name: "checkpoints reach the other replicas of the cluster",
    async run({ db, log }): Promise<void> {
      if (log.checkpoints === undefined) return;
      const other = await db.open(CLUSTER, 2n);
      const foreign = await db.open(CLUSTER + 1n, 3n);
      check(
        other.checkpoints !== undefined,
        "Log of replica 2 has no checkpoints",
      );
      const make = (nodeID: bigint, index: number): Checkpoint => ({
        nodeID,
        index,
        state: index % 2 === 0 ? undefined : U64_MAX - BigInt(index),
        sessions: BigInt(index),
      });
      const seen: Checkpoint[] = [];
      const strange: Checkpoint[] = [];
      log.checkpoints.publish(make(1n, 1));
      other.checkpoints.publish(make(2n, 2));
      const end = log.checkpoints.watch(1n, (one) => seen.push(one));
      foreign.checkpoints?.watch(3n, (one) => strange.push(one));
      await until("checkpoint that was there", () => seen.length === 1);
      other.checkpoints.publish(make(2n, 3));
      log.checkpoints.publish(make(1n, 3));
      await until("checkpoint that comes", () => seen.length === 2);
      end();
      other.checkpoints.publish(make(2n, 5));
      const late: Checkpoint[] = [];
      const endLate = log.checkpoints.watch(1n, (one) => late.push(one));
      await until("checkpoint of late", () => late.length === 3);
      check(seen.length === 2, "Watcher was called after its end");
      for (const [i, index] of [2, 3, 5].entries()) {
        const one = late[i];
        const expected = make(2n, index);
        check(
          one?.nodeID === 2n && one.index === index &&
            one.state === expected.state && one.sessions === expected.sessions,
          "Checkpoint is not what was published",
        );
      }
      check(strange.length === 0, "Checkpoint reached another cluster");
      for (let i = 0; i < 2 * CHECKPOINTS_KEPT; i++) {
        other.checkpoints.publish(make(2n, 10 + i));
      }
      await until(
        "many",
        () => late.at(-1)?.index === 9 + 2 * CHECKPOINTS_KEPT,
      );
      endLate();
      const kept: Checkpoint[] = [];
      log.checkpoints.watch(1n, (one) => kept.push(one))();
      check(
        kept.length <= CHECKPOINTS_KEPT,
        `Log stores ${kept.length} checkpoints`,
      );
    },
  },
  {
    rule: "R3",
    name: "a reopened log has every committed record",
    needs: ["reopen"],
    async run({ db, log, reopen }): Promise<void> {
      const indexes = await appendEach(log, 5);
      const epoch = await lastEpoch(log, 5);
      const started = await db.open(CLUSTER + 1n, 1n);
      const imported = { index: 90, id: 5n };
      await started.startAt(100, imported);
      await log.compact?.(indexes[1]!);
      const again = await reopen();
      const after = await again.open(CLUSTER, 1n);
      check(!await after.isEmpty(), "Reopened log is empty");
      check(
        await after.readIndex() >= indexes[4]!,
        "Reopened log lacks its last records",
      );
      checkRecords(
        await readAfter(after, indexes[1]!, 3),
        [2, 3, 4].map((i) => makeRecord(10, i)),
      );
      (await after.read(indexes[4]!, { epoch })).close();
      const [next] = await appendEach(after, 1);
      check(next! > indexes[4]!, `Next append is at index ${next}`);
      (await after.read(indexes[4]!, { epoch })).close();
      if (after.compact) await checkCut(after, indexes[1]!);
      const restarted = await again.open(CLUSTER + 1n, 1n);
      (await restarted.read(100, { epoch: imported })).close();
      await checkThrows(
        "read() with another epoch",
        isDiverged,
        () => restarted.read(100, { epoch }),
      );
    },
  },
];

/** Cases that every {@linkcode LogDB} must pass, for any test runner. */
export function logDBConformance(
  options: LogDBConformanceOptions,
): readonly ConformanceCase[] {
  const cases = CASES.map(({ run, ...one }) => ({
    ...one,
    async run({ port: db, reopen }: PortContext<LogDB>): Promise<void> {
      await run({ db, log: await db.open(CLUSTER, 1n), reopen });
    },
  }));
  return conformanceCases(cases, options);
}
