import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import {
  ErrSnapshotUnfinished,
  openSnapshot,
  type SnapshotHeader,
  SnapshotWriter,
} from "../../src/snapshot/mod.ts";
import { ErrSnapshotStreaming } from "../../src/statemachine/mod.ts";
import {
  Collector,
  makeBytes,
  makeHeader,
  source,
} from "./container_fixtures.ts";
import { concat } from "../support/bytes.ts";

const BLOCK = 65_536;
const COMPRESSIONS = ["none", "gzip"] as const;

type Machine = (w: WritableStream<Uint8Array>) => unknown;

/** Saves the state of `machine` and reads it back. */
async function save(
  machine: Machine,
  compression: SnapshotHeader["compression"],
): Promise<Uint8Array> {
  const sink = new Collector();
  const writer = new SnapshotWriter(
    sink.stream,
    makeHeader({ compression }),
    new Uint8Array(3),
  );
  await machine(writer.payload);
  await writer.finish();
  assert(sink.closed);
  const reader = await openSnapshot(source(sink.bytes));
  const back = new Collector();
  await reader.payload.pipeTo(back.stream);
  await reader.finish();
  return back.bytes;
}

function turn(ms = 0): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Settles soon, or is told to hang. */
async function hangs(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  promise.then(() => settled = true, () => settled = true);
  for (let i = 0; i < 10 && !settled; i++) await turn(1);
  return !settled;
}

const bytes = makeBytes(3 * BLOCK + 100);
const half = bytes.length >> 1;

const MACHINES: Record<string, Machine> = {
  "pipes": (w) => source(bytes, 1000).pipeTo(w),
  "pipes and leaves it open": (w) =>
    source(bytes, 1000).pipeTo(w, { preventClose: true }),
  "writes and closes": async (w) => {
    const writer = w.getWriter();
    await writer.write(bytes);
    await writer.close();
  },
  "writes and releases": async (w) => {
    const writer = w.getWriter();
    await writer.write(bytes);
    writer.releaseLock();
  },
  "does not wait for its writes": (w) => {
    const writer = w.getWriter();
    for (let at = 0; at < bytes.length; at += 10_000) {
      writer.write(bytes.subarray(at, at + 10_000));
    }
    writer.releaseLock();
  },
  "does not wait and releases": (w) => {
    const writer = w.getWriter();
    writer.write(bytes.subarray(0, half));
    writer.write(bytes.subarray(half));
    writer.releaseLock();
  },
  "does not wait for its close": (w) => {
    const writer = w.getWriter();
    writer.write(bytes.subarray(0, half));
    writer.write(bytes.subarray(half));
    writer.close();
  },
  "writes after its close": async (w) => {
    const writer = w.getWriter();
    writer.write(bytes);
    const closed = writer.close();
    await assertRejects(() => writer.write(bytes), TypeError);
    await closed;
    await assertRejects(() => writer.write(bytes), TypeError);
  },
  "writes empty chunks": async (w) => {
    const writer = w.getWriter();
    const nothing = new Uint8Array();
    for (const part of [nothing, bytes, nothing]) await writer.write(part);
    writer.releaseLock();
  },
  "waits until it is ready": async (w) => {
    const writer = w.getWriter();
    for (let at = 0; at < bytes.length; at += 10_000) {
      await writer.ready;
      writer.write(bytes.slice(at, at + 10_000));
    }
    writer.releaseLock();
  },
  "uses its buffer again": async (w) => {
    const writer = w.getWriter();
    const buffer = new Uint8Array(1000);
    for (let at = 0; at < bytes.length; at += 1000) {
      const part = bytes.subarray(at, at + 1000);
      buffer.set(part);
      await writer.write(buffer.subarray(0, part.length));
      buffer.fill(0xff);
    }
    writer.releaseLock();
  },
  "takes turns with another writer": async (w) => {
    for (let at = 0; at < bytes.length; at += 50_000) {
      const writer = w.getWriter();
      await writer.write(bytes.subarray(at, at + 50_000));
      writer.releaseLock();
    }
  },
};

