import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
} from "@std/assert";
import { ByteWriter, crc32 } from "../../src/bytes.ts";
import {
  ErrSnapshotCorrupted,
  ErrSnapshotVersion,
  openSnapshot,
  type SnapshotHeader,
  verifySnapshot,
} from "../../src/snapshot/mod.ts";
import { concat } from "../support/bytes.ts";
import {
  makeBytes,
  makeContainer,
  makeHeader,
  source,
} from "./container_fixtures.ts";
import { random } from "../support/random.ts";

/** Parts that were returned before reading ended, and its error. */
interface Outcome {
  readonly error: unknown;
  /** Returned bytes by part. */
  readonly parts: Record<string, Uint8Array>;
}

async function readInto(
  stream: ReadableStream<Uint8Array>,
  keep: (chunk: Uint8Array) => void,
): Promise<void> {
  const reader = stream.getReader();
  for (let read; !(read = await reader.read()).done;) keep(read.value);
}

/** Reads a container through `openSnapshot()`, as a machine and a host do. */
async function read(bytes: Uint8Array, chunk?: number): Promise<Outcome> {
  const chunks: Record<string, Uint8Array[]> = {};
  const keep = (name: string) => (part: Uint8Array): void => {
    (chunks[name] ??= []).push(part.slice());
  };
  let error: unknown;
  try {
    const reader = await openSnapshot(source(bytes, chunk));
    const { index, epoch } = reader.header;
    keep("header")(
      new ByteWriter().varint(index).u64(epoch?.id ?? 0n).finish(),
    );
    keep("sessions")(reader.sessions);
    try {
      await readInto(reader.payload, keep("payload"));
      await reader.files(async (fileID, metadata, content) => {
        keep(`metadata ${fileID}`)(metadata);
        await readInto(content, keep(`content ${fileID}`));
      });
      await reader.finish();
    } catch (thrown) {
      assertEquals(reader.sourceError, thrown);
      throw thrown;
    }
  } catch (thrown) {
    error = thrown;
  }
  const parts = Object.entries(chunks).map(([name, all]) =>
    [name, concat(all)] as const
  );
  return { error, parts: Object.fromEntries(parts) };
}

/** Reads a container like a machine that ignores its payload. */
async function skip(bytes: Uint8Array): Promise<Outcome> {
  try {
    await (await openSnapshot(source(bytes))).finish();
  } catch (error) {
    return { error, parts: {} };
  }
  return { error: undefined, parts: {} };
}

/** Sends a container through `verifySnapshot()`. */
async function verify(bytes: Uint8Array, chunk?: number): Promise<Outcome> {
  const chunks: Uint8Array[] = [];
  const verifier = verifySnapshot();
  let error: unknown;
  try {
    await readInto(
      source(bytes, chunk).pipeThrough(verifier.transform),
      (part) => chunks.push(part.slice()),
    );
    await verifier.totals;
  } catch (thrown) {
    error = thrown;
    assertEquals(await verifier.totals.catch((e) => e), thrown);
  }
  return { error, parts: { all: concat(chunks) } };
}

/** Asserts that each part is the beginning of the original's. */
function assertPrefixes(outcome: Outcome, original: Outcome): void {
  for (const [name, part] of Object.entries(outcome.parts)) {
    const whole = original.parts[name];
    assert(whole, `Handed out ${name}`);
    assert(part.length <= whole.length, `Handed out more of ${name}`);
    for (let i = 0; i < part.length; i++) {
      if (part[i] !== whole[i]) throw new Error(`Byte ${i} of ${name} is bad`);
    }
  }
}

function assertDamage(outcome: Outcome, original: Outcome): void {
  assertInstanceOf(outcome.error, ErrSnapshotCorrupted);
  assertPrefixes(outcome, original);
}

const READERS = { read, skip, verify } as const;

