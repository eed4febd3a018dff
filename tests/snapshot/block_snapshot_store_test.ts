import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
} from "@std/assert";
import {
  ErrUnknownOutcome,
  type HostEvent,
  kv,
  KVStateMachine,
  NodeHost,
  type Replica,
} from "../../mod.ts";
import { SNAPSHOT_CHUNK_BYTES } from "../../src/limits.ts";
import { BlockLogDB } from "../../src/log/block_log.ts";
import { BlockSnapshotStore } from "../../src/snapshot/block_snapshot_store.ts";
import {
  ErrSnapshotCorrupted,
  ErrSnapshotNotFound,
} from "../../src/snapshot/mod.ts";
import type {
  SnapshotHeader,
  SnapshotInfo,
  SnapshotStore,
} from "../../src/snapshot/mod.ts";
import {
  type Changes,
  type Durability,
  ErrStoreCorrupted,
  ErrStoreFull,
  MemoryBlockStore,
} from "../../src/store/mod.ts";
import { FaultyBlockStore } from "../../src/testing/faulty_block_store.ts";
import { snapshotStoreConformance } from "../../src/testing/snapshot_store_conformance.ts";

const under = new WeakMap<SnapshotStore, MemoryBlockStore>();

function snapshotsOver(store: MemoryBlockStore): BlockSnapshotStore {
  const snapshots = new BlockSnapshotStore(store);
  under.set(snapshots, store);
  return snapshots;
}

/** Names of the blocks of a snapshot, and of its metadata block. */
function keysOf(
  blocks: MemoryBlockStore,
  { id }: SnapshotInfo,
): { data: string[]; description: string } {
  const of = (folder: string): string[] =>
    blocks.keys(`snapshot/${folder}/${id}/`, `snapshot/${folder}/${id}0`);
  return { data: of("data"), description: of("info")[0]! };
}

/** Kinds of damage to a snapshot's blocks. */
const DAMAGES: Record<
  string,
  (blocks: MemoryBlockStore, info: SnapshotInfo) => void
> = {
  "its description damaged": (blocks, info) => {
    const { description: key } = keysOf(blocks, info);
    const bytes = blocks.get([key])[0]!.slice();
    bytes[0]! ^= 1;
    blocks.write({ put: [{ key, bytes }] }, "relaxed");
  },
  "its description cut off": (blocks, info) => {
    const { description: key } = keysOf(blocks, info);
    blocks.write({ put: [{ key, bytes: new Uint8Array() }] }, "relaxed");
  },
  "its last block missing": (blocks, info) => {
    const { data } = keysOf(blocks, info);
    blocks.write({ delete: data.slice(-1) }, "relaxed");
  },
  "its last block cut off": (blocks, info) => {
    const key = keysOf(blocks, info).data.at(-1)!;
    blocks.write({ put: [{ key, bytes: new Uint8Array(9) }] }, "relaxed");
  },
};

for (const [what, damage] of Object.entries(DAMAGES)) {
  for (
    const { name, run } of snapshotStoreConformance({
      create: () => snapshotsOver(new MemoryBlockStore()),
      reopen: (store) => snapshotsOver(under.get(store)!),
      damage: (store, info) => damage(under.get(store)!, info),
    })
  ) {
    // The others are the same whatever is damaged.
    const isFirst = what === Object.keys(DAMAGES)[0];
    if (/damaged/.test(name)) {
      Deno.test(`BlockSnapshotStore: ${name}: ${what}`, run);
    } else if (isFirst) Deno.test(`BlockSnapshotStore: ${name}`, run);
  }
}

const header: SnapshotHeader = {
  clusterID: 7n,
  nodeID: 1n,
  type: 3,
  kind: "full",
  index: 10,
  compression: "none",
};

/** Store in memory that records the durability of each write and fails the chosen one. */
class WatchedStore extends MemoryBlockStore {
  readonly writes: [Changes, Durability][] = [];
  failing = 0;

  override write(changes: Changes, durability: Durability): void {
    if (--this.failing === 0) throw new ErrStoreFull("ENOSPC: no space left");
    this.writes.push([changes, durability]);
    super.write(changes, durability);
  }

  get all(): string[] {
    return this.keys("", "~");
  }
}

async function save(
  store: SnapshotStore,
  size: number,
  part: Partial<SnapshotHeader> = {},
): Promise<SnapshotInfo> {
  const sink = await store.create({ ...header, ...part });
  try {
    await new Blob([new Uint8Array(size).fill(7)]).stream().pipeTo(
      sink.writable,
    );
    return await sink.commit({ files: 0 });
  } catch (error) {
    await sink.abort(error);
    throw error;
  }
}