for (const compression of COMPRESSIONS) {
  Deno.test(`R6 finish() includes every write of the machine (${compression})`, async (t) => {
    for (const [name, machine] of Object.entries(MACHINES)) {
      await t.step(`that ${name}`, async () => {
        const saved = await save(machine, compression);
        assertEquals(saved.length, bytes.length);
        assert(saved.every((byte, i) => byte === bytes[i]));
      });
    }
  });

  Deno.test(`case C1: a stream left open and locked makes the snapshot invalid (${compression}) [R6, H16]`, async () => {
    for (
      const leave of [
        (w: WritableStream<Uint8Array>) => w.getWriter().write(bytes),
        (w: WritableStream<Uint8Array>) => void w.getWriter(),
        // Its bytes come when the snapshot is long done.
        (w: WritableStream<Uint8Array>) =>
          void new ReadableStream<Uint8Array>({
            async pull(controller): Promise<void> {
              for (let i = 0; i < 20; i++) await turn();
              controller.enqueue(bytes);
              controller.close();
            },
          }).pipeTo(w),
      ]
    ) {
      const sink = new Collector();
      const writer = new SnapshotWriter(
        sink.stream,
        makeHeader({ compression }),
        new Uint8Array(),
      );
      await leave(writer.payload);
      const error = await assertRejects(
        () => writer.finish(),
        ErrSnapshotUnfinished,
      );
      await writer.abort(error);
      assertStrictEquals(sink.aborted, error);
      // What it forgot is not to fail either: nothing would handle that.
      for (let i = 0; i < 30; i++) await turn();
    }
  });

  Deno.test(`case C1: a write after the end is dropped and reported (${compression}) [R6, H16]`, async () => {
    const sink = new Collector();
    const late: ErrSnapshotUnfinished[] = [];
    const writer = new SnapshotWriter(
      sink.stream,
      makeHeader({ compression }),
      new Uint8Array(),
      { onLate: (error) => void late.push(error) },
    );
    const machine = writer.payload.getWriter();
    await machine.write(bytes);
    machine.releaseLock();
    await writer.finish();
    const size = sink.bytes.length;
    assertEquals(late, []);
    const again = writer.payload.getWriter();
    await again.write(bytes);
    await again.write(bytes);
    await turn();
    assertEquals(sink.bytes.length, size);
    assertEquals(late.length, 1);
    assertInstanceOf(late[0], ErrSnapshotUnfinished);
    await writer.abort(late[0]);
    assertEquals(sink.aborted, undefined);
  });

  Deno.test(`case C1: a write that misses the end of the payload fails the snapshot (${compression}) [R6, H16]`, async () => {
    let release = (): void => {};
    const slow = new Promise<void>((resolve) => release = resolve);
    const sink = new WritableStream<Uint8Array>({
      write: (chunk) => chunk[7] === 3 ? slow : undefined,
    });
    const writer = new SnapshotWriter(
      sink,
      makeHeader({ compression }),
      new Uint8Array(),
    );
    const machine = writer.payload.getWriter();
    await machine.write(bytes.subarray(0, 10));
    machine.releaseLock();
    const finishing = writer.finish();
    finishing.catch(() => {});
    for (let i = 0; i < 5; i++) await turn();
    await writer.payload.getWriter().write(bytes);
    release();
    const error = await assertRejects(() => finishing, ErrSnapshotUnfinished);
    await writer.abort(error);
  });

  Deno.test(`R8 a machine that aborts its stream fails finish() (${compression})`, async () => {
    for (const unawaited of [false, true]) {
      const sink = new Collector();
      const writer = new SnapshotWriter(
        sink.stream,
        makeHeader({ compression }),
        new Uint8Array(),
      );
      const reason = new Error("saveSnapshot() gave up");
      const machine = writer.payload.getWriter();
      const written = machine.write(bytes);
      if (!unawaited) await written;
      written.catch(() => {});
      await machine.abort(reason);
      assertStrictEquals(await assertRejects(() => writer.finish()), reason);
      assertStrictEquals(writer.sinkError, undefined);
      await writer.abort(reason);
      assert(!sink.closed);
      assertStrictEquals(sink.aborted, reason);
    }
  });

  Deno.test(`R8 an error of a source that the machine pipes from fails finish() (${compression})`, async () => {
    const sink = new Collector();
    const writer = new SnapshotWriter(
      sink.stream,
      makeHeader({ compression }),
      new Uint8Array(),
    );
    const reason = new Error("EIO: disk is gone");
    const failing = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.error(reason),
    }, { highWaterMark: 0 });
    await assertRejects(() => failing.pipeTo(writer.payload));
    assertStrictEquals(await assertRejects(() => writer.finish()), reason);
    assertStrictEquals(writer.sinkError, undefined);
    await writer.abort(reason);
  });

  Deno.test(`R8 a chunk that is not bytes fails write() and finish() (${compression})`, async () => {
    const sink = new Collector();
    const writer = new SnapshotWriter(
      sink.stream,
      makeHeader({ compression }),
      new Uint8Array(),
    );
    const machine = writer.payload.getWriter() as WritableStreamDefaultWriter;
    const error = await assertRejects(() => machine.write("text"), TypeError);
    await assertRejects(() => machine.write(bytes));
    assertStrictEquals(await assertRejects(() => writer.finish()), error);
    assertStrictEquals(writer.sinkError, undefined);
    await writer.abort(error);
  });

  Deno.test(`D9 a sink that fails at any write fails every later call (${compression})`, async (t) => {
    for (const streaming of [false, true]) {
      for (let failing = 0; failing < 14; failing++) {
        await t.step(
          `${streaming ? "streaming, " : ""}write ${failing}`,
          async () => {
            const lost = new Error("ECONNRESET: receiver is lost");
            let writes = 0;
            const sink = new WritableStream<Uint8Array>({
              write(): void {
                if (writes++ === failing) throw lost;
              },
              close(): void {
                if (writes <= failing) throw lost;
              },
            });
            const writer = new SnapshotWriter(
              sink,
              makeHeader({ compression }),
              makeBytes(BLOCK + 1),
              { streaming },
            );
            const isIt = (error: unknown): void => {
              if (!streaming) return assertStrictEquals(error, lost);
              assertInstanceOf(error, ErrSnapshotStreaming);
              assertStrictEquals(error.cause, lost);
            };
            const machine = writer.payload.getWriter();
            try {
              for (let at = 0; at < bytes.length; at += 20_000) {
                await machine.write(bytes.subarray(at, at + 20_000));
              }
              machine.releaseLock();
            } catch (error) {
              isIt(error);
              isIt(await assertRejects(() => machine.write(bytes)));
              isIt(await assertRejects(() => machine.closed));
            }
            try {
              await writer.addFile(1n, bytes.subarray(0, 10), source(bytes));
            } catch (error) {
              isIt(error);
            }
            isIt(await assertRejects(() => writer.finish()));
            assertStrictEquals(writer.sinkError, lost);
            await writer.abort(new Error("Dropped"));
            isIt(await assertRejects(() => writer.finish()));
          },
        );
      }
    }
  });

  Deno.test(`D9 a lost sink fails the machine between its writes (${compression})`, async () => {
    let control!: WritableStreamDefaultController;
    const sink = new WritableStream<Uint8Array>({
      start(controller): void {
        control = controller;
      },
    });
    const writer = new SnapshotWriter(
      sink,
      makeHeader({ compression }),
      new Uint8Array(),
      { streaming: true },
    );
    const machine = writer.payload.getWriter();
    await machine.write(bytes.subarray(0, 10));
    control.error(new Error("Lost"));
    const big = crypto.getRandomValues(new Uint8Array(BLOCK - 10));
    await assertRejects(async () => {
      for (let i = 0; i < 3; i++) await machine.write(big);
    }, ErrSnapshotStreaming);
    await assertRejects(() => writer.finish(), ErrSnapshotStreaming);
    await writer.abort(undefined);
  });

  Deno.test(`R6 a slow sink exerts backpressure on the machine (${compression})`, async () => {
    let release = (): void => {};
    let taken = 0;
    const sink = new WritableStream<Uint8Array>({
      write(chunk): Promise<void> {
        taken += chunk.length;
        return new Promise((resolve) => release = resolve);
      },
    });
    const writer = new SnapshotWriter(
      sink,
      makeHeader({ compression }),
      new Uint8Array(),
    );
    let given = 0;
    // Incompressible, so that blocks come out as they go in.
    const chunk = crypto.getRandomValues(new Uint8Array(BLOCK));
    const limit = 40 * BLOCK;
    const machine = (async () => {
      const own = writer.payload.getWriter();
      while (given < limit) {
        await own.write(chunk);
        given += chunk.length;
      }
      own.releaseLock();
    })();
    let most = 0;
    const released = (async () => {
      let done = false;
      const finished = machine.then(() => writer.finish())
        .finally(() => done = true);
      while (!done) {
        for (let i = 0; i < 3; i++) await turn();
        most = Math.max(most, given - taken);
        release();
      }
      await finished;
    })();
    await released;
    assert(taken >= limit);
    assert(most <= 6 * BLOCK, `${most} bytes were held`);
  });

  Deno.test(`F2 a file whose content fails fails the snapshot (${compression})`, async () => {
    const sink = new Collector();
    const writer = new SnapshotWriter(
      sink.stream,
      makeHeader({ compression }),
      new Uint8Array(),
    );
    await writer.addFile(1n, new Uint8Array(), source(bytes));
    const reason = new Error("read() failed");
    let reads = 0;
    const failing = new ReadableStream<Uint8Array>({
      pull(controller): void {
        if (reads++ < 3) controller.enqueue(bytes.slice());
        else controller.error(reason);
      },
    }, { highWaterMark: 0 });
    const added = writer.addFile(2n, new Uint8Array(), failing);
    assertStrictEquals(await assertRejects(() => added), reason);
    assertStrictEquals(await assertRejects(() => writer.finish()), reason);
    assertStrictEquals(writer.sinkError, undefined);
    await writer.abort(reason);
    assertStrictEquals(sink.aborted, reason);
  });

  Deno.test(`R8 abort() fails pending writes (${compression})`, async () => {
    const reason = new Error("abort() was called");
    const never = new Promise<void>(() => {});
    for (const what of ["write", "file", "finish"] as const) {
      let cancelled: unknown;
      const sink = new WritableStream<Uint8Array>({
        write: () => what === "file" ? undefined : never,
      });
      const writer = new SnapshotWriter(
        sink,
        makeHeader({ compression }),
        new Uint8Array(),
      );
      let waiting: Promise<unknown>;
      if (what === "write") {
        const machine = writer.payload.getWriter();
        waiting = machine.write(bytes);
      } else if (what === "file") {
        const stuck = new ReadableStream<Uint8Array>({
          pull: () => never,
          cancel(why): void {
            cancelled = why;
          },
        });
        waiting = writer.addFile(1n, new Uint8Array(), stuck);
      } else {
        waiting = writer.finish();
      }
      assert(await hangs(waiting));
      // A sink that hangs keeps abort() waiting, not what waits on the writer.
      const aborted = writer.abort(reason);
      if (what === "file") await aborted;
      assertStrictEquals(
        await assertRejects(() => waiting),
        reason,
        `${what} was not ended`,
      );
      if (what === "file") assertStrictEquals(cancelled, reason);
      assertStrictEquals(await assertRejects(() => writer.finish()), reason);
      assertStrictEquals(writer.sinkError, undefined);
    }
  });
}

