/**
 * Conformance suite of {@linkcode SnapshotStore}.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  ErrSnapshotCorrupted,
  ErrSnapshotNotFound,
} from "../snapshot/errors.ts";
import type {
  SnapshotHeader,
  SnapshotInfo,
  SnapshotStore,
} from "../snapshot/store.ts";
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

/** Options of {@linkcode snapshotStoreConformance}. */
export interface SnapshotStoreConformanceOptions {
  /** Creates an empty store. */
  create(): MaybePromise<SnapshotStore>;
  /** Opens the data that `store`, which is closed, left behind; only for durable ports. */
  reopen?: ((store: SnapshotStore) => MaybePromise<SnapshotStore>) | undefined;
  /** Damages the stored bytes of a snapshot of `store`, which is closed, so that a store detects it without decoding the container: truncates them, for example. */
  damage?:
    | ((store: SnapshotStore, info: SnapshotInfo) => MaybePromise<void>)
    | undefined;
}

const CLUSTER = 7n;

function makeHeader(part: Partial<SnapshotHeader> = {}): SnapshotHeader {
  return {
    clusterID: CLUSTER,
    nodeID: 1n,
    type: 1,
    kind: "full",
    index: 10,
    compression: "none",
    ...part,
  };
}

async function makeSnapshot(
  store: SnapshotStore,
  header: SnapshotHeader,
  chunks: readonly Uint8Array[],
  imported = false,
): Promise<SnapshotInfo> {
  const sink = await store.create(header, { imported });
  const writer = sink.writable.getWriter();
  for (const chunk of chunks) await writer.write(chunk);
  await writer.close();
  return await sink.commit({ files: chunks.length });
}

async function readAll(
  stream: ReadableStream<Uint8Array>,
): Promise<Uint8Array> {
  return new Uint8Array(
    await new Response(stream as ReadableStream<Uint8Array<ArrayBuffer>>)
      .arrayBuffer(),
  );
}

function checkBytes(actual: Uint8Array, expected: Uint8Array): void {
  check(
    actual.length === expected.length &&
      actual.every((byte, i) => byte === expected[i]),
    `Read ${actual.length} bytes that are not the ${expected.length} written`,
  );
}

function checkHeader(info: SnapshotInfo, header: SnapshotHeader): void {
  for (
    const key of [
      "clusterID",
      "nodeID",
      "type",
      "kind",
      "index",
      "compression",
    ] as const
  ) check(info[key] === header[key], `${key} of the snapshot is ${info[key]}`);
  check(
    info.epoch?.index === header.epoch?.index &&
      info.epoch?.id === header.epoch?.id,
    "Epoch of the snapshot differs",
  );
}

/** Case of the suite. */
type SnapshotStoreCase = CaseDefinition<
  PortContext<SnapshotStore> & {
    readonly options: SnapshotStoreConformanceOptions;
  }
>;

