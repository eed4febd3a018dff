import { assertEquals } from "@std/assert";
import { ByteWriter, crc32 } from "../../src/bytes.ts";
import { decodeHead, encodeHead } from "../../src/offline/outbox_block.ts";

const CLUSTER = 7n;

/** Head of an outbox without a session. */
const HEAD = {
  decided: 3,
  sendLimit: 5,
  clientID: 11n,
  lostSession: 2,
  owner: undefined,
  session: undefined,
};

Deno.test("H13 the head of an outbox that version 2 wrote, with an owner and no history, is read", () => {
  const bytes = new ByteWriter().raw(new Uint8Array(4)).u8(2).u64(CLUSTER)
    .varint(3).varint(5).u64(11n).varint(2).u8(1)
    .bytes(new Uint8Array([1, 2])).varint(9).u64(11n).varint(1).u64(11n)
    .finish();
  new DataView(bytes.buffer).setUint32(0, crc32(bytes, 0, 4), true);
  assertEquals(decodeHead({ key: "head", bytes }, CLUSTER), {
    decided: 3,
    sendLimit: 5,
    clientID: 11n,
    lostSession: 2,
    owner: new Uint8Array([1, 2]),
    session: { index: 9, clientID: 11n, base: 1, holders: [11n] },
  });
});

Deno.test("H13 H19 the head of an outbox has principal, point of the history, and whether its session is superseded", () => {
  const session = { index: 9, clientID: 11n, base: 1, holders: [11n, 12n] };
  for (
    const one of [
      HEAD,
      { ...HEAD, author: "anä", session },
      { ...HEAD, principal: "älice", session },
      { ...HEAD, session: { ...session, isSuperseded: true } },
      {
        ...HEAD,
        session: { ...session, known: { index: 40, epoch: undefined } },
      },
      {
        ...HEAD,
        session: {
          ...session,
          known: { index: 40, epoch: { index: 30, id: 1n << 63n } },
          isSuperseded: true,
        },
      },
    ]
  ) {
    const bytes = encodeHead(CLUSTER, one);
    assertEquals(decodeHead({ key: "head", bytes }, CLUSTER), one);
  }
});

Deno.test("Y5 the head of an outbox without an author can be read by the version before, and one with an author is refused there", () => {
  assertEquals(encodeHead(CLUSTER, HEAD)[4], 3);
  assertEquals(encodeHead(CLUSTER, { ...HEAD, author: "ann" })[4], 4);
});
