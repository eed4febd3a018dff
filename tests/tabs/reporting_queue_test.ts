import { assertEquals } from "@std/assert";
import { MemoryBlockStore } from "../../mod.ts";
import { BlockOutbox } from "../../src/offline/block_outbox.ts";
import { ReportingQueue } from "../../src/tabs/reporting_queue.ts";
import { FaultyBlockStore } from "../../src/testing/faulty_block_store.ts";
import { bytes } from "../support/bytes.ts";
import { settle } from "../support/environment.ts";

Deno.test("U17 M3 the leading tab tells the other tabs that a command is refused or dismissed once that survives a power cut, in order", async () => {
  const store = new FaultyBlockStore({
    store: new MemoryBlockStore(),
    asynchronous: true,
  });
  const outbox = new BlockOutbox(store);
  const told: [kind: string, unsynced: number][] = [];
  const queue = new ReportingQueue(
    await outbox.open(1n, () => {}),
    ({ kind }) => {
      if (kind !== "added") told.push([kind, store.unsynced]);
    },
  );
  const cmd = bytes("a");
  const number = await queue.add(cmd);
  assertEquals(store.unsynced, 1);
  const reason = "Poisoned";
  queue.note({ settle: { number, state: "refused", reason, cmd } });
  assertEquals(told, []);
  await settle(20);
  assertEquals(told, [["settled", 0]]);
  // Dismissed before the refusal is durable.
  queue.note({ settle: { number, state: "refused", reason, cmd } });
  queue.note({ settle: { number, state: "dismissed", reason: "", cmd } });
  await queue.flush();
  await settle(20);
  assertEquals(told.map(([kind]) => kind), ["settled", "settled", "dismissed"]);
  await outbox.close();
});
