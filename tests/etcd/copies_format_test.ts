import { assertEquals, assertThrows } from "@std/assert";
import {
  decodeCopies,
  encodeCopies,
  encodePointers,
} from "../../src/etcd/values.ts";
import { crc32 } from "../../src/bytes.ts";

const url = "http://10.0.0.1:8000/";
const snapshots = [
  { index: 300, size: 70_000, sha256: new Uint8Array(32).fill(7), id: "b" },
  { index: 200, size: 5, sha256: new Uint8Array(32).fill(9), id: "a" },
];

Deno.test("an announcement of snapshots is read as it was written", () => {
  const value = encodeCopies(5n, { url, snapshots });
  assertEquals(decodeCopies(value, 5n), { url, snapshots });
});

Deno.test("an announcement that is damaged, of another cluster or another version is refused", () => {
  const value = encodeCopies(5n, { url, snapshots });
  assertThrows(() => decodeCopies(value, 6n), RangeError, "cluster 5");
  const damaged = value.slice();
  damaged[20]! ^= 1;
  assertThrows(() => decodeCopies(damaged, 5n), RangeError, "Checksum");
  const newer = value.slice();
  newer[4] = 2;
  new DataView(newer.buffer).setUint32(0, crc32(newer, 0, 4), true);
  assertThrows(() => decodeCopies(newer, 5n), RangeError, "version is 2");
});

Deno.test("pointers have the layout that they had before servers announced snapshots", () => {
  const head = 13;
  const bytes = [...encodePointers(5n, [snapshots[1]!]).subarray(head)];
  assertEquals(bytes, [1, 200, 1, 5, ...snapshots[1]!.sha256, 1, 97]);
});
