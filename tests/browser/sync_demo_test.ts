import { assertEquals, assertMatch } from "@std/assert";
import {
  type Browser,
  type Engine,
  ENGINES,
  launch,
  removeFolder,
} from "./browser.ts";
import { sleep } from "../sync/server_process.ts";
import { DemoServer, Person, type Seen } from "./sync_demo.ts";

/** Demo opened in each engine. */
class Room implements AsyncDisposable {
  readonly server: DemoServer;
  readonly people = new Map<Engine, Person>();
  readonly #folder: string;
  readonly #browsers: Browser[] = [];

  private constructor(folder: string) {
    this.#folder = folder;
    this.server = new DemoServer(`${folder}/data`);
  }

  static async open(): Promise<Room> {
    const room = new Room(await Deno.makeTempDir({ prefix: "demo-" }));
    await room.server.start();
    for (const engine of ENGINES) {
      const profile = `${room.#folder}/${engine}`;
      await Deno.mkdir(profile);
      const browser = await launch(engine, { profile });
      room.#browsers.push(browser);
      const page = await browser.open(room.server.url);
      room.people.set(engine, new Person(engine, page));
    }
    return room;
  }

  person(engine: Engine): Person {
    return this.people.get(engine)!;
  }

  /**
   * Waits until every page shows these items and the same hash, and no
   * submission is pending.
   */
  async agree(items: readonly string[]): Promise<void> {
    const hashes = new Set<string>();
    for (const person of this.people.values()) {
      const { hash } = await person.until((seen) =>
        seen.state === "live" && seen.pending === "0" &&
        sameItems(seen, items)
      );
      hashes.add(hash);
    }
    assertEquals(hashes.size, 1, [...hashes].join(", "));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const browser of this.#browsers) await browser.close();
    await this.server.stop("SIGTERM");
    await removeFolder(this.#folder);
  }
}

/** True if exactly these items are shown, in any order. */
function sameItems({ items }: Seen, expected: readonly string[]): boolean {
  return [...items].sort().join() === [...expected].sort().join();
}

let opened: Promise<Room> | undefined;

function test(name: string, run: (room: Room) => Promise<void>): void {
  Deno.test({
    name,
    sanitizeOps: false,
    sanitizeResources: false,
    async fn(): Promise<void> {
      await run(await (opened ??= Room.open()));
    },
  });
}

Deno.test.afterAll(async () => {
  await (await opened?.catch(() => undefined))?.[Symbol.asyncDispose]();
});

test("U15 U30 three browsers at the demo edit with the plug pulled, and agree once it is in", async (room) => {
  const expected: string[] = [];
  for (const [engine, person] of room.people) {
    await person.until(({ state }) => state === "live");
    await person.add(`${engine} was here`);
    expected.push(`${engine} was here`);
  }
  await room.agree(expected);
  for (const [engine, person] of room.people) {
    await person.click("#plug");
    await person.until(({ state }) => state === "offline");
    await person.add(`${engine} alone`);
    const mine = [...expected, `${engine} alone…`];
    await person.until((seen) => seen.pending === "1" && sameItems(seen, mine));
  }
  for (const person of room.people.values()) await person.kept();
  // Applied entries become durable on the device about once a second.
  await sleep(2_000);
  for (const [engine, person] of room.people) {
    // The page stays offline over a reload, as the guide promises.
    await person.reload();
    const mine = [...expected, `${engine} alone…`];
    await person.until((seen) =>
      seen.state === "offline" && seen.pending === "1" && sameItems(seen, mine)
    );
  }
  // One client overwrites an item, another removes it; both are offline.
  const [chromium, firefox] = [room.person("Chromium"), room.person("Firefox")];
  const { items } = await chromium.look();
  const at = items.indexOf("WebKitGTK was here");
  await chromium.edit(at, "changed");
  await firefox.click("[type=checkbox]", items.indexOf("Firefox was here"));
  await chromium.until(({ items, pending }) =>
    items.includes("changed…") && pending === "2"
  );
  await firefox.until(({ items }) => items.includes("✓Firefox was here…"));
  for (const person of room.people.values()) await person.click("#plug");
  await room.agree([
    "Chromium was here",
    "✓Firefox was here",
    "changed",
    "Chromium alone",
    "Firefox alone",
    "WebKitGTK alone",
  ]);
});

for (const engine of ENGINES) {
  test(`U18 ${engine} shows that the demo's server refuses a text, until that is dismissed`, async (room) => {
    const person = room.person(engine);
    const before = await person.until(({ state }) => state === "live");
    await person.add("long ".repeat(60));
    const { refused } = await person.until(({ refused }) => refused !== "");
    assertMatch(refused, /refused: An item may have at most 120 letters/);
    await person.click("#refused button");
    const after = await person.until(({ refused }) => refused === "");
    assertEquals(after.items, before.items);
    assertEquals([after.pending, after.problem], ["0", ""]);
  });
}

test("U21 U38 the demo opens with no server, takes edits, and sends them once there is one again", async (room) => {
  const { items } = await room.person("Chromium").look();
  const expected = [...items];
  for (const person of room.people.values()) await person.kept();
  // Applied entries become durable on the device about once a second.
  await sleep(2_000);
  await room.server.stop("SIGKILL");
  for (const [engine, person] of room.people) {
    await person.until(({ state }) => state !== "live");
    await person.reload();
    await person.until((seen) => sameItems(seen, items));
    await person.add(`${engine} in the dark`);
    await person.until(({ pending }) => pending === "1");
    await person.reload();
    await person.until((seen) =>
      seen.pending === "1" &&
      sameItems(seen, [...items, `${engine} in the dark…`])
    );
    expected.push(`${engine} in the dark`);
  }
  await room.server.start();
  await room.agree(expected);
});

test("case B2: the demo whose server has lost its list offers to save what is here, and to start over [H19, U33, U36]", async (room) => {
  for (const [engine, person] of room.people) {
    await person.until(({ state }) => state === "live");
    await person.add(`${engine} was there`);
    await person.until(({ pending, hash }) =>
      pending === "0" && hash !== "0000000000000000"
    );
    await person.kept();
  }
  // Applied entries become durable on the device about once a second.
  await sleep(2_000);
  await room.server.stop("SIGTERM");
  await room.server.reset();
  await room.server.start();
  for (const person of room.people.values()) {
    await person.until(({ state }) => state === "blocked");
    await person.click("#save");
    await person.click("#start-over:not([disabled])");
    await person.until((seen) => seen.state === "live" && sameItems(seen, []));
  }
  const expected: string[] = [];
  for (const [engine, person] of room.people) {
    await person.add(`${engine} goes on`);
    expected.push(`${engine} goes on`);
    await room.agree(expected);
  }
});
