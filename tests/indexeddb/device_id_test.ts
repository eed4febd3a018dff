import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { indexedDB } from "fake-indexeddb";
import { newNodeID } from "../../mod.ts";
import { deviceID } from "../../src/indexeddb/mod.ts";

Deno.test("case B3: a device has one node id in all tabs, and never that of a server [H12]", async () => {
  const options = { indexedDB, name: "tabs" };
  const [one, other] = await Promise.all([
    deviceID(options),
    deviceID(options),
  ]);
  assertEquals(one, other);
  assertEquals(await deviceID(options), one);
  assert(one >= 1n << 62n && one < 1n << 64n);
  assertNotEquals(await deviceID({ indexedDB, name: "other" }), one);
});

Deno.test("case B3: without storage, a device has another node id at each call [H12]", async () => {
  const options = { indexedDB: null };
  assertNotEquals(await deviceID(options), await deviceID(options));
  assert(newNodeID({ random64: () => 0n }) > 0n);
});
