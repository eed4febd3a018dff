import { assertEquals, assertInstanceOf } from "@std/assert";
import { ErrProposalRefused, MemoryOutbox, type Result } from "../../mod.ts";
import { BlockOutbox } from "../../src/ports/mod.ts";
import { ByteWriter, crc32 } from "../../src/bytes.ts";
import { REFUSAL_BYTES_MAX } from "../../src/limits.ts";
import { encodeSettled } from "../../src/offline/outbox_block.ts";
import { FaultyBlockStore } from "../../src/testing/faulty_block_store.ts";
import { bytes, text } from "../support/bytes.ts";
import { checked, rejection } from "../support/environment.ts";
import { Disk } from "../machines/journal.ts";
import { start, type StartOptions, typesOf } from "../support/clusters.ts";
import { newLogDB, test } from "../support/log_tests.ts";

/** Refuses commands that begin with "no", by their result. */
const refusing = {
  refusal: ({ data }: Result): string | undefined =>
    data !== undefined && text(data).startsWith("no")
      ? `Not ${text(data).slice(3)}`
      : undefined,
};

async function refusalOf(
  promise: Promise<unknown>,
): Promise<ErrProposalRefused> {
  const error = await rejection(promise);
  assertInstanceOf(error, ErrProposalRefused);
  return error;
}

for (const kind of ["regular", "concurrent", "disk", "hosted"] as const) {
  test(
    `R15 a submission whose result the machine calls a refusal ends as refused, with reason and result, also after a reload (${kind})`,
    checked(async () => {
      await using logDB = newLogDB();
      await using outbox = new MemoryOutbox();
      const options: StartOptions = {
        kind,
        faults: refusing,
        disk: new Disk(),
        logDB,
        outbox,
      };
      const first = await start(options);
      const [a, no, c] = await Promise.all(
        ["a", "no b", "c"].map((cmd) => first.replica.submit(bytes(cmd))),
      );
      const error = await refusalOf(no!.result);
      assertEquals(error.reason, "Not b");
      assertEquals(error.result, { value: 2n, data: bytes("no b") });
      // The caller owns the result.
      error.result!.data!.fill(0);
      assertEquals((await a!.result).value, 1n);
      assertEquals((await c!.result).value, 3n);
      assertEquals([no!.state, no!.reason], ["refused", "Not b"]);
      assertEquals(first.replica.pending(), [no!]);
      await first.host.stop();

      const second = await start(options);
      const [kept] = second.replica.pending();
      assertEquals([kept!.state, kept!.reason], ["refused", "Not b"]);
      const again = await refusalOf(kept!.result);
      assertEquals(again.reason, "Not b");
      assertEquals(again.result, { value: 2n, data: bytes("no b") });
      await kept!.dismiss();
      assertEquals(second.replica.pending(), []);
      await second.host.stop();
      const unsynced = await outbox.unsynced(1n);
      assertEquals(unsynced.filter(({ state }) => state === "refused"), []);
    }),
  );
}

test(
  "R15 a refusal by the machine is known also if the process was killed before it was stored",
  checked(async () => {
    await using logDB = newLogDB();
    const store = new FaultyBlockStore();
    const options = { faults: refusing, logDB };
    const first = await start({ ...options, outbox: new BlockOutbox(store) });
    const [no, b] = await Promise.all(
      ["no a", "b"].map((cmd) => first.replica.submit(bytes(cmd))),
    );
    await b!.result;
    assertEquals(no!.state, "refused");
    const outbox = new BlockOutbox(store.crash(Infinity));
    await first.host.stop();
    const second = await start({ ...options, outbox });
    const [kept] = second.replica.pending();
    assertEquals([kept!.state, kept!.reason], ["refused", "Not a"]);
    assertEquals((await refusalOf(kept!.result)).result?.value, 1n);
    await second.host.stop();
  }),
);

test(
  "R15 propose() reports a refusal by the machine like one by a server, with the result in the error",
  checked(async () => {
    const { host, replica } = await start({ faults: refusing });
    const session = await replica.openSession();
    for (const options of [{}, { session }]) {
      const error = await refusalOf(replica.propose(bytes("no x"), options));
      assertEquals(error.reason, "Not x");
      assertEquals(error.result?.data, bytes("no x"));
      await replica.propose(bytes("x"), options);
    }
    assertEquals(replica.appliedIndex > 0, true);
    await host.stop();
  }),
);

test(
  "R15 a refusal() that throws, or returns no text, refuses nothing, fails nothing and is reported",
  checked(async () => {
    let answer: () => unknown = () => {
      throw new Error("Broken");
    };
    const { host, replica, events } = await start({
      faults: { refusal: () => answer() as string },
      outbox: new MemoryOutbox(),
    });
    assertEquals((await replica.propose(bytes("a"))).value, 1n);
    answer = (): unknown => false;
    const submission = await replica.submit(bytes("b"));
    assertEquals((await submission.result).value, 2n);
    assertEquals(typesOf(events), ["refusal failed", "refusal failed"]);
    answer = (): unknown => "";
    const empty = await refusalOf(replica.propose(bytes("c")));
    assertEquals(empty.reason, "It is not allowed");
    answer = (): unknown => "é".repeat(REFUSAL_BYTES_MAX);
    const long = await refusalOf(replica.propose(bytes("d")));
    assertEquals(long.reason, "é".repeat(REFUSAL_BYTES_MAX / 2));
    await host.stop();
  }),
);

test("R15 a stored command of an earlier version, without a result, can be read", async () => {
  const store = new FaultyBlockStore();
  const key = "outbox/0000000000000001/k/00000000000001";
  const writer = new ByteWriter().u32(0).u8(1).u64(1n).varint(1).u8(0)
    .bytes(bytes("No")).raw(bytes("cmd"));
  const block = writer.finish();
  new DataView(block.buffer).setUint32(0, crc32(block, 0, 4), true);
  // The same bytes as before, so that older code can read it.
  assertEquals(
    encodeSettled(1n, {
      number: 1,
      state: "refused",
      reason: "No",
      cmd: bytes("cmd"),
    }),
    block,
  );
  store.write({ put: [{ key, bytes: block }] }, "strict");
  const unsynced = await new BlockOutbox(store).unsynced(1n);
  assertEquals(unsynced.map(({ id, state, cmd }) => [id, state, text(cmd)]), [
    [1, "refused", "cmd"],
  ]);
});