async function makeSmall(
  compression: SnapshotHeader["compression"],
): Promise<Uint8Array<ArrayBuffer>> {
  const { bytes } = await makeContainer({
    header: makeHeader({ compression }),
    sessions: makeBytes(40, 1),
    payload: makeBytes(150, 2),
    files: [
      [1n, makeBytes(9, 3), makeBytes(60, 4)],
      [2n, new Uint8Array(), makeBytes(5, 5)],
    ],
  });
  return bytes;
}

/** Positions of the blocks, and of the end of the container. */
function findBlocks(bytes: Uint8Array): number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const starts = [16];
  for (let at = 16; at < bytes.length;) {
    at += 8 + (view.getUint32(at + 4, true) & 0xffffff);
    starts.push(at);
  }
  return starts;
}

/** Builds a container of arbitrary blocks with correct checksums. */
function forge(
  preamble: Uint8Array,
  blocks: readonly (readonly [number, Uint8Array])[],
): Uint8Array {
  let crc = 0;
  const writer = new ByteWriter().raw(preamble);
  for (const [type, data] of blocks) {
    const rest = new ByteWriter().u32((type << 24 | data.length) >>> 0)
      .raw(data).finish();
    crc = crc32(rest, crc);
    writer.u32(crc).raw(rest);
  }
  return writer.finish();
}

for (const compression of ["none", "gzip"] as const) {
  for (const [name, run] of Object.entries(READERS)) {
    Deno.test(`H8 ${name}() finds every flipped byte (${compression})`, async () => {
      const bytes = await makeSmall(compression);
      const original = await run(bytes);
      assertEquals(original.error, undefined);
      for (let i = 0; i < bytes.length; i++) {
        for (const flip of [0x01, 0x80, 0xff]) {
          const damaged = bytes.slice();
          damaged[i]! ^= flip;
          const outcome = await run(damaged);
          assertDamage(outcome, original);
          const { offset } = outcome.error as ErrSnapshotCorrupted;
          assert(offset <= i, `Byte ${i} was found bad at ${offset}`);
        }
      }
    });

    Deno.test(`H8 ${name}() finds a truncation anywhere (${compression})`, async () => {
      const bytes = await makeSmall(compression);
      const original = await run(bytes);
      for (let i = 0; i < bytes.length; i++) {
        const outcome = await run(bytes.subarray(0, i));
        assertDamage(outcome, original);
        const { offset, message } = outcome.error as ErrSnapshotCorrupted;
        assert(offset <= i, `Cut at ${i} was found at ${offset}`);
        assert(/truncated/.test(message), message);
      }
    });
  }
}

