import {
  assert,
  assertEquals,
  assertRejects,
  assertStrictEquals,
} from "@std/assert";
import {
  ErrSnapshotCorrupted,
  openSnapshot,
  type SnapshotReader,
  SnapshotWriter,
} from "../../src/snapshot/mod.ts";
import { bytesInUse } from "../support/garbage.ts";
import {
  Collector,
  makeBytes,
  makeContainer,
  makeHeader,
  source,
} from "./container_fixtures.ts";

const COMPRESSIONS = ["none", "gzip"] as const;
const payload = makeBytes(500_000);
const content = makeBytes(300_000, 2);

function makeSample(
  compression: "none" | "gzip",
): Promise<{ bytes: Uint8Array<ArrayBuffer> }> {
  return makeContainer({
    header: makeHeader({ compression }),
    sessions: makeBytes(100),
    payload,
    files: [
      [1n, makeBytes(5), content],
      [2n, makeBytes(6), content],
    ],
  });
}

type Machine = (r: ReadableStream<Uint8Array>) => unknown;

/** Ways in which a machine may leave its stream unread. */
const MACHINES: Record<string, Machine> = {
  "reads nothing": () => {},
  "reads nothing and keeps its lock": (r) => r.getReader(),
  "reads a part": async (r) => {
    const reader = r.getReader();
    assertEquals((await reader.read()).value?.[0], payload[0]);
    reader.releaseLock();
  },
  "reads a part and keeps its lock": async (r) => {
    await r.getReader().read();
  },
  "reads without waiting": (r) => {
    r.getReader().read();
  },
  "cancels": (r) => r.cancel(),
  "cancels after a part": async (r) => {
    const reader = r.getReader();
    await reader.read();
    await reader.cancel(new Error("Enough"));
  },
  "cancels while it reads": async (r) => {
    const reader = r.getReader();
    const read = reader.read();
    await reader.cancel();
    await read;
  },
  "reads to the end": async (r) => {
    const all = new Collector();
    await r.pipeTo(all.stream);
    assertEquals(all.bytes.length, payload.length);
  },
};

function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

async function readFile(
  stream: ReadableStream<Uint8Array>,
): Promise<void> {
  const all = new Collector();
  await stream.pipeTo(all.stream);
  assertEquals(all.bytes.length, content.length);
  assert(all.bytes.every((byte, i) => byte === content[i]));
}