async function sizeOf(stream: ReadableStream<Uint8Array>): Promise<number> {
  let size = 0;
  for await (const chunk of stream) size += chunk.length;
  return size;
}

Deno.test("H7 BlockSnapshotStore writes blocks of bounded size, and the last step strictly", async () => {
  const blocks = new WatchedStore();
  const store = new BlockSnapshotStore(blocks);
  const size = SNAPSHOT_CHUNK_BYTES * 2 + 1;
  const info = await save(store, size);
  assertEquals(info.size, size);
  assertEquals(blocks.writes.map(([, durability]) => durability), [
    "relaxed",
    "relaxed",
    "relaxed",
    "strict",
  ]);
  for (const [{ put = [] }] of blocks.writes) {
    for (const { bytes } of put) assert(bytes.length <= SNAPSHOT_CHUNK_BYTES);
  }
  assertEquals(await sizeOf(await store.open(info)), size);
});

for (const blocksFull of [0, 1, 2]) {
  Deno.test(`H7 BlockSnapshotStore gives a container of ${blocksFull} full blocks`, async () => {
    const store = new BlockSnapshotStore(new MemoryBlockStore());
    const size = SNAPSHOT_CHUNK_BYTES * blocksFull;
    assertEquals(await sizeOf(await store.open(await save(store, size))), size);
  });
}

Deno.test("U28 BlockSnapshotStore deletes snapshots that were replaced, removed or aborted", async () => {
  const blocks = new WatchedStore();
  const store = new BlockSnapshotStore(blocks);
  await save(store, 400_000);
  const once = blocks.all.length;
  for (let i = 0; i < 3; i++) await save(store, 400_000);
  assertEquals(blocks.all.length, once);
  const sink = await store.create(header);
  const writer = sink.writable.getWriter();
  await writer.write(new Uint8Array(300_000));
  await sink.abort();
  assertEquals(blocks.all.length, once);
  const [info] = await store.list(7n);
  await store.remove(info!);
  assertEquals(blocks.all, []);
});

Deno.test("H7 BlockSnapshotStore removes a snapshot when its last stream has ended", async () => {
  const blocks = new WatchedStore();
  const store = new BlockSnapshotStore(blocks);
  const info = await save(store, 600_000);
  const one = (await store.open(info)).getReader();
  const two = await store.open(info);
  await store.remove(info);
  await assertRejects(() => store.open(info), ErrSnapshotNotFound);
  await one.read();
  await one.cancel();
  assertEquals(blocks.all.length, 3);
  assertEquals(await sizeOf(two), 600_000);
  assertEquals(blocks.all, []);
});

Deno.test("H7 BlockSnapshotStore deletes the leftovers of a crash when it is next used", async () => {
  const blocks = new WatchedStore();
  const before = new BlockSnapshotStore(blocks);
  const kept = await save(before, 300_000);
  const read = await save(before, 300_000, { index: 11 });
  await (await before.open(read)).getReader().read();
  await before.remove(read);
  const sink = await before.create({ ...header, index: 12 });
  await sink.writable.getWriter().write(new Uint8Array(300_000));
  assertEquals(blocks.all.length, 6);
  // No close(): a crash has none.
  const store = new BlockSnapshotStore(blocks);
  assertEquals((await store.list(7n)).map(({ id }) => id), [kept.id]);
  assertEquals(blocks.all.length, 3);
  const next = await save(store, 1, { index: 11 });
  assert(![kept.id, read.id].includes(next.id));
});

Deno.test("U8 BlockSnapshotStore has a complete snapshot or none, whichever write fails", async () => {
  for (let k = 1; k <= 5; k++) {
    const blocks = new WatchedStore();
    const store = new BlockSnapshotStore(blocks);
    const old = await save(store, 300_000);
    blocks.failing = k;
    const made = await save(store, 600_000).catch((error) => error);
    const failed = k <= 4;
    assertEquals(made instanceof ErrStoreFull, failed, `${k}`);
    blocks.failing = 0;
    for (const one of [store, new BlockSnapshotStore(blocks)]) {
      const [info, ...others] = await one.list(7n);
      assertEquals(others, []);
      assertEquals(info?.id, failed ? old.id : made.id);
      assertEquals(await sizeOf(await one.open(info!)), info?.size);
    }
    // There is room again, and nothing left of what failed.
    await save(store, 1);
    assertEquals(blocks.all.length, 2);
  }
});