for (const [name, run] of Object.entries(READERS)) {
  Deno.test(`H8 ${name}() finds damage in chunks of any size`, async () => {
    const seed = Math.floor(Math.random() * 2 ** 32);
    // deno-lint-ignore no-console
    console.log(`seed ${seed}`);
    const next = random(seed);
    const { bytes } = await makeContainer({
      sessions: makeBytes(70_000, 1),
      payload: makeBytes(200_000, 2),
      files: [[1n, makeBytes(9, 3), makeBytes(70_000, 4)]],
    });
    const original = await run(bytes);
    for (let i = 0; i < 40; i++) {
      const damaged = bytes.slice();
      const at = Math.floor(next() * bytes.length);
      const burst = 1 + Math.floor(next() * 4);
      for (let j = at; j < Math.min(at + burst, bytes.length); j++) {
        damaged[j]! ^= 1 + next() * 255;
      }
      const chunk = 1 + Math.floor(next() ** 2 * 300_000);
      const outcome = await run(damaged, chunk);
      assertDamage(outcome, original);
    }
  });

  Deno.test(`H8 ${name}() rejects bytes after the tail`, async () => {
    const bytes = await makeSmall("none");
    const original = await run(bytes);
    for (const more of [new Uint8Array(1), bytes]) {
      for (const chunk of [1, 64, bytes.length, 65_536]) {
        const outcome = await run(concat([bytes, more]), chunk);
        assertDamage(outcome, original);
        assertEquals(
          (outcome.error as ErrSnapshotCorrupted).offset,
          bytes.length,
        );
      }
    }
  });

  Deno.test(`H8 ${name}() rejects data that is not a snapshot`, async () => {
    for (
      const bytes of [
        new Uint8Array(),
        new Uint8Array(5),
        new Uint8Array(1000),
        makeBytes(100_000),
        new TextEncoder().encode("<!doctype html><p>404 Not Found</p>"),
      ]
    ) {
      const { error, parts } = await run(bytes);
      assertInstanceOf(error, ErrSnapshotCorrupted);
      assertEquals(error.offset, 0);
      assertEquals(parts.all?.length ?? 0, 0);
    }
  });

  Deno.test(`H11 ${name}() names an unsupported newer version`, async () => {
    const bytes = await makeSmall("none");
    new DataView(bytes.buffer).setUint32(8, 3, true);
    new DataView(bytes.buffer)
      .setUint32(12, crc32(bytes, 0, 0, 12), true);
    const { error } = await run(bytes);
    assertInstanceOf(error, ErrSnapshotVersion);
    assertEquals([error.version, error.supported], [3, 2]);
  });

  Deno.test(`H8 ${name}() finds lost, repeated and moved blocks`, async () => {
    const { bytes } = await makeContainer({
      sessions: makeBytes(200_000, 1),
      // Blocks that are all the same are the hardest to tell apart.
      payload: new Uint8Array(65_536 * 4),
      files: [[1n, makeBytes(9, 3), new Uint8Array(65_536 * 3)]],
    });
    const original = await run(bytes);
    const starts = findBlocks(bytes);
    const preamble = bytes.subarray(0, 16);
    const blocks: Uint8Array[] = starts.slice(1).map((end, i) =>
      bytes.subarray(starts[i], end)
    );
    const assertFound = async (changed: Uint8Array[]): Promise<void> => {
      assertDamage(await run(concat([preamble, ...changed])), original);
    };
    for (let i = 0; i < blocks.length; i++) {
      await assertFound(blocks.toSpliced(i, 1));
      await assertFound(blocks.toSpliced(i, 0, blocks[i] as Uint8Array));
      for (let j = i + 1; j < blocks.length; j++) {
        await assertFound(
          blocks.with(i, blocks[j] as Uint8Array)
            .with(j, blocks[i] as Uint8Array),
        );
      }
    }
  });

  Deno.test(`H11 ${name}() rejects invalid blocks`, async () => {
    const bytes = await makeSmall("none");
    const preamble = bytes.subarray(0, 16);
    const starts = findBlocks(bytes);
    const header = bytes.slice(24, starts[1]);
    const one = new Uint8Array(1);
    const id = new Uint8Array(8);
    const tail = (
      length: number,
      blocks: number,
      payload: number,
      files: number,
    ): Uint8Array =>
      new ByteWriter().varint(length).varint(blocks).varint(payload)
        .varint(files).finish();
    const end = (starts[1] as number) + 9;
    assertEquals(
      (await run(forge(preamble, [[1, header], [3, one], [
        6,
        tail(end, 2, 1, 0),
      ]]))).error,
      undefined,
    );
    const forged: (readonly (readonly [number, Uint8Array])[])[] = [
      [[2, one]],
      [[3, one]],
      [[6, tail(16, 0, 0, 0)]],
      [[1, header], [1, header]],
      [[1, header], [3, one], [2, one]],
      [[1, header], [5, one]],
      [[1, header], [3, one], [5, one]],
      [[1, header], [4, id], [3, one]],
      [[1, header], [4, id], [5, one], [2, one]],
      [[1, header], [4, id], [4, id]],
      [[1, header], [4, id.subarray(1)]],
      [[1, header], [0, one]],
      [[1, header], [7, one]],
      [[1, header], [255, one]],
      [[1, header], [3, new Uint8Array()]],
      [[1, header], [3, new Uint8Array(65_537)]],
      [[1, header], [3, one], [6, tail(end, 3, 1, 0)]],
      [[1, header], [3, one], [6, tail(end + 1, 2, 1, 0)]],
      [[1, header], [3, one], [6, tail(end, 2, 2, 0)]],
      [[1, header], [3, one], [6, tail(end, 2, 1, 1)]],
      [[1, header], [3, one], [6, tail(end, 2, 1, 0).subarray(1)]],
      [[1, header], [3, one], [6, concat([tail(end, 2, 1, 0), one])]],
      // Headers: cut, with an unknown type, kind or compression, with bytes left over.
      [[1, header.subarray(0, 20)]],
      [[1, header.with(16, 0)]],
      [[1, header.with(16, 4)]],
      [[1, header.with(17, 2)]],
      [[1, header.with(18, 3)]],
      [[1, concat([header, one])]],
    ];
    for (const [i, blocks] of forged.entries()) {
      const { error } = await run(forge(preamble, blocks));
      assertInstanceOf(error, ErrSnapshotCorrupted, `Case ${i}`);
      assert(!/truncated/.test(error.message), `Case ${i}: ${error.message}`);
    }
  });
}

