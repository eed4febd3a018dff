import { assertEquals } from "@std/assert";
import { Presence } from "../../web/presence.ts";

/** Relay of presence on a port. */
class Relay implements AsyncDisposable {
  readonly presence = new Presence();
  readonly #server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen(): void {} },
    (request) =>
      this.presence.handle(request) ?? new Response(null, { status: 404 }),
  );

  get host(): string {
    return `127.0.0.1:${(this.#server.addr as Deno.NetAddr).port}`;
  }

  /** Opens a WebSocket; with the code of its end, and what it has received. */
  async join(
    board: string,
    origin = `http://${this.host}`,
  ): Promise<Guest> {
    const socket = new WebSocket(
      `ws://${this.host}/presence?board=${board}`,
      { headers: { origin } } as unknown as string[],
    );
    const guest = new Guest(socket);
    await Promise.race([guest.opened, guest.closed]);
    return guest;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.presence.close();
    await this.#server.shutdown();
  }
}

class Guest {
  readonly heard: unknown[] = [];
  isAdmitted = false;
  readonly opened: Promise<void>;
  readonly closed: Promise<number>;
  #told = Promise.withResolvers<void>();
  readonly #socket: WebSocket;

  constructor(socket: WebSocket) {
    this.#socket = socket;
    this.opened = new Promise((resolve) =>
      socket.onopen = (): void => {
        this.isAdmitted = true;
        resolve();
      }
    );
    this.closed = new Promise((resolve) =>
      socket.onclose = ({ code }): void => resolve(code)
    );
    socket.onmessage = ({ data }): void => {
      this.heard.push(JSON.parse(data));
      this.#told.resolve();
      this.#told = Promise.withResolvers();
    };
  }

  say(message: unknown): void {
    this.#socket.send(
      typeof message === "string" ? message : JSON.stringify(message),
    );
  }

  leave(): void {
    this.#socket.close();
  }

  /** Waits until it has heard that many messages. */
  async hears(count: number): Promise<unknown[]> {
    while (this.heard.length < count) await this.#told.promise;
    return this.heard;
  }
}

const visit = (name: string): unknown => ({
  device: name,
  name,
  card: null,
  isWriting: false,
});

Deno.test("presence goes to the other pages of a board, also to those that come later, until its page leaves", async () => {
  await using relay = new Relay();
  const ann = await relay.join("plans");
  const bob = await relay.join("plans");
  const eve = await relay.join("other");
  ann.say({ ...Object(visit("ann")), more: "x" });
  assertEquals(await bob.hears(1), [{ id: 1, visit: visit("ann") }]);
  const cat = await relay.join("plans");
  assertEquals(await cat.hears(1), [{ id: 1, visit: visit("ann") }]);
  ann.leave();
  assertEquals((await cat.hears(2))[1], { id: 1 });
  assertEquals([ann.heard, eve.heard], [[], []]);
  relay.presence.close();
  await Promise.all([bob.closed, cat.closed, eve.closed]);
});

Deno.test("presence is bounded: malformed messages, other origins, too many pages and too many messages are refused", async () => {
  await using relay = new Relay();
  const refused = [
    await relay.join("plans", "http://evil.example"),
    await relay.join(""),
    await relay.join("No-Slug"),
  ];
  assertEquals(refused.some(({ isAdmitted }) => isAdmitted), false);
  for (
    const message of [
      "{",
      "null",
      "x".repeat(500),
      { ...Object(visit("ann")), card: 7 },
      visit("x".repeat(40)),
    ]
  ) {
    const guest = await relay.join("plans");
    guest.say(message);
    assertEquals(await guest.closed, 1008);
  }
  const guests: Guest[] = [];
  for (let i = 0; i < 50; i++) guests.push(await relay.join("plans"));
  assertEquals((await relay.join("plans")).isAdmitted, false);
  // Those above ten a second are dropped; the turn of a second may lie between them.
  for (let i = 0; i < 40; i++) guests[0]!.say(visit(`v${i}`));
  guests[0]!.leave();
  const heard = guests[1]!.heard;
  const isGone = (): boolean =>
    heard.length > 0 && Object(heard.at(-1)).visit === undefined;
  while (!isGone()) await guests[1]!.hears(heard.length + 1);
  assertEquals(heard.length <= 21, true, `${heard.length} messages`);
  relay.presence.close();
  for (const guest of guests) await guest.closed;
});