Deno.test("U8 BlockSnapshotStore keeps a snapshot complete whose commit had an unknown outcome", async () => {
  for (const [after, looks] of [[true, true], [false, true], [true, false]]) {
    const blocks = new FaultyBlockStore();
    const store = new BlockSnapshotStore(blocks);
    const old = await save(store, 300_000);
    // Three blocks, and then what commits them.
    const at = blocks.writes + 4;
    blocks.fault = { at, after, error: new ErrUnknownOutcome("Lost") };
    const { keys } = blocks;
    if (!looks) {
      blocks.keys = (...range): ReturnType<typeof keys> => {
        blocks.keys = keys;
        throw new Error(`Connection to the store is lost: ${range}`);
      };
    }
    const made = await save(store, 600_000).catch((error) => error);
    assertEquals(made instanceof Error, !after || !looks);
    for (const one of [store, new BlockSnapshotStore(blocks)]) {
      const [info, ...others] = await one.list(7n);
      assertEquals(others, []);
      assertEquals(info!.id === old.id, !after);
      assertEquals(await sizeOf(await one.open(info!)), info!.size);
    }
  }
});

Deno.test("U8 BlockSnapshotStore keeps a snapshot if remove() fails", async () => {
  const blocks = new WatchedStore();
  const store = new BlockSnapshotStore(blocks);
  const info = await save(store, 300_000);
  const stream = await store.open(info);
  blocks.failing = 1;
  await assertRejects(() => store.remove(info), ErrStoreFull);
  assertEquals(await sizeOf(stream), 300_000);
  assertEquals(await sizeOf(await store.open(info)), 300_000);
  await store.remove(info);
  assertEquals(blocks.all, []);
});

Deno.test("H7 BlockSnapshotStore.open() during a replacement returns a complete snapshot or fails", async () => {
  const blocks = new WatchedStore();
  const store = new BlockSnapshotStore(blocks);
  const info = await save(store, 300_000);
  const write = blocks.write.bind(blocks);
  const opened: Promise<number | Error>[] = [];
  const tryOpen = async (): Promise<number | Error> => {
    try {
      return await sizeOf(await store.open(info));
    } catch (error) {
      return error as Error;
    }
  };
  blocks.write = async (...args) => {
    opened.push(tryOpen());
    await new Promise((resolve) => setTimeout(resolve, 1));
    write(...args);
    opened.push(tryOpen());
  };
  await store.remove(info);
  for (const result of await Promise.all(opened)) {
    assert(
      result === 300_000 || result instanceof ErrSnapshotNotFound,
      `${result}`,
    );
  }
});

Deno.test("H8 BlockSnapshotStore names the block that is damaged or missing", async () => {
  const blocks = new MemoryBlockStore();
  const info = await save(new BlockSnapshotStore(blocks), 600_000);
  const { data: [first, second], description } = keysOf(blocks, info);
  const read = async (): Promise<[part: string, offset: number]> => {
    const store = new BlockSnapshotStore(blocks);
    const [listed] = await store.list(7n);
    assertEquals(listed?.id, info.id);
    const { cause, offset } = await assertRejects(
      async () => await sizeOf(await store.open(listed!)),
      ErrSnapshotCorrupted,
    );
    assertInstanceOf(cause, ErrStoreCorrupted);
    return [cause.part, offset];
  };
  const put = (key: string, bytes: Uint8Array): void =>
    blocks.write({ put: [{ key, bytes }] }, "relaxed");
  const [whole] = blocks.get([description]);
  for (let at = 0; at < whole!.length; at++) {
    const bytes = whole!.slice();
    bytes[at]! ^= 1 << at % 8;
    put(description, bytes);
    assertEquals(await read(), [description, 0]);
  }
  put(description, whole!);
  put(first!, new Uint8Array(1));
  assertEquals(await read(), [first, 0]);
  put(first!, new Uint8Array(SNAPSHOT_CHUNK_BYTES));
  blocks.write({ delete: [second!] }, "relaxed");
  assertEquals(await read(), [second, SNAPSHOT_CHUNK_BYTES]);
});

Deno.test("H8 BlockSnapshotStore reports a block that its store finds damaged", async () => {
  const blocks = new MemoryBlockStore();
  const older = await save(new BlockSnapshotStore(blocks), 10);
  const newer = await save(new BlockSnapshotStore(blocks), 10, { index: 11 });
  const { data, description } = keysOf(blocks, newer);
  for (const key of [data[0]!, description]) {
    const damaged = new Proxy(blocks, {
      get: (target, name) => {
        if (name === "get") {
          return (keys: readonly string[]) => {
            if (keys.includes(key)) throw new ErrStoreCorrupted(key, "Damaged");
            return target.get(keys);
          };
        }
        const member: unknown = Reflect.get(target, name, target);
        return typeof member === "function" ? member.bind(target) : member;
      },
    });
    const store = new BlockSnapshotStore(damaged);
    const infos = await store.list(7n);
    assertEquals(infos.map(({ id }) => id), [newer.id, older.id]);
    const error = await assertRejects(
      async () => await sizeOf(await store.open(infos[0]!)),
      ErrSnapshotCorrupted,
    );
    assertEquals((error.cause as ErrStoreCorrupted).part, key);
    assertEquals(await sizeOf(await store.open(infos[1]!)), 10);
  }
});

