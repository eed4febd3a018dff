import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import { SYNC_MISMATCH_FIRST_MS } from "../../src/limits.ts";
import { ErrVersion } from "../../src/sync/errors.ts";
import { CloseCode } from "../../src/sync/transport.ts";
import { checked, settle } from "../support/environment.ts";
import { closeAndCheck, wire, world as clientWorld } from "./client_support.ts";
import { world } from "./server_support.ts";

/** Hello of a client that speaks version 1, which was MessagePack: `[1, 1, 1, token, credit, frameBytesMax, renews]`. */
const HELLO_1 = new Uint8Array([
  ...[0x97, 1, 1, 1, 0xa3, 0x74, 0x6f, 0x6b, 0xce, 0x00, 0x40, 0x00, 0x00],
  ...[0xcd, 0x04, 0x00, 0xc3],
]);

/** The same of its first releases, which did not renew tokens. */
const HELLO_1_EARLY = new Uint8Array([
  ...[0x96, 1, 1, 1, 0xc0, 0xcd, 0x03, 0xe8, 0xcd, 0x04, 0x00],
]);

Deno.test(
  "case A7: a server tells a client of version 1, in its own close code and in words, to reload its page [U14, H11]",
  checked(async () => {
    const w = await world();
    for (const hello of [HELLO_1, HELLO_1_EARLY]) {
      const client = w.connect();
      await client.until("opened", () => client.isOpen);
      client.transport.send(hello);
      assertEquals(await client.end(), {
        code: CloseCode.Version,
        reason:
          "This server speaks versions 2 to 4, this page 1 to 1: reload the page",
      });
    }
    // It needs no authentication to be told so, and harms nothing.
    await w.client();
    await w.stop();
  }),
);

/** Reads a hello as a server of version 1 does: the first fields of an array of MessagePack. Returns the versions. */
function versionsOfHello(frame: Uint8Array): readonly [number, number] {
  // An array of eight: code, versions, no token, two zeros, nothing, and bytes.
  const [array, code, first, last, token, credit, frameBytes, renews, bin] =
    frame;
  assertEquals([array, code], [0x98, 1]);
  assertEquals([token, credit, frameBytes, renews], [0xc0, 0, 0, 0xc0]);
  assertEquals(bin, 0xc5);
  const length = frame[9]! << 8 | frame[10]!;
  assertEquals(frame.length, 11 + length, "Array does not end with the frame");
  return [first!, last!];
}

Deno.test("case A7: a server of version 1 understands which versions a client speaks; the client says what to do, and does not ask again and again [U14, H18]", async () => {
  let attempts = 0;
  const w = clientWorld({
    connect: () => {
      attempts++;
      const [client, server] = wire();
      server.listen({
        opened: () => {},
        frame: (frame) => {
          const [first, last] = versionsOfHello(frame);
          server.close(
            CloseCode.Version,
            `This server speaks versions 1 to 1, this page ${first} to ${last}: update the server`,
          );
        },
        closed: () => {},
      });
      return client;
    },
  });
  await w.db.open(1n, 1n);
  await settle();
  const { state, error, reason } = w.db.status;
  assertEquals(state, "offline");
  assertInstanceOf(error, ErrVersion);
  assertEquals(reason?.code, "version");
  assertEquals(
    reason?.message,
    "This server speaks versions 1 to 1, this page 2 to 4: update the server",
  );
  // A hint of the browser makes it no faster.
  await w.env.advance(SYNC_MISMATCH_FIRST_MS / 2 - 1_000);
  w.wake();
  await settle();
  assertEquals(attempts, 1);
  await w.env.advance(2 * SYNC_MISMATCH_FIRST_MS);
  assert(attempts > 1 && attempts < 4, `${attempts} attempts`);
  await closeAndCheck(w);
});
