import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertThrows,
} from "@std/assert";
import {
  ErrSnapshotCorrupted,
  ErrSnapshotNotFound,
  openSnapshot,
  type SnapshotHeader,
  type SnapshotInfo,
  SnapshotWriter,
  verifySnapshot,
} from "../../src/snapshot/mod.ts";
import { ErrStoreLocked, FileSnapshotStore } from "../../src/sqlite/mod.ts";
import { makeDirectory } from "../support/directory.ts";

const header: SnapshotHeader = {
  clusterID: 1n,
  nodeID: 2n,
  type: 1,
  kind: "full",
  index: 300,
  compression: "none",
};

async function save(
  store: FileSnapshotStore,
  part: Partial<SnapshotHeader> = {},
  payload: Uint8Array<ArrayBuffer> = new Uint8Array(200_000).fill(7),
): Promise<SnapshotInfo> {
  const of = { ...header, ...part };
  const sink = store.create(of);
  const writer = new SnapshotWriter(sink.writable, of, new Uint8Array());
  await new Blob([payload]).stream().pipeTo(writer.payload);
  return await sink.commit(await writer.finish());
}

function names(directory: string): string[] {
  return [...Deno.readDirSync(directory)].map(({ name }) => name).sort();
}

async function verify(
  store: FileSnapshotStore,
  info: SnapshotInfo,
): Promise<unknown> {
  try {
    await store.open(info).pipeThrough(verifySnapshot().transform)
      .pipeTo(new WritableStream());
    return undefined;
  } catch (error) {
    return error;
  }
}

Deno.test("H7 FileSnapshotStore removes only files that a crash left unfinished", async () => {
  using directory = makeDirectory();
  const path = directory.path("snapshots");
  {
    await using store = new FileSnapshotStore(path);
    await save(store);
    // The process ends while two are written, one of them to its end.
    await store.create(header).writable.getWriter().write(new Uint8Array(9));
    await store.create(header).writable.close();
    const left = names(path).filter((name) => name.endsWith(".tmp"));
    assertEquals(left.length, 2);
    for (const name of left) {
      Deno.copyFileSync(`${path}/${name}`, `${path}/copy-${name}`);
    }
    Deno.writeTextFileSync(`${path}/notes.txt`, "Notes of another program");
  }
  assertEquals(names(path).filter((name) => name.endsWith(".tmp")).length, 2);
  await using store = new FileSnapshotStore(path);
  assertEquals(store.list(1n).length, 1);
  assertEquals(names(path).filter((name) => name.endsWith(".tmp")), []);
  assertEquals(names(path).filter((name) => name.endsWith(".txt")).length, 1);
});

Deno.test("H7 FileSnapshotStore keeps the newer of two equal snapshots that a crash left", async () => {
  using directory = makeDirectory();
  const path = directory.path("snapshots");
  let kept: SnapshotInfo;
  {
    await using store = new FileSnapshotStore(path);
    await save(store, { index: 10 });
    const [old] = names(path).filter((name) => name.endsWith(".snapshot"));
    const bytes = Deno.readFileSync(`${path}/${old}`);
    kept = await save(store, { index: 10, nodeID: 5n });
    Deno.writeFileSync(`${path}/${old}`, bytes);
  }
  await using store = new FileSnapshotStore(path);
  assertEquals(store.list(1n), [kept]);
  assertEquals(await verify(store, kept), undefined);
  assertEquals(
    names(path).filter((name) => name.endsWith(".snapshot")).length,
    1,
  );
});

Deno.test("H8 FileSnapshotStore detects a damaged, truncated or missing file", async () => {
  using directory = makeDirectory();
  await using store = new FileSnapshotStore(directory.path("."));
  const info = await save(store);
  const file = directory.path(`${info.id}.snapshot`);
  const good = Deno.readFileSync(file);
  assertEquals(good.length, info.size);
  for (const at of [0, 30, 70_000, good.length - 1]) {
    const damaged = good.slice();
    damaged[at]! ^= 4;
    Deno.writeFileSync(file, damaged);
    assertInstanceOf(await verify(store, info), ErrSnapshotCorrupted, `${at}`);
  }
  for (const length of [0, 100, good.length - 1]) {
    Deno.writeFileSync(file, good.subarray(0, length));
    const error = await verify(store, info);
    assertInstanceOf(error, ErrSnapshotCorrupted);
    assert(error.message.includes(info.id), error.message);
    assertEquals(error.offset, length);
  }
  Deno.removeSync(file);
  const error = await verify(store, info);
  assertInstanceOf(error, ErrSnapshotNotFound);
  assertEquals(error.id, info.id);
});

Deno.test("H11 a second FileSnapshotStore on the same directory is locked out", async () => {
  using directory = makeDirectory();
  const path = directory.path("snapshots");
  const store = new FileSnapshotStore(path);
  await save(store);
  await using second = new FileSnapshotStore(path);
  assertThrows(() => second.list(1n), ErrStoreLocked, path);
  assertThrows(() => second.create(header), ErrStoreLocked, path);
  await store.close();
  assertEquals(second.list(1n).length, 1);
});

Deno.test("H7 FileSnapshotStore lists snapshots from the names of their files", async () => {
  using directory = makeDirectory();
  const path = directory.path("snapshots");
  const max = (1n << 64n) - 1n;
  const parts: Partial<SnapshotHeader>[] = [
    {},
    { clusterID: 0n, nodeID: max, index: 0, kind: "metadata" },
    {
      clusterID: max,
      index: Number.MAX_SAFE_INTEGER,
      compression: "deflate-raw",
      type: 3,
      epoch: { index: Number.MAX_SAFE_INTEGER, id: max },
    },
    { index: 7, epoch: { index: 0, id: 0n }, compression: "gzip", type: 2 },
  ];
  const infos: SnapshotInfo[] = [];
  {
    await using store = new FileSnapshotStore(path);
    for (const part of parts) infos.push(await save(store, part));
  }
  await using store = new FileSnapshotStore(path);
  for (const [i, info] of infos.entries()) {
    const of = { ...header, ...parts[i] };
    const found = store.list(of.clusterID).find(({ id }) => id === info.id);
    assertEquals(found, info);
    assertEquals({ ...info, ...of }, info);
    const reader = await openSnapshot(store.open(info));
    assertEquals({ epoch: undefined, ...of }, reader.header);
    await reader.cancel();
  }
  assertThrows(() => {
    const sink = store.create({ ...header, index: -1 });
    return sink.commit({ files: 0 });
  }, Error);
});

Deno.test("H7 FileSnapshotStore drops a snapshot whose file cannot be written", async () => {
  using directory = makeDirectory();
  await using store = new FileSnapshotStore(directory.path("."));
  const sink = store.create(header);
  const writer = sink.writable.getWriter();
  await writer.write(new Uint8Array(10));
  await writer.abort(new Error("abort() was called"));
  await assertRejects(async () => await sink.commit({ files: 0 }), Error);
  assertEquals(names(directory.path(".")), ["lock"]);
});
