/**
 * What every {@linkcode LogDB} must do, as cases that run anywhere.
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
  caseOf,
  check,
  checkThrows,
  type ConformanceCase,
  makeBytes,
} from "./conformance.ts";

/** What {@linkcode logDBConformance} is given. */
export interface LogDBConformanceOptions {
  /** Makes an empty one. */
  create(): MaybePromise<LogDB>;
  /** Opens what `db`, closed by now, has left behind; for logs that keep something. */
  reopen?: ((db: LogDB) => MaybePromise<LogDB>) | undefined;
}

const CLUSTER = 7n;
const U64_MAX = (1n << 64n) - 1n;
/** What should happen at once, but over a wire may take a while, in milliseconds. */
const PATIENCE_MS = 5_000;

/** A record as it was read. */
interface Read {
  readonly index: number;
  readonly record: Uint8Array;
}

/** Fails if the promise takes too long: a reader that is never woken would hang the case. */
async function within<T>(what: string, promise: MaybePromise<T>): Promise<T> {
  const late = withResolvers<never>();
  const timer = setTimeout(
    () => late.reject(new Error(`${what}: nothing happens`)),
    PATIENCE_MS,
  );
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** Waits for what may have to come over a wire. */
async function until(what: string, condition: () => boolean): Promise<void> {
  for (let waited = 0; !condition(); waited += 5) {
    check(waited < PATIENCE_MS, `${what}: does not happen`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** What a promise rejects with. */
async function rejection(
  what: string,
  promise: MaybePromise<unknown>,
): Promise<unknown> {
  const nothing = {};
  const error = await within(
    what,
    Promise.resolve(promise).then(() => nothing, (error) => error),
  );
  check(error !== nothing, `${what}: did not fail`);
  return error;
}

/** As `reader.next()`, but what it throws is a rejection. */
async function nextOf(reader: LogReader): Promise<LogBatch> {
  return await reader.next();
}

/** The next records of a reader, at least `count`, without the epochs; batches must follow each other from `after` on (H15). */
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
      "Batch has bytes that are no record's",
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

/** All records after `after`, without the epochs, given how many they are. */
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

/** The last epoch of a log that has `count` records besides. */
async function lastEpoch(log: Log, count: number): Promise<Epoch> {
  const epochs: Epoch[] = [];
  await readAfter(log, 0, count, epochs);
  const epoch = epochs.at(-1);
  check(epoch, "There is no epoch");
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

/** A record of `length` bytes that is no epoch. */
function makeRecord(length: number, seed: number): Uint8Array<ArrayBuffer> {
  const record = makeBytes(length, seed);
  if (length > 0) record[0] = 0x14;
  return record;
}

/** `count` records, each a batch of its own; the index of each. */
async function appendEach(log: Log, count: number): Promise<number[]> {
  const indexes: number[] = [];
  for (let i = 0; i < count; i++) {
    indexes.push(await log.append(packRecords(makeRecord(10, i))));
  }
  return indexes;
}

const isClosed = (error: unknown): boolean => error instanceof ErrClusterClosed;
const isDiverged = (error: unknown): boolean => error instanceof ErrDiverged;

/** The cases every log must pass; each makes its own LogDB and closes it. Parts a log does not have are passed over. */
export function logDBConformance(
  options: LogDBConformanceOptions,
): readonly ConformanceCase[] {
  const cases: ConformanceCase[] = [];
  const add = (
    name: string,
    body: (db: LogDB, log: Log) => Promise<void>,
  ): void =>
    void cases.push(
      caseOf(name, options, async (db) => body(db, await db.open(CLUSTER, 1n))),
    );

  add(
    "H1 append() gives the index of the first record, each above the last",
    async (_db, log) => {
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
          "Indexes do not increase",
        );
      }
    },
  );

  add(
    "H1 append() calls made at once take effect in their order",
    async (_db, log) => {
      const records = Array.from({ length: 20 }, (_, i) => makeRecord(5, i));
      const firsts = await Promise.all(
        records.map((record) => log.append(packRecords(record))),
      );
      const found = await readAfter(log, 0, records.length);
      checkRecords(found, records);
      check(
        found.every(({ index }, i) => index === firsts[i]),
        "Indexes are not those of the records",
      );
    },
  );

  add("H1 records come back byte for byte", async (_db, log) => {
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
  });

  add("H13 the first append puts an epoch before", async (db, log) => {
    const first = await log.append(packRecords(makeRecord(3, 1)));
    const reader = await log.read(0);
    const { follows, first: at, records } = await nextOf(reader);
    reader.close();
    check(follows === 0, `First batch follows ${follows}`);
    check(at < first, "There is nothing before what was appended first");
    const id = epochOf(recordAt(records, 0));
    check(id !== undefined, "First record is no epoch");
    const other = await db.open(CLUSTER + 1n, 1n);
    await other.append(packRecords(makeRecord(3, 1)));
    const epoch = await lastEpoch(other, 1);
    check(epoch.id !== id, "Two logs have the same epoch");
  });

  add("H15 read() goes on from every index", async (_db, log) => {
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
        `Indexes after ${index} are others`,
      );
    }
  });

  add("H1 readers get what is appended later, each all of it", async (
    db,
    log,
  ) => {
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
    check(last.index < after, "The epoch comes after the record");
    const more = [makeRecord(5, 2), makeRecord(6, 3)];
    const again = readers.map((reader) => take(reader, after, 2));
    for (const record of more) await other.append(packRecords(record));
    for (const found of await Promise.all(again)) checkRecords(found, more);
    for (const reader of readers) reader.close();
  });

  add("H1 held tells what was there when the reading began", async (
    _db,
    log,
  ) => {
    const empty = await log.read(0);
    check(empty.held === 0, `An empty log holds up to ${empty.held}`);
    const indexes = await appendEach(log, 3);
    const reader = await log.read(0);
    check(reader.held >= indexes[2]!, `Holds up to ${reader.held}`);
    const held = reader.held;
    await appendEach(log, 1);
    check(reader.held === held, "Changes while it is read");
    for (const one of [empty, reader]) one.close();
  });

  add("H10 the signal ends a next() that waits, with its reason", async (
    _db,
    log,
  ) => {
    const [last] = await appendEach(log, 1);
    const { signal, abort } = control();
    const reader = await log.read(last!, { signal });
    const waiting = nextOf(reader);
    const reason = new Error("Enough");
    abort(reason);
    check(
      await rejection("next()", waiting) === reason,
      "Fails with something else",
    );
    check(
      await rejection("next() again", nextOf(reader)) === reason,
      "Fails with something else the second time",
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
  });

  add("H10 close() of a reader ends it, twice is harmless", async (
    _db,
    log,
  ) => {
    const [last] = await appendEach(log, 1);
    const reader = await log.read(last!);
    const waiting = nextOf(reader);
    reader.close();
    reader.close();
    check(
      isClosed(await rejection("next() that waits", waiting)),
      "Fails with something else",
    );
    check(
      isClosed(await rejection("next() after close()", nextOf(reader))),
      "Fails with something else after close()",
    );
    await appendEach(log, 1);
  });

  add("D13 read() beyond the last record is refused", async (_db, log) => {
    await checkThrows("read(1) of an empty log", isDiverged, () => log.read(1));
    const indexes = await appendEach(log, 2);
    const last = Math.max(indexes[1]!, await log.readIndex());
    await checkThrows("read()", isDiverged, () => log.read(last + 1));
    await checkThrows("read()", isDiverged, () => log.read(last + 1000));
    (await log.read(indexes[1]!)).close();
  });

  add("H13 read() refuses an epoch the log does not have", async (_db, log) => {
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
  });

  add("H2 readIndex() covers what was appended", async (db, log) => {
    check(await log.readIndex() === 0, "Index of an empty log is not 0");
    const other = await db.open(CLUSTER, 2n);
    for (let i = 0; i < 5; i++) {
      const first = await log.append(
        packRecords(makeRecord(2, 1), makeRecord(2, 2)),
      );
      for (const handle of [log, other]) {
        const index = await handle.readIndex();
        check(index >= first + 1, `readIndex() is ${index} after ${first + 1}`);
      }
    }
    const index = await log.readIndex();
    (await log.read(index)).close();
  });

  add("H1 isEmpty() until something was appended", async (_db, log) => {
    check(await log.isEmpty(), "A new log is not empty");
    await appendEach(log, 1);
    check(!await log.isEmpty(), "Empty after an append");
    await log.compact?.(await log.readIndex());
    check(!await log.isEmpty(), "Empty after it was compacted");
  });

  add("H11 append() refuses what is out of bounds", async (_db, log) => {
    const wrong: [string, Records][] = [
      ["an empty batch", { bytes: new Uint8Array(0), ends: [] }],
      ["too many bytes", packRecords(new Uint8Array(BATCH_BYTES_MAX + 1))],
      [
        "too many records",
        packRecords(
          ...new Array(BATCH_RECORDS_MAX + 1).fill(new Uint8Array(1)),
        ),
      ],
      ["records beyond the bytes", { bytes: new Uint8Array(3), ends: [2, 4] }],
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
    check(await log.isEmpty(), "Something was added");
    const [first] = await appendEach(log, 1);
    await refuse();
    const [second] = await appendEach(log, 1);
    checkRecords(await readAfter(log, 0, 2), [
      makeRecord(10, 0),
      makeRecord(10, 0),
    ]);
    check(second! > first!, "Indexes do not increase");
  });

  add("H7 compact() cuts, and read() says from where it goes on", async (
    _db,
    log,
  ) => {
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
    check(next! > last, `Goes on with ${next} after ${last}`);
    checkRecords(await take(reader, last, 1), [makeRecord(10, 0)]);
    reader.close();
  });

  add("H7 compact() spares what an open reader has not read", async (
    db,
    log,
  ) => {
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
  });

  add("H7 compact() is not held up by a reader that has ended", async (
    db,
    log,
  ) => {
    if (log.compact === undefined) return;
    const other = await db.open(CLUSTER, 2n);
    const indexes = await appendEach(log, 3);
    const { signal, abort } = control();
    (await log.read(0)).close();
    await log.read(0, { signal });
    abort(new Error("Enough"));
    await other.read(0);
    other.retain(0);
    await other.close();
    await log.compact(indexes[2]!);
    await checkCut(log, indexes[2]!);
  });

  add("H7 compact() spares what is retained", async (db, log) => {
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
  });

  add("D13 startAt() makes an empty log go on after an index", async (
    db,
    log,
  ) => {
    const epoch = { index: 90, id: U64_MAX };
    await log.startAt(100, epoch);
    check(await log.readIndex() === 100, "readIndex() is not the start");
    for (const [index, refused] of [[0, true], [99, true], [100, false]]) {
      if (!refused) (await log.read(index as number, { epoch })).close();
      else {
        await checkThrows(
          `read(${index})`,
          (error) => error instanceof ErrCompacted && error.firstIndex === 101,
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
    check(first! > 100, `Goes on with ${first}`);
    await found;
    check(epochs.length > 0, "There is no epoch");
    reader.close();
    (await log.read(first!, { epoch: epochs[0] })).close();
    // Somebody who has read that far and knows of no other epoch has read
    // another log: one that was set back and has grown again (U33).
    await checkThrows(
      "read() with an epoch before the last one there",
      isDiverged,
      () => log.read(first!, { epoch }),
    );
    const other = await db.open(CLUSTER + 1n, 1n);
    await other.startAt(5, undefined);
    (await other.read(5)).close();
    await checkThrows(
      "read() with an epoch where there is none",
      isDiverged,
      () => other.read(5, { epoch }),
    );
  });

  add("H9 startAt() of a log that is not empty is refused", async (
    db,
    log,
  ) => {
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
    check(second! > first! && second! < 100, `Goes on with ${second}`);
  });

  add(
    "H15 a reader that startAt() has left behind is told, and no one else",
    async (_db, log) => {
      const behind = await log.read(0);
      const waiting = nextOf(behind);
      waiting.catch(() => {});
      await log.startAt(100, undefined);
      const reader = await log.read(100);
      const found = take(reader, 100, 1);
      const [first] = await appendEach(log, 1);
      check(first! > 100, `Goes on with ${first}`);
      await found;
      const error = await rejection("next() of the one left behind", waiting);
      check(error instanceof ErrCompacted, `It is told ${error}`);
      for (const one of [behind, reader]) one.close();
    },
  );

  add(
    "H9 startAt() is refused while another replica has the log, and elsewhere than before",
    async (db, log) => {
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
      // What was cut off between here and the snapshot can be made again.
      await log.startAt(8, undefined);
      await refused(4);
      check(await log.readIndex() === 8, "It starts elsewhere");
    },
  );

  add("H11 open() twice for one replica is refused", async (db, log) => {
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
  });

  add("R5 clusters are apart", async (db, log) => {
    const other = await db.open(CLUSTER ^ U64_MAX, 1n);
    await log.append(packRecords(makeRecord(3, 1)));
    check(await other.isEmpty(), "The other one is not empty");
    check(await other.readIndex() === 0, "The other one has an index");
    await other.append(packRecords(makeRecord(3, 2)));
    checkRecords(await readAfter(log, 0, 1), [makeRecord(3, 1)]);
    checkRecords(await readAfter(other, 0, 1), [makeRecord(3, 2)]);
    await log.compact?.(await log.readIndex());
    checkRecords(await readAfter(other, 0, 1), [makeRecord(3, 2)]);
    await log.close();
    await appendEach(other, 1);
  });

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

  add("H10 close() ends what waits, and every later call", async (
    db,
    log,
  ) => {
    const [last] = await appendEach(log, 1);
    const other = await db.open(CLUSTER, 2n);
    const reader = await log.read(last!);
    const waiting = nextOf(reader);
    waiting.catch(() => {});
    const retention = log.retain(0);
    await log.close();
    check(
      isClosed(await rejection("next() that waits", waiting)),
      "next() that waits fails with something else",
    );
    check(
      isClosed(await rejection("next()", nextOf(reader))),
      "next() fails with something else",
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
  });

  add("H10 close() of the LogDB closes its logs, twice is harmless", async (
    db,
    log,
  ) => {
    const [last] = await appendEach(log, 1);
    const reader = await log.read(last!);
    const waiting = nextOf(reader);
    waiting.catch(() => {});
    await db.close();
    check(
      isClosed(await rejection("next() that waits", waiting)),
      "next() that waits fails with something else",
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
  });

  add("H12 checkpoints reach the other replicas", async (db, log) => {
    if (log.checkpoints === undefined) return;
    const other = await db.open(CLUSTER, 2n);
    const foreign = await db.open(CLUSTER + 1n, 3n);
    check(other.checkpoints !== undefined, "Only one handle has a board");
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
    check(seen.length === 2, "Told after the watching has ended");
    for (const [i, index] of [2, 3, 5].entries()) {
      const one = late[i];
      const expected = make(2n, index);
      check(
        one?.nodeID === 2n && one.index === index &&
          one.state === expected.state && one.sessions === expected.sessions,
        "Checkpoint is not what was published",
      );
    }
    check(strange.length === 0, "Another cluster is told");
    for (let i = 0; i < 2 * CHECKPOINTS_KEPT; i++) {
      other.checkpoints.publish(make(2n, 10 + i));
    }
    await until("many", () => late.at(-1)?.index === 9 + 2 * CHECKPOINTS_KEPT);
    endLate();
    const kept: Checkpoint[] = [];
    log.checkpoints.watch(1n, (one) => kept.push(one))();
    check(kept.length <= CHECKPOINTS_KEPT, `Keeps ${kept.length}`);
  });

  const { reopen } = options;
  if (reopen) {
    add("R3 a log opened again has what was committed", async (db, log) => {
      const indexes = await appendEach(log, 5);
      const epoch = await lastEpoch(log, 5);
      const started = await db.open(CLUSTER + 1n, 1n);
      const imported = { index: 90, id: 5n };
      await started.startAt(100, imported);
      await log.compact?.(indexes[1]!);
      await db.close();
      const again = await reopen(db);
      try {
        const log = await again.open(CLUSTER, 1n);
        check(!await log.isEmpty(), "It is empty");
        check(await log.readIndex() >= indexes[4]!, "It lost its tail");
        checkRecords(
          await readAfter(log, indexes[1]!, 3),
          [2, 3, 4].map((i) => makeRecord(10, i)),
        );
        (await log.read(indexes[4]!, { epoch })).close();
        const [next] = await appendEach(log, 1);
        check(next! > indexes[4]!, `Goes on with ${next}`);
        (await log.read(indexes[4]!, { epoch })).close();
        if (log.compact) await checkCut(log, indexes[1]!);
        const started = await again.open(CLUSTER + 1n, 1n);
        (await started.read(100, { epoch: imported })).close();
        await checkThrows(
          "read() with another epoch",
          isDiverged,
          () => started.read(100, { epoch }),
        );
      } finally {
        await again.close();
      }
    });
  }

  return cases;
}

function control(): { signal: AbortSignal; abort(reason: unknown): void } {
  const controller = new AbortController();
  return {
    signal: controller.signal,
    abort: (reason) => controller.abort(reason),
  };
}

/** Whether a log that was cut up to `upTo` says so; it may have kept a little more, but not all. */
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
