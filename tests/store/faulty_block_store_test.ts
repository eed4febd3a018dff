import { assertEquals, assertRejects } from "@std/assert";
import { FaultyBlockStore } from "../../src/testing/faulty_block_store.ts";

const one = { put: [{ key: "a", bytes: Uint8Array.of(1) }] };
const two = { put: [{ key: "a", bytes: Uint8Array.of(2) }], delete: ["b"] };

for (const asynchronous of [false, true]) {
  const way = asynchronous ? "asynchronous" : "synchronous";
  Deno.test(`D6 FaultyBlockStore.crash() takes back what was not strict, ${way}`, async () => {
    const store = new FaultyBlockStore({ asynchronous });
    await store.write(one, "relaxed");
    await store.write(
      { put: [{ key: "b", bytes: Uint8Array.of(9) }] },
      "strict",
    );
    await store.write(two, "relaxed");
    await store.write({ deleteRanges: [["a", "z"]] }, "relaxed");
    assertEquals(store.names(), []);
    const partly = store.crash(1);
    assertEquals(partly.names(), ["a"]);
    assertEquals(await partly.get(["a"]), [Uint8Array.of(2)]);
    await assertRejects(
      async () => await store.get(["a"]),
      Error,
      "lost power",
    );
    await partly.write(one, "strict");
    assertEquals(await partly.crash().get(["a"]), [Uint8Array.of(1)]);
  });

  Deno.test(`D5 FaultyBlockStore fails the chosen write, ${way}`, async () => {
    for (const after of [false, true]) {
      const store = new FaultyBlockStore({ asynchronous });
      store.fault = { at: 2, after, error: new Error("No") };
      await store.write(one, "relaxed");
      await assertRejects(async () => await store.write(two, "relaxed"));
      assertEquals(await store.get(["a"]), [Uint8Array.of(after ? 2 : 1)]);
      await store.write(two, "relaxed");
      store.flip("a", 1);
      assertEquals(await store.get(["a"]), [Uint8Array.of(0)]);
      store.remove("a");
      assertEquals(store.names(), []);
    }
  });
}
