import { assertEquals, assertRejects } from "@std/assert";
import { isSameBytes } from "../../src/bytes.ts";
import {
  defineMachine,
  ErrNewerCode,
  ErrTypedSnapshot,
  table,
} from "../../src/typed/mod.ts";
import { goldenMachine } from "./golden.ts";
import { anything } from "./schemas.ts";
import { recover, snapshotOf } from "./snapshots.ts";

const golden = defineMachine({
  name: "golden",
  version: 1,
  state: () => ({
    rows: table({ indexes: { byKind: (row: unknown) => typeof row } }),
    empty: table(),
    title: "",
  }),
  commands: {
    put: {
      args: anything<{ key: string; value: unknown }>(),
      run: (state, { key, value }) => state.rows.set(key, value),
    },
    title: {
      args: anything<string>(),
      run: (state, title) => {
        state.title = title;
      },
    },
  },
  queries: {
    all: (state) => [...state.rows],
    texts: (state) => state.rows.byKind("string"),
  },
  changes: ["louder"],
});

const HASH = 15295952620444187272n;

function fileOf(format: number): Promise<Uint8Array<ArrayBuffer>> {
  return Deno.readFile(
    new URL(`golden/format${format}.snapshot`, import.meta.url),
  );
}

Deno.test("Y8 snapshots of every format are read, and the newest is written as before", async () => {
  const machine = goldenMachine(golden);
  assertEquals(machine.getHash(), HASH);
  for (const format of [1, 2, 3]) {
    const read = await recover(golden.create(), await fileOf(format));
    assertEquals(read.getHash(), HASH);
    for (const name of ["all", "texts"]) {
      const query = { name, args: [] };
      assertEquals(read.lookup(query), machine.lookup(query));
    }
  }
  assertEquals(isSameBytes(await fileOf(3), await snapshotOf(machine)), true);
});

Deno.test("Y8 a snapshot is read in chunks of any size, and refused with more after its end", async () => {
  const bytes = await fileOf(3);
  const { signal } = new AbortController();
  const read = async (bytes: Uint8Array, size: number): Promise<bigint> => {
    let at = 0;
    const machine = golden.create();
    const chunks = new ReadableStream<Uint8Array>({
      pull(controller): void {
        if (at >= bytes.length) return controller.close();
        controller.enqueue(bytes.slice(at, at += size));
      },
    });
    await machine.recoverFromSnapshot(chunks, [], signal);
    return await machine.getHash();
  };
  for (const size of [1, 2, 3, 7, 100]) {
    assertEquals(await read(bytes, size), HASH);
    const longer = new Uint8Array([...bytes, 1]);
    await assertRejects(() => read(longer, size), ErrTypedSnapshot, "damaged");
  }
});

Deno.test("Y8 a snapshot of a format to come is refused with words", async () => {
  const bytes = await fileOf(3);
  bytes[3] = 4;
  await assertRejects(
    () => recover(golden.create(), bytes),
    ErrTypedSnapshot,
    "load the newer code",
  );
});

Deno.test("Y8 a snapshot in a codec to come is refused, as one of newer code", async () => {
  const bytes = await fileOf(3);
  // After the format, the length and kind of the frame, the name and the version of the state.
  const codec = 4 + 2 + 1 + "golden".length + 1;
  assertEquals(bytes[codec], 1);
  bytes[codec] = 2;
  await assertRejects(
    () => recover(golden.create(), bytes),
    ErrNewerCode,
    "in codec 2, this code knows",
  );
});

Deno.test("Y8 a table without rows is in a snapshot, so that migrate finds it", async () => {
  const next = defineMachine({
    name: "golden",
    version: 2,
    state: () => ({ rows: table(), other: table(), title: "" }),
    commands: {},
    queries: { count: (state) => state.other.size },
    changes: ["louder"],
    migrate: {
      1: ({ empty, ...others }) => ({
        ...others,
        other: new Map([...empty as Map<string, null>, ["new", null]]),
      }),
    },
  });
  const read = await recover(next.create(), await fileOf(3));
  assertEquals(read.lookup({ name: "count", args: [] }), 1);
});