Deno.test("H8 BlockSnapshotStore deletes no blocks if an info block has an unreadable name", async () => {
  const blocks = new WatchedStore();
  const info = await save(new BlockSnapshotStore(blocks), 10, { index: 11 });
  const { data, description } = keysOf(blocks, info);
  const [bytes] = blocks.get([description]);
  const key = description.slice(0, -1);
  blocks.write({
    delete: [description],
    put: [{ key: `${key}x`, bytes: bytes! }],
  }, "relaxed");
  const store = new BlockSnapshotStore(blocks);
  const kept = await save(store, 10);
  assertEquals(await store.list(7n), [kept]);
  assert(data.every((key) => blocks.all.includes(key)));
});

Deno.test("H11 BlockSnapshotStore refuses an invalid header", async () => {
  const blocks = new MemoryBlockStore();
  const store = new BlockSnapshotStore(blocks);
  await assertRejects(() => save(store, 1, { index: -1 }), RangeError);
  assertEquals(await store.list(7n), []);
  assertEquals(blocks.keys("", "~"), []);
});

Deno.test("H8 a host reports a damaged info block, and uses the previous snapshot", async () => {
  const blocks = new MemoryBlockStore();
  await using logDB = new BlockLogDB(new MemoryBlockStore());
  const config = { clusterID: 7n, nodeID: 1n };
  const live = async (
    work: (replica: Replica) => Promise<unknown>,
  ): Promise<HostEvent[]> => {
    const events: HostEvent[] = [];
    await using host = new NodeHost({
      logDB,
      snapshots: new BlockSnapshotStore(blocks),
      onEvent: (event) => events.push(event),
    });
    await work(await host.startCluster(() => new KVStateMachine(), config));
    return events;
  };
  await live(async (replica) => {
    for (const key of ["a", "b", "c"]) {
      await replica.propose(kv.put(key, key));
      if (key !== "c") await replica.requestSnapshot();
    }
  });
  const [newer, older] = await new BlockSnapshotStore(blocks).list(7n);
  DAMAGES["its description damaged"]!(blocks, newer!);
  const [told, recovered] = await live(async (replica) => {
    assertEquals(await replica.read(kv.count()), 3);
    // It does not count as one of the two kept snapshots, and does not prevent a new one.
    await replica.requestSnapshot();
  });
  assert(told?.type === "snapshot failed", told?.type);
  assertInstanceOf(told.error, ErrSnapshotCorrupted);
  assert(recovered?.type === "recovered", recovered?.type);
  assertEquals(recovered.snapshot.id, older?.id);
});

/** Store of which one block cannot be read. */
class UnreadableStore extends MemoryBlockStore {
  unreadable: string | undefined;

  override get(keys: readonly string[]): (Uint8Array | undefined)[] {
    if (keys.some((key) => key === this.unreadable)) throw new Error("EIO");
    return super.get(keys);
  }
}

Deno.test("H8 an info block that cannot be read hides no other snapshot, and is read again the next time", async () => {
  const blocks = new UnreadableStore();
  const writer = new BlockSnapshotStore(blocks);
  for (const index of [1, 2]) await save(writer, 9, { index });
  const [newer, older] = await writer.list(7n);
  blocks.unreadable = keysOf(blocks, newer!).description;
  const store = new BlockSnapshotStore(blocks);
  assertEquals((await store.list(7n)).map(({ index }) => index), [2, 1]);
  await assertRejects(() => store.open(newer!), Error, "EIO");
  assertEquals(await sizeOf(await store.open(older!)), older!.size);
  blocks.unreadable = undefined;
  assertEquals(await sizeOf(await store.open(newer!)), newer!.size);
});

Deno.test("H8 BlockSnapshotStore repeats a failed listing", async () => {
  const blocks = new WatchedStore();
  const keys = blocks.keys.bind(blocks);
  blocks.keys = () => {
    blocks.keys = keys;
    throw new Error("EIO: i/o error");
  };
  const store = new BlockSnapshotStore(blocks);
  await assertRejects(() => store.list(7n), Error, "EIO: i/o error");
  assertEquals(await store.list(7n), []);
});