Deno.test("H11 openSnapshot() rejects invalid compressed data", async () => {
  const bytes = await makeSmall("gzip");
  const preamble = bytes.subarray(0, 16);
  const starts = findBlocks(bytes);
  const header = bytes.slice(24, starts[1]);
  for (
    const [type, stored] of [[3, makeBytes(100)], [
      3,
      bytes.subarray(0, 1),
    ]] as const
  ) {
    const reader = await openSnapshot(
      source(forge(preamble, [[1, header], [type, stored], [4, makeBytes(8)]])),
    );
    const error = await assertRejects(
      () => readInto(reader.payload, () => {}),
      ErrSnapshotCorrupted,
    );
    assertEquals(error.offset, starts[1]);
    assertEquals(reader.sourceError, error);
    assertEquals(await assertRejects(() => reader.finish()), error);
  }
});

Deno.test("H11 openSnapshot() rejects sessions above their limit", async () => {
  const bytes = await makeSmall("none");
  const header = bytes.slice(24, findBlocks(bytes)[1]);
  // One block of sessions, over and over: nothing of it is kept by the verifier.
  const block = new Uint8Array(8 + 65_536);
  new DataView(block.buffer).setUint32(4, 2 << 24 | 65_536, true);
  let crc = 0;
  const begin = forge(bytes.subarray(0, 16), [[1, header]]);
  crc = new DataView(begin.buffer).getUint32(16, true);
  let sent = 0;
  const endless = new ReadableStream<Uint8Array>({
    pull(controller): void {
      if (!sent++) return controller.enqueue(begin);
      const next = block.slice();
      crc = crc32(next, crc, 4);
      new DataView(next.buffer).setUint32(0, crc, true);
      controller.enqueue(next);
    },
  }, { highWaterMark: 0 });
  const { transform } = verifySnapshot();
  const error = await assertRejects(
    () => endless.pipeThrough(transform).pipeTo(new WritableStream()),
    ErrSnapshotCorrupted,
    "Sessions are too large",
  );
  assertEquals(error.offset, begin.length + 16_384 * block.length);
});

Deno.test("H8 verifySnapshot() rejects header and totals when its stream is cancelled", async () => {
  for (const side of ["readable", "writable"] as const) {
    const { transform, header, totals } = verifySnapshot();
    const reason = new Error("Enough");
    if (side === "readable") await transform.readable.cancel(reason);
    else await transform.writable.abort(reason);
    assertEquals(await assertRejects(() => header), reason);
    assertEquals(await assertRejects(() => totals), reason);
  }
});

Deno.test("H8 verifySnapshot() leaves no unhandled rejection", async () => {
  const { transform } = verifySnapshot();
  await assertRejects(
    () =>
      source(makeBytes(100)).pipeThrough(transform).pipeTo(
        new WritableStream(),
      ),
    ErrSnapshotCorrupted,
  );
  await new Promise((resolve) => setTimeout(resolve, 5));
});