for (const compression of COMPRESSIONS) {
  Deno.test(`R9 finish() verifies the bytes that a machine leaves unread (${compression})`, async (t) => {
    const { bytes } = await makeSample(compression);
    const damaged = bytes.slice();
    damaged[damaged.length - 100]! ^= 1;
    for (const [name, machine] of Object.entries(MACHINES)) {
      await t.step(`by one that ${name}`, async () => {
        const good = await openSnapshot(source(bytes, 10_000));
        await machine(good.payload);
        assertEquals(await good.finish(), { files: 2 });
        assertStrictEquals(good.sourceError, undefined);

        const bad = await openSnapshot(source(damaged, 10_000));
        await machine(bad.payload);
        const error = await assertRejects(
          () => bad.finish(),
          ErrSnapshotCorrupted,
        );
        assertStrictEquals(bad.sourceError, error);
        assertStrictEquals(await assertRejects(() => bad.finish()), error);
      });
    }
  });

  Deno.test(`F3 files() returns every file, however much was read (${compression})`, async (t) => {
    const { bytes } = await makeSample(compression);
    for (const [name, machine] of Object.entries(MACHINES)) {
      await t.step(`after a machine that ${name}`, async () => {
        const reader = await openSnapshot(source(bytes, 10_000));
        await machine(reader.payload);
        const ids: bigint[] = [];
        await reader.files(async (fileID, metadata, stream) => {
          ids.push(fileID);
          assertEquals(metadata, makeBytes(metadata.length));
          await readFile(stream);
        });
        assertEquals(ids, [1n, 2n]);
        assertEquals(await reader.finish(), { files: 2 });
      });
    }
    for (const [name, machine] of Object.entries(MACHINES)) {
      if (name === "reads to the end") continue;
      await t.step(`when the one before ${name}`, async () => {
        const reader = await openSnapshot(source(bytes, 10_000));
        await reader.files(async (fileID, _metadata, stream) => {
          if (fileID === 2n) return await readFile(stream);
          await (name.startsWith("reads a part") ? readPart : machine)(stream);
        });
        assertEquals(await reader.finish(), { files: 2 });
      });
    }
  });

  Deno.test(`R9 reading after finish() fails (${compression})`, async () => {
    const { bytes } = await makeSample(compression);
    const reader = await openSnapshot(source(bytes));
    const machine = reader.payload.getReader();
    await machine.read();
    await reader.finish();
    await assertRejects(() => machine.read(), TypeError);
    assertStrictEquals(reader.sourceError, undefined);
  });

  Deno.test(`R8 every method fails with the error of the source (${compression})`, async () => {
    const { bytes } = await makeSample(compression);
    const lost = new Error("ECONNRESET: connection is lost");
    for (let length = 0; length < bytes.length; length += 5_000) {
      const whole = source(bytes.subarray(0, length), 1_000).getReader();
      const failing = new ReadableStream<Uint8Array>({
        async pull(controller): Promise<void> {
          const { done, value } = await whole.read();
          if (done) controller.error(lost);
          else controller.enqueue(value);
        },
      }, { highWaterMark: 0 });
      let reader: SnapshotReader | undefined;
      try {
        reader = await openSnapshot(failing);
        const all = new Collector();
        await reader.payload.pipeTo(all.stream);
        await reader.finish();
        throw new Error("save() was expected to fail");
      } catch (error) {
        assertStrictEquals(error, lost);
      }
      if (!reader) continue;
      assertStrictEquals(reader.sourceError, lost);
      assertStrictEquals(
        await assertRejects(() => (reader as SnapshotReader).finish()),
        lost,
      );
    }
  });

  Deno.test(`R8 cancel() cancels the source and fails pending reads (${compression})`, async () => {
    const { bytes } = await makeSample(compression);
    for (const reason of [new Error("abort() was called"), undefined]) {
      let cancelled: unknown = "not";
      let first = true;
      const stuck = new ReadableStream<Uint8Array>({
        pull(controller): Promise<void> | void {
          if (!first) return new Promise(() => {});
          first = false;
          controller.enqueue(bytes.slice(0, 200_000));
        },
        cancel(why): void {
          cancelled = why;
        },
      }, { highWaterMark: 0 });
      const reader = await openSnapshot(stuck);
      const all = new Collector();
      const reading = reader.payload.pipeTo(all.stream);
      reading.catch(() => {});
      await turn();
      await turn();
      const finishing = reader.finish();
      finishing.catch(() => {});
      await turn();
      await reader.cancel(reason);
      await reader.cancel(new Error("Again"));
      assertStrictEquals(cancelled, reason);
      const error = await assertRejects(() => finishing);
      if (reason) assertStrictEquals(error, reason);
      await assertRejects(() => reading);
      await assertRejects(() => reader.finish());
      assertStrictEquals(reader.sourceError, undefined);
    }
  });

  Deno.test(`R9 cancel() after finish() has no effect, also if the source fails to cancel (${compression})`, async () => {
    const { bytes } = await makeSample(compression);
    const reader = await openSnapshot(source(bytes));
    await reader.finish();
    await reader.cancel();
    const one = source(bytes).getReader();
    const failing = new ReadableStream<Uint8Array>({
      async pull(controller): Promise<void> {
        controller.enqueue((await one.read()).value as Uint8Array);
      },
      cancel(): void {
        throw new Error("cancel() failed");
      },
    }, { highWaterMark: 0 });
    await (await openSnapshot(failing)).cancel();
  });

  Deno.test(`R9 files() rejects with the error of onFile (${compression})`, async () => {
    const { bytes } = await makeSample(compression);
    const reason = new Error("ENOSPC: no space left");
    const reader = await openSnapshot(source(bytes));
    const thrown = await assertRejects(() =>
      reader.files(async (_fileID, _metadata, stream) => {
        await stream.getReader().read();
        throw reason;
      })
    );
    assertStrictEquals(thrown, reason);
    assertStrictEquals(reader.sourceError, undefined);
    // The rest can still be verified.
    assertEquals(await reader.finish(), { files: 2 });
  });

  Deno.test(`R9 the source is read on demand (${compression})`, async () => {
    const { bytes } = await makeSample(compression);
    let given = 0;
    const counted = source(bytes, 10_000).pipeThrough(
      new TransformStream<Uint8Array, Uint8Array>(
        {
          transform(chunk, controller): void {
            given += chunk.length;
            controller.enqueue(chunk);
          },
        },
        undefined,
        { highWaterMark: 0 },
      ),
    );
    const reader = await openSnapshot(counted);
    const machine = reader.payload.getReader();
    for (let taken = 0; taken < 100_000;) {
      taken += (await machine.read()).value?.length ?? 0;
      for (let i = 0; i < 5; i++) await turn();
      assert(given <= taken + 4 * 65_536, `${given} given for ${taken}`);
    }
    await reader.cancel();
  });
}

async function readPart(stream: ReadableStream<Uint8Array>): Promise<void> {
  assertEquals((await stream.getReader().read()).value?.[0], content[0]);
}

Deno.test("H11 openSnapshot() inflates a decompression bomb in small parts", async () => {
  const MIB = 1024 * 1024;
  const zeros = new Uint8Array(MIB);
  let left = 256;
  const payload = new ReadableStream<Uint8Array>({
    pull(controller): void {
      if (left-- > 0) controller.enqueue(zeros);
      else controller.close();
    },
  }, { highWaterMark: 0 });
  const sink = new Collector();
  const writer = new SnapshotWriter(
    sink.stream,
    makeHeader({ compression: "gzip" }),
    new Uint8Array(),
  );
  await payload.pipeTo(writer.payload);
  await writer.finish();
  const { bytes } = sink;
  assert(bytes.length < MIB, `${bytes.length} bytes`);
  const reader = await openSnapshot(source(bytes));
  const machine = reader.payload.getReader();
  let largest = 0;
  let total = 0;
  for (let read; !(read = await machine.read()).done;) {
    largest = Math.max(largest, read.value.length);
    total += read.value.length;
  }
  assertEquals(total, 256 * MIB);
  assert(largest <= 5 * MIB, `A chunk of ${largest} bytes`);
  await reader.finish();

  // A machine that reads nothing has nothing inflated but the first piece.
  const before = bytesInUse();
  const idle = await openSnapshot(source(bytes));
  await idle.payload.getReader().read();
  for (let i = 0; i < 20; i++) await turn();
  const grown = bytesInUse() - before;
  assert(grown < 64 * MIB, `${grown} bytes were taken`);
  await idle.finish();
});
