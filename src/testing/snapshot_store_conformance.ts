/**
 * What every {@linkcode SnapshotStore} must do, as cases that run anywhere.
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
  caseOf,
  check,
  checkThrows,
  type ConformanceCase,
  makeBytes,
} from "./conformance.ts";

/** What {@linkcode snapshotStoreConformance} is given. */
export interface SnapshotStoreConformanceOptions {
  /** Makes an empty store. */
  create(): MaybePromise<SnapshotStore>;
  /** Opens what `store`, closed by now, has left behind; for stores that keep something. */
  reopen?: ((store: SnapshotStore) => MaybePromise<SnapshotStore>) | undefined;
  /** Damages what `store`, closed by now, has kept of a snapshot, so that a store can tell that knows nothing of containers; say, cuts it off. */
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
    "Mark of the snapshot is another one",
  );
}

/** The cases every snapshot store must pass; each makes its own store and closes it. */
export function snapshotStoreConformance(
  options: SnapshotStoreConformanceOptions,
): readonly ConformanceCase[] {
  const cases: ConformanceCase[] = [];
  const add = (
    name: string,
    body: (store: SnapshotStore) => Promise<void>,
  ): void => void cases.push(caseOf(name, options, body));

  add("H7 open() gives the bytes and list() the header", async (store) => {
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
    check(listed && others.length === 0, "There is not one snapshot");
    for (const one of [info, listed]) {
      checkHeader(one, header);
      check(one.size === bytes.length, `Size is ${one.size}`);
      check(one.files === 4, `Files are ${one.files}`);
      check(one.imported === false, "Says that it is imported");
      check(one.id === info.id, "Id is another one");
      checkBytes(await readAll(await store.open(one)), bytes);
    }
  });

  add("H7 open() gives an empty container", async (store) => {
    const info = await makeSnapshot(store, makeHeader(), []);
    check(info.size === 0, `Size is ${info.size}`);
    checkBytes(await readAll(await store.open(info)), new Uint8Array());
  });

  add("H9 list() tells a snapshot that was imported", async (store) => {
    await makeSnapshot(store, makeHeader(), [], true);
    const [info] = await store.list(CLUSTER);
    check(info?.imported === true, "Does not say that it is imported");
  });

  add("H7 list() shows nothing before commit()", async (store) => {
    const sink = await store.create(makeHeader());
    const writer = sink.writable.getWriter();
    await writer.write(makeBytes(10, 1));
    check(!(await store.list(CLUSTER)).length, "Shown while it is written");
    await checkThrows(
      "commit() before the end",
      (error) => error instanceof Error,
      () => sink.commit({ files: 0 }),
    );
    check(!(await store.list(CLUSTER)).length, "Shown before the end");
    await writer.close();
    check(!(await store.list(CLUSTER)).length, "Shown before commit()");
    await sink.commit({ files: 0 });
    check((await store.list(CLUSTER)).length === 1, "Not shown after commit()");
  });

  add("H7 abort() leaves nothing and fails the stream", async (store) => {
    const kept = await makeSnapshot(store, makeHeader({ index: 1 }), []);
    for (const closed of [false, true]) {
      const sink = await store.create(makeHeader());
      const writer = sink.writable.getWriter();
      await writer.write(makeBytes(10, 1));
      if (closed) await writer.close();
      await sink.abort(new Error("Not wanted"));
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
      "Something is there that was aborted",
    );
  });

  add("H7 abort() after commit() is harmless", async (store) => {
    const sink = await store.create(makeHeader());
    const bytes = makeBytes(100, 1);
    const writer = sink.writable.getWriter();
    await writer.write(bytes);
    await writer.close();
    const info = await sink.commit({ files: 0 });
    await sink.abort();
    checkBytes(await readAll(await store.open(info)), bytes);
  });

  add(
    "H7 list() has the highest index first, full before metadata",
    async (store) => {
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
  );

  add("H7 list() keeps clusters apart", async (store) => {
    const big = (1n << 64n) - 1n;
    await makeSnapshot(store, makeHeader(), []);
    await makeSnapshot(store, makeHeader({ clusterID: big, index: 20 }), []);
    const [one, ...others] = await store.list(big);
    check(one?.index === 20 && !others.length, "Mixes up clusters");
    check(!(await store.list(0n)).length, "Has snapshots of no cluster");
  });

  add("H8 commit() replaces the snapshot that says the same", async (store) => {
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
        "The old one is still there",
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
  });

  add("H7 two sinks at once do not mix", async (store) => {
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
  });

  add("H7 the stream keeps no reference to a chunk", async (store) => {
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
  });

  add(
    "H7 remove() is final, harmless twice, and spares open streams",
    async (store) => {
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
  );

  add("H7 open() gives a stream that can be given up", async (store) => {
    const info = await makeSnapshot(store, makeHeader(), [
      makeBytes(100_000, 1),
    ]);
    await (await store.open(info)).cancel();
    const reader = (await store.open(info)).getReader();
    await reader.read();
    await reader.cancel(new Error("Enough"));
    checkBytes(await readAll(await store.open(info)), makeBytes(100_000, 1));
  });

  add(
    "H10 close() twice is harmless, everything else fails after it",
    async (store) => {
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
  );

  const { reopen, damage } = options;
  if (reopen && damage) {
    add(
      "H8 a damaged snapshot says so when it is opened, and hides no other",
      async (store) => {
        const bytes = makeBytes(100_000, 1);
        const header = makeHeader({ index: 20, epoch: { index: 4, id: 5n } });
        const older = await makeSnapshot(store, makeHeader(), [bytes]);
        const damaged = await makeSnapshot(store, header, [bytes], true);
        const other = makeHeader({ clusterID: 8n });
        await makeSnapshot(store, other, [bytes]);
        await store.close();
        await damage(store, damaged);
        const again = await reopen(store);
        try {
          const [first, second, ...others] = await again.list(CLUSTER);
          check(
            first?.id === damaged.id && second?.id === older.id &&
              !others.length,
            "Not the same snapshots are there",
          );
          checkHeader(first, header);
          check(first.imported, "Does not say that it is imported");
          await checkThrows(
            "open() of the damaged one",
            (error) => error instanceof ErrSnapshotCorrupted,
            async () => readAll(await again.open(first)),
          );
          const [elsewhere] = await again.list(8n);
          for (const good of [second, elsewhere]) {
            check(good, "The other cluster's snapshot is gone");
            checkBytes(await readAll(await again.open(good)), bytes);
          }
          const info = await makeSnapshot(again, header, [bytes]);
          check((await again.list(CLUSTER)).length === 2, "It is there twice");
          checkBytes(await readAll(await again.open(info)), bytes);
          await again.remove(info);
          check((await again.list(CLUSTER)).length === 1, "It is still there");
        } finally {
          await again.close();
        }
      },
    );
    add("H8 a damaged snapshot can be removed", async (store) => {
      const info = await makeSnapshot(store, makeHeader(), []);
      const bytes = [makeBytes(100_000, 1)];
      const damaged = await makeSnapshot(
        store,
        makeHeader({ index: 20 }),
        bytes,
      );
      await store.close();
      await damage(store, damaged);
      let again = await reopen(store);
      for (let life = 0; life < 2; life++) {
        const [first] = await again.list(CLUSTER);
        check(first, "All snapshots are gone");
        if (life === 0) await again.remove(first);
        else check(first.id === info.id, "It is still there");
        await again.close();
        if (life === 0) again = await reopen(again);
      }
    });
  }

  if (reopen) {
    add(
      "R3 a store opened again has what was committed, and nothing else",
      async (store) => {
        const bytes = makeBytes(200_000, 1);
        const header = makeHeader({ epoch: { index: 4, id: 5n } });
        const info = await makeSnapshot(store, header, [bytes]);
        const sink = await store.create(makeHeader({ index: 20 }));
        const writer = sink.writable.getWriter();
        await writer.write(bytes);
        await writer.close();
        await store.close();
        const again = await reopen(store);
        try {
          const [listed, ...others] = await again.list(CLUSTER);
          check(
            listed && !others.length,
            "Not just the committed one is there",
          );
          check(listed.id === info.id, "Id is another one");
          check(listed.size === bytes.length, `Size is ${listed.size}`);
          checkHeader(listed, header);
          checkBytes(await readAll(await again.open(listed)), bytes);
        } finally {
          await again.close();
        }
      },
    );
  }

  return cases;
}
