import { assert, assertEquals } from "@std/assert";
import { toBytes } from "@std/streams";
import {
  openSnapshot,
  type SnapshotHeader,
  verifySnapshot,
} from "../../src/snapshot/mod.ts";
import {
  type Contents,
  makeBytes,
  makeContainer,
  makeHeader,
  source,
} from "./container_fixtures.ts";

const MIB = 1024 * 1024;

/** Asserts that bytes are equal; `assertEquals()` is slow for them. */
function assertBytes(actual: Uint8Array, expected: Uint8Array): void {
  assertEquals(actual.length, expected.length);
  assert(actual.every((byte, i) => byte === expected[i]));
}

/** Asserts that contents survive writing, verifying and reading. */
async function roundTrip(contents: Contents, read: number): Promise<void> {
  const { header = makeHeader(), files = [] } = contents;
  const { bytes, totals } = await makeContainer(contents);
  assertEquals(totals, { files: files.length });

  const verifier = verifySnapshot();
  const through = await toBytes(
    source(bytes, read).pipeThrough(verifier.transform),
  );
  assertBytes(through, bytes);
  assertEquals(await verifier.header, header);
  assertEquals(await verifier.totals, totals);

  const reader = await openSnapshot(source(bytes, read));
  assertEquals(reader.header, header);
  assertBytes(reader.sessions, contents.sessions ?? new Uint8Array());
  assertBytes(
    await toBytes(reader.payload),
    contents.payload ?? new Uint8Array(),
  );
  let next = 0;
  await reader.files(async (fileID, metadata, content) => {
    const file = files[next++];
    assertEquals(fileID, file?.[0]);
    assertBytes(metadata, file?.[1] as Uint8Array);
    assertBytes(await toBytes(content), file?.[2] as Uint8Array);
  });
  assertEquals(next, files.length);
  assertEquals(await reader.finish(), totals);
  assertEquals(await reader.finish(), totals);
  assertEquals(reader.sourceError, undefined);
}

for (const compression of ["none", "gzip", "deflate-raw"] as const) {
  Deno.test(`R9 openSnapshot() returns what SnapshotWriter wrote (${compression})`, async (t) => {
    const header = makeHeader({ compression });
    const nothing = new Uint8Array();
    const cases: Record<string, Contents> = {
      "nothing": { header },
      "sessions": { header, sessions: makeBytes(3 * MIB + 17) },
      "one byte": { header, payload: makeBytes(1) },
      "one block": { header, payload: makeBytes(65_536) },
      "one block and a byte": { header, payload: makeBytes(65_537) },
      "many blocks": { header, payload: makeBytes(MIB + 5) },
      "no epoch": {
        header: makeHeader({ compression, epoch: undefined, index: 0 }),
        payload: makeBytes(10),
      },
      "a file": { header, files: [[0n, nothing, nothing]] },
      "files": {
        header,
        sessions: makeBytes(100, 2),
        payload: makeBytes(100_000, 3),
        files: [
          [1n, makeBytes(65_528, 4), makeBytes(200_000, 5)],
          [(1n << 64n) - 1n, nothing, makeBytes(1, 6)],
          [2n, makeBytes(1, 7), nothing],
          [0n, makeBytes(65_527, 8), makeBytes(65_536, 9)],
        ],
      },
    };
    for (const [name, contents] of Object.entries(cases)) {
      await t.step(name, () => roundTrip(contents, 64 * 1024));
    }
  });
}

Deno.test("R6 SnapshotWriter writes the same bytes for chunks of any size", async () => {
  const contents = {
    sessions: makeBytes(1000, 1),
    payload: makeBytes(200_000, 2),
    files: [[1n, makeBytes(10, 3), makeBytes(150_000, 4)]],
  } as const;
  const { bytes } = await makeContainer(contents);
  for (const chunk of [1, 7, 65_535, 65_536, 65_537, MIB]) {
    const again = await makeContainer({ ...contents, chunk });
    assertBytes(again.bytes, bytes);
  }
});

Deno.test("R9 openSnapshot() reads a container in chunks of any size", async (t) => {
  for (const read of [1, 3, 8, 65_535, 65_544, MIB]) {
    for (const compression of ["none", "gzip"] as const) {
      await t.step(`${read} bytes, ${compression}`, () =>
        roundTrip({
          header: makeHeader({ compression }),
          sessions: makeBytes(70_000, 1),
          payload: makeBytes(140_000, 2),
          files: [[1n, makeBytes(10, 3), makeBytes(70_000, 4)]],
        }, read));
    }
  }
});

Deno.test("F1 SnapshotWriter takes ten thousand files", async () => {
  const files = Array.from(
    { length: 10_000 },
    (_, i) => [BigInt(i), makeBytes(i % 3), makeBytes(i % 5)] as const,
  );
  await roundTrip({ files }, 64 * 1024);
});

Deno.test("D10 SnapshotWriter makes a metadata container of a few hundred bytes", async () => {
  const header: SnapshotHeader = makeHeader({ kind: "metadata", type: 3 });
  const { bytes } = await makeContainer({ header, sessions: makeBytes(100) });
  assert(bytes.length < 300, `${bytes.length} bytes`);
  await roundTrip({ header, sessions: makeBytes(100) }, 64 * 1024);
});

Deno.test("D8 the container matches format.md", async () => {
  const { bytes } = await makeContainer({
    header: makeHeader({
      nodeID: 2n,
      index: 300,
      epoch: { index: 3, id: 4n },
      stateHash: { hash: 5n, version: 6 },
    }),
    sessions: new Uint8Array([0xaa]),
    payload: new Uint8Array([0xbb, 0xbc]),
    files: [[5n, new Uint8Array([0xcc]), new Uint8Array([0xdd])]],
  });
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0"));
  assertEquals(
    hex.join(""),
    [
      // preamble
      "89534d504e0d0a1a020000008c30f302",
      // header
      "6241027e2800000107000000000000000200000000000000020000ac0203030400000000000000050000000000000006",
      // sessions
      "ba6d158d01000002aa",
      // payload
      "b49a736f02000003bbbc",
      // file
      "188421ff090000040500000000000000cc",
      // content
      "0ba857e601000005dd",
      // tail
      "7d10af7b040000066d050201",
    ].join(""),
  );
});

Deno.test("case C2: a container of version 1, which has no state hash, is read, and passed on unchanged [H16, H9]", async () => {
  const hex = [
    // preamble
    "89534d504e0d0a1a01000000629f4610",
    // header
    "859a07761e00000107000000000000000200000000000000020000ac02030400000000000000",
    // sessions
    "0e00a62801000002aa",
    // payload
    "d406fe5f02000003bbbc",
    // file
    "7b6b814c090000040500000000000000cc",
    // content
    "e35449a001000005dd",
    // tail
    "35c7f4860400000663050201",
  ].join("");
  const bytes = Uint8Array.from(
    hex.match(/../g)!,
    (byte) => parseInt(byte, 16),
  );
  const expected = makeHeader({
    nodeID: 2n,
    index: 300,
    epoch: { index: 3, id: 4n },
  });
  const reader = await openSnapshot(source(bytes));
  assertEquals(reader.header, expected);
  assertEquals(
    await toBytes(reader.payload),
    new Uint8Array([0xbb, 0xbc]),
  );
  assertEquals(await reader.finish(), { files: 1 });
  const { transform, header } = verifySnapshot();
  const passed = source(bytes).pipeThrough(transform);
  assertEquals(
    await toBytes(passed),
    bytes,
  );
  assertEquals(await header, expected);
});