const CASES: readonly SnapshotStoreCase[] = [
  {
    rule: "H7",
    name: "open() streams the bytes, and list() returns the header",
    async run({ port: store }): Promise<void> {
      const header = makeHeader({
        nodeID: (1n << 64n) - 1n,
        type: 3,
        index: Number.MAX_SAFE_INTEGER,
        epoch: { index: 3, id: (1n << 64n) - 2n },
        compression: "gzip",
      });
      const bytes = makeBytes(200_000, 1);
      const info = await makeSnapshot(store, header, [
        bytes.subarray(0, 1),
        bytes.subarray(1, 1),
        bytes.subarray(1, 70_000),
        bytes.subarray(70_000),
      ]);
      const [listed, ...others] = await store.list(CLUSTER);
      check(
        listed && others.length === 0,
        "list() does not return one snapshot",
      );
      for (const one of [info, listed]) {
        checkHeader(one, header);
        check(one.size === bytes.length, `Size is ${one.size}`);
        check(one.files === 4, `Files are ${one.files}`);
        check(one.imported === false, "Snapshot is listed as imported");
        check(one.id === info.id, "Snapshot has another id");
        checkBytes(await readAll(await store.open(one)), bytes);
      }
    },
  },
  {
    rule: "H7",
    name: "open() streams an empty container",
    async run({ port: store }): Promise<void> {
      const info = await makeSnapshot(store, makeHeader(), []);
      check(info.size === 0, `Size is ${info.size}`);
      checkBytes(await readAll(await store.open(info)), new Uint8Array());
    },
  },
  {
    rule: "H9",
    name: "list() reports imported snapshots",
    async run({ port: store }): Promise<void> {
      await makeSnapshot(store, makeHeader(), [], true);
      const [info] = await store.list(CLUSTER);
      check(
        info?.imported === true,
        "Imported snapshot is not listed as imported",
      );
    },
  },
  {
    rule: "H7",
    name: "list() omits a snapshot until commit()",
    async run({ port: store }): Promise<void> {
      const sink = await store.create(makeHeader());
      const writer = sink.writable.getWriter();
      await writer.write(makeBytes(10, 1));
      check(
        !(await store.list(CLUSTER)).length,
        "Snapshot is listed while it is written",
      );
      await checkThrows(
        "commit() before the end",
        (error) => error instanceof Error,
        () => sink.commit({ files: 0 }),
      );
      check(
        !(await store.list(CLUSTER)).length,
        "Snapshot is listed before its stream is closed",
      );
      await writer.close();
      check(
        !(await store.list(CLUSTER)).length,
        "Snapshot is listed before commit()",
      );
      await sink.commit({ files: 0 });
      check(
        (await store.list(CLUSTER)).length === 1,
        "Snapshot is not listed after commit()",
      );
    },
  },
  {
    rule: "H7",
    name: "abort() removes the snapshot and fails the stream",
    async run({ port: store }): Promise<void> {
      const kept = await makeSnapshot(store, makeHeader({ index: 1 }), []);
      for (const closed of [false, true]) {
        const sink = await store.create(makeHeader());
        const writer = sink.writable.getWriter();
        await writer.write(makeBytes(10, 1));
        if (closed) await writer.close();
        await sink.abort(new Error("Aborted"));
        await sink.abort();
        if (!closed) {
          await checkThrows(
            "write() after abort()",
            (error) => error instanceof Error,
            () => writer.write(makeBytes(10, 1)),
          );
        }
        await checkThrows(
          "commit() after abort()",
          (error) => error instanceof Error,
          () => sink.commit({ files: 0 }),
        );
      }
      const infos = await store.list(CLUSTER);
      check(
        infos.length === 1 && infos[0]?.id === kept.id,
        "Aborted snapshot is listed",
      );
    },
  },
  {
    rule: "H7",
    name: "abort() after commit() does nothing",
    async run({ port: store }): Promise<void> {
      const sink = await store.create(makeHeader());
      const bytes = makeBytes(100, 1);
      const writer = sink.writable.getWriter();
      await writer.write(bytes);
      await writer.close();
      const info = await sink.commit({ files: 0 });
      await sink.abort();
      checkBytes(await readAll(await store.open(info)), bytes);
    },
  },
  {
    rule: "H7",
    name: "list() is sorted by descending index, full before metadata",
    async run({ port: store }): Promise<void> {
      for (
        const [index, kind, nodeID] of [
          [20, "metadata", 1n],
          [10, "full", 1n],
          [30, "full", 1n],
          [20, "full", 1n],
          [20, "metadata", 2n],
          [9, "metadata", 1n],
        ] as const
      ) await makeSnapshot(store, makeHeader({ index, kind, nodeID }), []);
      const order = (await store.list(CLUSTER))
        .map(({ index, kind, nodeID }) => `${index} ${kind} ${nodeID}`)
        .join(", ");
      const expected =
        "30 full 1, 20 full 1, 20 metadata 2, 20 metadata 1, 10 full 1, 9 metadata 1";
      check(order === expected, `Order is ${order}`);
    },
  },
  {
    rule: "H7",
    name: "list() returns the snapshots of one cluster",
    async run({ port: store }): Promise<void> {
      const big = (1n << 64n) - 1n;
      await makeSnapshot(store, makeHeader(), []);
      await makeSnapshot(store, makeHeader({ clusterID: big, index: 20 }), []);
      const [one, ...others] = await store.list(big);
      check(
        one?.index === 20 && !others.length,
        "list() returned snapshots of another cluster",
      );
      check(
        !(await store.list(0n)).length,
        "list() returned snapshots of an unknown cluster",
      );
    },
  },
  {
    rule: "H8",
    name: "commit() replaces the snapshot of the same index and kind",
    async run({ port: store }): Promise<void> {
      const bytes = makeBytes(1000, 2);
      for (const kind of ["full", "metadata"] as const) {
        const header = makeHeader({ kind });
        const old = await makeSnapshot(store, header, [makeBytes(1000, 1)]);
        const before = await store.open(old);
        const info = await makeSnapshot(store, header, [bytes]);
        const infos = (await store.list(CLUSTER))
          .filter((one) => one.kind === kind);
        check(
          infos.length === 1 && infos[0]?.id === info.id,
          "Replaced snapshot is still listed",
        );
        checkBytes(await readAll(await store.open(info)), bytes);
        checkBytes(await readAll(before), makeBytes(1000, 1));
        // Its info must not lead to the new one.
        if (old.id !== info.id) {
          await checkThrows(
            "open() of the old one",
            (error) => error instanceof ErrSnapshotNotFound,
            () => store.open(old),
          );
        }
      }
      const other = makeHeader({ nodeID: 2n });
      await makeSnapshot(store, other, [bytes]);
      await makeSnapshot(store, { ...other, kind: "metadata" }, [bytes]);
      const infos = await store.list(CLUSTER);
      const full = infos.filter(({ kind }) => kind === "full");
      check(
        full.length === 1 && full[0]?.nodeID === 2n,
        "Full snapshots of two replicas at one index are kept",
      );
      check(infos.length === 3, "Metadata of another replica was replaced");
    },
  },
  {
    rule: "H7",
    name: "concurrent sinks are independent",
    async run({ port: store }): Promise<void> {
      const sinks = await Promise.all(
        [1, 2].map((index) => store.create(makeHeader({ index }))),
      );
      const writers = sinks.map(({ writable }) => writable.getWriter());
      for (let i = 0; i < 20; i++) {
        await Promise.all(
          writers.map((writer, j) => writer.write(makeBytes(5000, j))),
        );
      }
      for (const [j, sink] of sinks.entries()) {
        await writers[j]?.close();
        const info = await sink.commit({ files: 0 });
        const bytes = await readAll(await store.open(info));
        check(bytes.length === 100_000, `Size is ${bytes.length}`);
        checkBytes(bytes.subarray(95_000), makeBytes(5000, j));
      }
    },
  },
  {
    rule: "H7",
    name: "the stream retains no chunk",
    async run({ port: store }): Promise<void> {
      const sink = await store.create(makeHeader());
      const writer = sink.writable.getWriter();
      const chunk = makeBytes(1000, 1);
      await writer.write(chunk);
      chunk.fill(0xff);
      await writer.close();
      const info = await sink.commit({ files: 0 });
      const reader = (await store.open(info)).getReader();
      const parts: number[] = [];
      for (let read; !(read = await reader.read()).done;) {
        parts.push(...read.value);
        read.value.fill(0xff);
      }
      checkBytes(new Uint8Array(parts), makeBytes(1000, 1));
      checkBytes(await readAll(await store.open(info)), makeBytes(1000, 1));
    },
  },
  {
    rule: "H7",
    name: "remove() is idempotent, and spares open streams",
    async run({ port: store }): Promise<void> {
      const bytes = makeBytes(300_000, 1);
      const chunks = [0, 1, 2].map((i) =>
        bytes.subarray(i * 100_000, (i + 1) * 100_000)
      );
      const info = await makeSnapshot(store, makeHeader(), chunks);
      const stays = await makeSnapshot(store, makeHeader({ index: 2 }), chunks);
      const fresh = await store.open(info);
      const begun = (await store.open(info)).getReader();
      const parts = [(await begun.read()).value as Uint8Array];
      await store.remove(info);
      await store.remove(info);
      const infos = await store.list(CLUSTER);
      check(
        infos.length === 1 && infos[0]?.id === stays.id,
        "list() is wrong after remove()",
      );
      await checkThrows(
        "open() of what was removed",
        (error) => error instanceof ErrSnapshotNotFound && error.id === info.id,
        () => store.open(info),
      );
      for (let read; !(read = await begun.read()).done;) parts.push(read.value);
      checkBytes(
        new Uint8Array(
          await new Blob(parts as Uint8Array<ArrayBuffer>[]).arrayBuffer(),
        ),
        bytes,
      );
      checkBytes(await readAll(fresh), bytes);
    },
  },
  {
    rule: "H7",
    name: "a stream of open() can be canceled",
    async run({ port: store }): Promise<void> {
      const info = await makeSnapshot(store, makeHeader(), [
        makeBytes(100_000, 1),
      ]);
      await (await store.open(info)).cancel();
      const reader = (await store.open(info)).getReader();
      await reader.read();
      await reader.cancel(new Error("Canceled"));
      checkBytes(await readAll(await store.open(info)), makeBytes(100_000, 1));
    },
  },
  {
    rule: "H10",
    name: "close() is idempotent, and later calls fail",
    async run({ port: store }): Promise<void> {
      const info = await makeSnapshot(store, makeHeader(), []);
      const sink = await store.create(makeHeader({ index: 11 }));
      await sink.writable.close();
      await store.close();
      await store.close();
      await store[Symbol.asyncDispose]();
      for (
        const [what, body] of [
          ["create()", () => store.create(makeHeader())],
          ["commit()", () => sink.commit({ files: 0 })],
          ["list()", () => store.list(CLUSTER)],
          ["open()", () => store.open(info)],
          ["remove()", () => store.remove(info)],
        ] as const
      ) {
        await checkThrows(
          `${what} after close()`,
          (error) => error instanceof Error && /closed/.test(error.message),
          body,
        );
      }
      await sink.abort();
    },
  },
  {
    rule: "H8",
    name: "a damaged snapshot fails when opened, and hides no other",
    needs: ["reopen", "damage"],
    async run({ port: store, reopen, options }): Promise<void> {
      const bytes = makeBytes(100_000, 1);
      const header = makeHeader({ index: 20, epoch: { index: 4, id: 5n } });
      const older = await makeSnapshot(store, makeHeader(), [bytes]);
      const damaged = await makeSnapshot(store, header, [bytes], true);
      const other = makeHeader({ clusterID: 8n });
      await makeSnapshot(store, other, [bytes]);
      const again = await reopen((closed) => options.damage!(closed, damaged));
      const [first, second, ...others] = await again.list(CLUSTER);
      check(
        first?.id === damaged.id && second?.id === older.id &&
          !others.length,
        "list() returns other snapshots",
      );
      checkHeader(first, header);
      check(first.imported, "Imported snapshot is not listed as imported");
      await checkThrows(
        "open() of the damaged one",
        (error) => error instanceof ErrSnapshotCorrupted,
        async () => readAll(await again.open(first)),
      );
      const [elsewhere] = await again.list(8n);
      for (const good of [second, elsewhere]) {
        check(good, "Snapshot of the other cluster is missing");
        checkBytes(await readAll(await again.open(good)), bytes);
      }
      const info = await makeSnapshot(again, header, [bytes]);
      check(
        (await again.list(CLUSTER)).length === 2,
        "Replaced snapshot is still listed",
      );
      checkBytes(await readAll(await again.open(info)), bytes);
      await again.remove(info);
      check(
        (await again.list(CLUSTER)).length === 1,
        "Removed snapshot is still listed",
      );
    },
  },
  {
    rule: "H8",
    name: "a damaged snapshot can be removed",
    needs: ["reopen", "damage"],
    async run({ port: store, reopen, options }): Promise<void> {
      const info = await makeSnapshot(store, makeHeader(), []);
      const bytes = [makeBytes(100_000, 1)];
      const damaged = await makeSnapshot(
        store,
        makeHeader({ index: 20 }),
        bytes,
      );
      const again = await reopen((closed) => options.damage!(closed, damaged));
      const [first] = await again.list(CLUSTER);
      check(first, "list() returns no snapshot");
      await again.remove(first);
      const [left] = await (await reopen()).list(CLUSTER);
      check(left?.id === info.id, `Snapshot ${left?.id} was not removed`);
    },
  },
  {
    rule: "R3",
    name: "a reopened store has the committed snapshots, and no others",
    needs: ["reopen"],
    async run({ port: store, reopen }): Promise<void> {
      const bytes = makeBytes(200_000, 1);
      const header = makeHeader({ epoch: { index: 4, id: 5n } });
      const info = await makeSnapshot(store, header, [bytes]);
      const sink = await store.create(makeHeader({ index: 20 }));
      const writer = sink.writable.getWriter();
      await writer.write(bytes);
      await writer.close();
      const again = await reopen();
      const [listed, ...others] = await again.list(CLUSTER);
      check(
        listed && !others.length,
        "list() does not return the committed snapshot only",
      );
      check(listed.id === info.id, "Snapshot has another id");
      check(listed.size === bytes.length, `Size is ${listed.size}`);
      checkHeader(listed, header);
      checkBytes(await readAll(await again.open(listed)), bytes);
    },
  },
];

/** Cases that every {@linkcode SnapshotStore} must pass, for any test runner. */
export function snapshotStoreConformance(
  options: SnapshotStoreConformanceOptions,
): readonly ConformanceCase[] {
  return conformanceCases(CASES, options);
}