Deno.test("R7 abort() aborts the sink, is idempotent and never throws", async () => {
  for (const reason of [new Error("abort() was called"), undefined]) {
    const sink = new Collector();
    const writer = new SnapshotWriter(
      sink.stream,
      makeHeader(),
      new Uint8Array(),
    );
    await writer.payload.getWriter().write(bytes);
    await writer.abort(reason);
    await writer.abort(new Error("Again"));
    assertStrictEquals(sink.aborted, reason);
    await assertRejects(() => writer.finish());
    const content = source(bytes);
    await assertRejects(() => writer.addFile(1n, new Uint8Array(), content));
  }
  const failing = new WritableStream<Uint8Array>({
    abort(): void {
      throw new Error("abort() failed");
    },
  });
  const writer = new SnapshotWriter(failing, makeHeader(), new Uint8Array());
  await writer.abort(new Error("abort() was called"));
});

Deno.test("R8 finish() rejects with the error of a sink that fails before the first write", async () => {
  const lost = new Error("Lost");
  const sink = new WritableStream<Uint8Array>({
    start: () => Promise.reject(lost),
  });
  const writer = new SnapshotWriter(sink, makeHeader(), new Uint8Array());
  await turn();
  assertStrictEquals(await assertRejects(() => writer.finish()), lost);
  assertStrictEquals(writer.sinkError, lost);
});

