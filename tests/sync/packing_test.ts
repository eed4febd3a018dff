import { assert, assertEquals, assertThrows } from "@std/assert";
import { kv } from "../../mod.ts";
import { SYNC_FRAME_BYTES_MAX, SYNC_PACK_BYTES_MIN } from "../../src/limits.ts";
import { ErrProtocol } from "../../src/sync/errors.ts";
import { packFrame, unpackFrame } from "../../src/sync/packing.ts";
import { seeded } from "../support/random.ts";
import { packRecords, sessionProposal } from "./server_support.ts";

Deno.test("packFrame() keeps the bytes of any frame, and makes those of alike records small", () => {
  const { seed, below } = seeded();
  for (let i = 0; i < 400; i++) {
    const length = below(i % 8 === 0 ? 100_000 : 2_000);
    const kinds = 1 + below(256);
    const frame = Uint8Array.from({ length }, () => below(kinds));
    // Repetitions of any length and distance.
    for (let j = 0; j < length / 50; j++) {
      const from = below(length);
      const to = below(length);
      frame.copyWithin(to, from, from + below(600));
    }
    if (length > 0) frame[0] = 9;
    const packed = packFrame(frame);
    assert(packed.length <= frame.length, `seed ${seed}`);
    assertEquals(unpackFrame(packed), frame, `seed ${seed}`);
  }
  const records = packRecords(
    ...Array.from(
      { length: 1000 },
      (_, i) =>
        sessionProposal(3, 1000 + i, kv.put(`row-${i % 100}`, `value ${i}`)),
    ),
  ).bytes;
  assert(packFrame(records).length < 0.6 * records.length);
  const small = records.subarray(0, SYNC_PACK_BYTES_MIN - 1);
  assertEquals(packFrame(small), small);
});

Deno.test("unpackFrame() refuses what is malformed, and what would be too large [H11]", () => {
  const { seed, below } = seeded();
  const frame = new Uint8Array(3000).map((_, i) => i % 50);
  frame[0] = 9;
  const packed = packFrame(frame);
  assert(packed.length < 200);
  for (let i = 0; i < 2000; i++) {
    const damaged = packed.slice(0, 1 + below(packed.length));
    for (let j = 0; j <= below(3); j++) {
      const at = 1 + below(damaged.length);
      damaged[at] = below(256);
    }
    try {
      assert(unpackFrame(damaged).length <= SYNC_FRAME_BYTES_MAX);
    } catch (error) {
      assert(error instanceof ErrProtocol, `seed ${seed}: ${error}`);
    }
  }
  const bomb = new Uint8Array([33, 0xff, 0xff, 0xff, 0xff, 0x7f, 0]);
  assertThrows(() => unpackFrame(bomb), ErrProtocol, "over the limit");
  const far = new Uint8Array([33, 20, 0x10, 1, 9, 0, 0]);
  assertThrows(() => unpackFrame(far), ErrProtocol, "from 9 before byte 1");
  const short = new Uint8Array([33, 20, 0x10, 1]);
  assertThrows(() => unpackFrame(short), ErrProtocol, "1 bytes of 20");
});
