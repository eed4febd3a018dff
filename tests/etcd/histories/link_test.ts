import { assertEquals, assertRejects } from "@std/assert";
import { Link } from "./link.ts";

/** Server that answers each byte with the next one. */
class Echo implements AsyncDisposable {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #conns: Deno.TcpConn[] = [];
  readonly #done = this.#accept();

  get port(): number {
    return this.#listener.addr.port;
  }

  async #accept(): Promise<void> {
    const serving: Promise<void>[] = [];
    for await (const conn of this.#listener) {
      this.#conns.push(conn);
      serving.push(this.#serve(conn));
    }
    await Promise.all(serving);
  }

  async #serve(conn: Deno.TcpConn): Promise<void> {
    const byte = new Uint8Array(1);
    try {
      while (await conn.read(byte) !== null) {
        byte[0]!++;
        await conn.write(byte);
      }
    } catch {
      // Reset by the link.
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    await this.#done;
    for (const conn of this.#conns) conn.close();
  }
}

/** Byte read from a connection; undefined if none comes for a while. */
function reader(conn: Deno.TcpConn): () => Promise<number | null | undefined> {
  const byte = new Uint8Array(1);
  let reading: Promise<number | null> | undefined;
  return async () => {
    reading ??= conn.read(byte).catch(() => null);
    const late = Promise.withResolvers<undefined>();
    const timer = setTimeout(() => late.resolve(undefined), 100);
    const count = await Promise.race([reading, late.promise]);
    clearTimeout(timer);
    if (count === undefined) return undefined;
    reading = undefined;
    return count === null ? null : byte[0]!;
  };
}

Deno.test("a silent link carries nothing in its directions, and all of it late once it is open", async () => {
  for (const state of ["silent", "mute", "deaf"] as const) {
    await using echo = new Echo();
    await using link = new Link(echo.port);
    using conn = await Deno.connect({ port: link.port });
    const next = reader(conn);
    await conn.write(new Uint8Array([1]));
    assertEquals(await next(), 2);
    link.set(state);
    await conn.write(new Uint8Array([3]));
    assertEquals(await next(), undefined, state);
    link.set("open");
    assertEquals(await next(), 4, state);
  }
});

Deno.test("a refused link closes its connections, and a dropped one what was silent", async () => {
  await using echo = new Echo();
  await using link = new Link(echo.port);
  using conn = await Deno.connect({ port: link.port });
  await conn.write(new Uint8Array([1]));
  assertEquals(await reader(conn)(), 2);
  link.set("refused");
  assertEquals(await reader(conn)(), null);
  link.set("silent");
  using silent = await Deno.connect({ port: link.port });
  assertEquals(await reader(silent)(), undefined);
  link.set("open", true);
  await assertRejects(async () => {
    if (await silent.read(new Uint8Array(1)) === null) throw new Error("end");
  });
  using again = await Deno.connect({ port: link.port });
  await again.write(new Uint8Array([7]));
  assertEquals(await reader(again)(), 8);
});
