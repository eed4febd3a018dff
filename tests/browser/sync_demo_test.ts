import { assertEquals, assertMatch } from "@std/assert";
import {
  type Browser,
  type Engine,
  ENGINES,
  launch,
  type Page,
  removeFolder,
} from "./browser.ts";
import { findings } from "./looks.ts";
import { sleep } from "../sync/server_process.ts";
import { DemoServer, Person, type Seen } from "./sync_demo.ts";

/** Demo opened in each engine. */
class Room implements AsyncDisposable {
  readonly server: DemoServer;
  readonly people = new Map<Engine, Person>();
  readonly pages = new Map<Engine, Page>();
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
      const page = await browser.open(`${room.server.url}#demo`);
      room.pages.set(engine, page);
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
    const people = [...this.people.values()];
    for (const person of people) {
      await person.until((seen) =>
        seen.state === "live" && seen.pending === "0" &&
        sameItems(seen, items)
      );
    }
    // The hash is shown a moment later.
    const [first, ...others] = people as [Person, ...Person[]];
    for (const person of others) {
      let expected = "";
      await person.until(({ hash }) => {
        if (hash === expected) return true;
        first.look().then((seen) => expected = seen.hash, () => {});
        return false;
      });
    }
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
    await person.until(({ state }) => state === "unplugged");
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
      seen.state === "unplugged" && seen.pending === "1" &&
      sameItems(seen, mine)
    );
  }
  // One device writes in a card and another ticks it, both offline: both survive.
  const [chromium, firefox] = [room.person("Chromium"), room.person("Firefox")];
  const { items } = await chromium.look();
  const at = items.indexOf("WebKitGTK was here");
  await chromium.edit(at, "changed");
  await firefox.click("[type=checkbox]", at);
  await chromium.until(({ items, pending }) =>
    items.includes("changed…") && pending === "2"
  );
  await firefox.until(({ items }) => items.includes("✓WebKitGTK was here…"));
  for (const person of room.people.values()) await person.click("#plug");
  await room.agree([
    "Chromium was here",
    "Firefox was here",
    "✓changed",
    "Chromium alone",
    "Firefox alone",
    "WebKitGTK alone",
  ]);
});

for (const engine of ENGINES) {
  test(`U18 U25 ${engine} quotes what was typed in a card that another device archives, does not bring it back by itself, and takes it up again`, async (room) => {
    const person = room.person(engine);
    const other = [...room.people.values()].find((one) => one !== person)!;
    const before = await person.until(({ state }) => state === "live");
    await person.add("to be archived");
    const { items } = await other.until(({ items }) =>
      items.includes("to be archived")
    );
    const at = items.indexOf("to be archived");
    await person.type(at, "typed in vain");
    await other.press(at, "Delete");
    const { refused } = await person.until(({ refused }) => refused !== "");
    assertMatch(
      refused,
      /Not applied: you wrote .*typed in vain.* was archived in the meantime/,
    );
    const gone = await person.until(({ items }) => sameItems(before, items));
    assertEquals([gone.pending, gone.messages], ["0", {}]);
    await person.remedy("#refused", "Bring the card back, and apply it");
    await person.until(({ refused, items }) =>
      refused === "" && items.includes("typed in vain")
    );
    await other.until(({ items }) => items.includes("typed in vain"));
    await person.press(at, "Delete");
    await room.agree(before.items);
  });
}

for (const engine of ENGINES) {
  test(`cards are moved, ticked, written, archived and undone by keyboard alone, and axe finds nothing in the board and its dialogs (${engine})`, async (room) => {
    const person = room.person(engine);
    const page = room.pages.get(engine)!;
    const { items: before } = await person.until(({ state, pending }) =>
      state === "live" && pending === "0"
    );
    /** Waits for the order of the cards of this test. */
    const order = async (expected: string): Promise<Seen> =>
      await person.until(({ items }) =>
        items.map((item) => item.replace(/…$/, ""))
          .filter((item) => !before.includes(item)).join() === expected
      );
    const press = async (
      text: string,
      key: string,
      altKey = false,
    ): Promise<void> => {
      const { items } = await person.look();
      const at = items.findIndex((item) => item.replace(/…$/, "") === text);
      await person.press(at, key, altKey);
    };
    const focused = async (text: string): Promise<void> => {
      await person.do(
        `async (text) => {
          while (document.activeElement.textContent !== text) {
            await new Promise((resolve) => setTimeout(resolve, 20));
          }
        }`,
        text,
      );
    };
    for (const text of ["one", "two", "three"]) await person.add(text);
    await order("one,two,three");
    await press("three", "ArrowUp", true);
    await order("one,three,two");
    await focused("three");
    await press("one", "ArrowRight", true);
    await order("three,two,one");
    await focused("one");
    await press("one", "ArrowLeft");
    await press("two", "t");
    await order("three,✓two,one");
    const { items } = await person.look();
    await person.edit(
      items.findIndex((item) => item.startsWith("one")),
      "eins",
    );
    await order("three,✓two,eins");
    await press("three", "Delete");
    await order("✓two,eins");
    await person.click("button.undo");
    await order("three,✓two,eins");
    assertEquals(await findings(page), []);
    for (const button of [".card .more", ".list > header .more", "#menu"]) {
      await person.click(button);
      await person.click("dialog h2");
      assertEquals(await findings(page), [], button);
      await person.do(`() => document.querySelector("dialog").close()`);
    }
    await press("three", "Delete");
    await order("✓two,eins");
    await press("✓two", "Delete");
    await order("eins");
    await press("eins", "Delete");
    await room.agree(before);
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

test("case B2: the demo whose server has lost its board offers to save what is here, and to start over [H19, U33, U36]", async (room) => {
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
    await person.remedy("[data-topic=connection]", "Save what is here");
    await person.remedy("[data-topic=connection]", "Take the server’s board");
    await person.until((seen) => seen.state === "live" && sameItems(seen, []));
  }
  const expected: string[] = [];
  for (const [engine, person] of room.people) {
    await person.add(`${engine} goes on`);
    expected.push(`${engine} goes on`);
    await room.agree(expected);
  }
});