Deno.test("F1 addFile() refuses a file that a container cannot hold, and cancels its content", async () => {
  for (
    const [fileID, metadata] of [
      [-1n, new Uint8Array()],
      [1n << 64n, new Uint8Array()],
      [1n, new Uint8Array(65_529)],
    ] as const
  ) {
    const sink = new Collector();
    const writer = new SnapshotWriter(
      sink.stream,
      makeHeader(),
      new Uint8Array(),
    );
    let cancelled = false;
    const content = new ReadableStream<Uint8Array>({
      cancel(): void {
        cancelled = true;
      },
    });
    const error = await assertRejects(
      () => writer.addFile(fileID, metadata, content),
      RangeError,
    );
    assert(cancelled);
    assertStrictEquals(await assertRejects(() => writer.finish()), error);
    await writer.abort(error);
  }
});

Deno.test("H4 SnapshotWriter refuses more sessions than a container may hold", () => {
  // Not a real array: one of 1 GiB is more than a test should need.
  const sessions = Object.defineProperty(new Uint8Array(), "length", {
    value: 2 ** 30 + 1,
  });
  const sink = new Collector();
  assertThrows(
    () => new SnapshotWriter(sink.stream, makeHeader(), sessions),
    RangeError,
  );
  assert(!sink.stream.locked);
});

Deno.test("R6 SnapshotWriter passes chunks to the sink that are never modified", async () => {
  const kept: Uint8Array[] = [];
  const copies: Uint8Array[] = [];
  const sink = new WritableStream<Uint8Array>({
    write(chunk): void {
      kept.push(chunk);
      copies.push(chunk.slice());
    },
  });
  const writer = new SnapshotWriter(sink, makeHeader(), makeBytes(100));
  await source(bytes, 999).pipeTo(writer.payload);
  await writer.addFile(1n, makeBytes(10), source(bytes));
  await writer.finish();
  const expected = concat(copies);
  assert(concat(kept).every((byte, i) => byte === expected[i]));
});
