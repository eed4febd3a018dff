import { assert, assertEquals, assertMatch } from "@std/assert";
import { sleep, WAIT_MS_MAX } from "../sync/server_process.ts";
import { type Browser, launch, type Page, removeFolder } from "./browser.ts";
import { emulate, findings, shoot } from "./looks.ts";
import { NewerDemo } from "./newer_demo.ts";
import { DemoServer, Person } from "./sync_demo.ts";

/** Demo with a browser, for all tests of this file. */
class Stage implements AsyncDisposable {
  readonly server: DemoServer;
  readonly browser: Browser;
  readonly #folder: string;

  private constructor(folder: string, server: DemoServer, browser: Browser) {
    this.#folder = folder;
    this.server = server;
    this.browser = browser;
  }

  static async open(): Promise<Stage> {
    const folder = await Deno.makeTempDir({ prefix: "board-page-" });
    // Also under an address that no browser treats as secure.
    const server = new DemoServer(`${folder}/data`, undefined, [
      "--hostname=0.0.0.0",
    ]);
    await server.start();
    return new Stage(folder, server, await launch("Chromium"));
  }

  /** URL of a board on this machine, at a name for each device that is wanted. */
  url(place: string, host = "localhost"): string {
    const url = new URL(`#${place}`, this.server.url);
    url.hostname = host;
    return url.href;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.browser.close();
    await this.server.stop("SIGTERM");
    await removeFolder(this.#folder);
  }
}

let opened: Promise<Stage> | undefined;

function test(name: string, run: (stage: Stage) => Promise<void>): void {
  Deno.test({
    name,
    sanitizeOps: false,
    sanitizeResources: false,
    async fn(): Promise<void> {
      await run(await (opened ??= Stage.open()));
    },
  });
}

Deno.test.afterAll(async () => {
  await (await opened?.catch(() => undefined))?.[Symbol.asyncDispose]();
});

/** Evaluates an expression until it is true. */
async function until(page: Page, expression: string): Promise<void> {
  for (let waited = 0;; waited += 50) {
    const value = await page.evaluate(expression, WAIT_MS_MAX)
      .catch((error) => `${error}`);
    if (value === true) return;
    assert(waited < WAIT_MS_MAX / 4, `${expression}: ${value}`);
    await sleep(50);
  }
}

/** Mouse that is pressed at a place of an element, moved to another one, and released. */
async function drag(page: Page, from: string, to: string): Promise<void> {
  const [x, y, toX, toY] = await page.evaluate(
    `[${from}, ${to}].flatMap((element) => {
      const { left, top, width, height } = element.getBoundingClientRect();
      return [left + width / 2, top + height / 2];
    })`,
    WAIT_MS_MAX,
  ) as [number, number, number, number];
  const mouse = (type: string, x: number, y: number): Promise<unknown> =>
    page.devtools!("Input.dispatchMouseEvent", {
      type,
      x,
      y,
      button: "left",
      buttons: 1,
      clickCount: 1,
    });
  await mouse("mousePressed", x, y);
  for (let i = 1; i <= 5; i++) {
    await mouse("mouseMoved", x + (toX - x) * i / 5, y + (toY - y) * i / 5);
  }
  await mouse("mouseReleased", toX, toY);
}

const card = (text: string): string =>
  `[...document.querySelectorAll(".list .card")].find((card) =>
    card.querySelector(".text").textContent === ${JSON.stringify(text)})`;

/** Texts of the cards by list. */
const LISTS = `[...document.querySelectorAll(".list")].map((list) =>
  [...list.querySelectorAll(".text")].map((text) => text.textContent).join()).join("|")`;

test("U15 U38 two devices side by side: a plug stays pulled over a reload, the log tells what happened, and both have the same hash in the end", async ({ server, browser }) => {
  const page = await browser.open(server.url);
  await emulate(page, { width: 1440 });
  const frame = (device: string): string =>
    `document.querySelector("iframe.${device}").contentDocument`;
  const EQUAL = `document.querySelector(".verdict.equal") !== null`;
  for (const device of ["left", "right"]) {
    await until(
      page,
      `${frame(device)}.querySelectorAll(".card").length === 6`,
    );
  }
  await until(page, EQUAL);
  await until(page, `document.documentElement.dataset.sampan === "leading"`);
  await page.evaluate(`${frame("right")}.querySelector("#plug").click()`, 1e4);
  await page.evaluate(
    `${frame("left")}.querySelector(".card input").click()`,
    1e4,
  );
  await until(
    page,
    `/left device ticked .*Rope.*applied on the left device only/s.test(
      document.querySelector(".log li").textContent)`,
  );
  await page.evaluate(
    `${
      frame("right")
    }.querySelector("#board .list:nth-child(2) .card input").click()`,
    1e4,
  );
  await until(
    page,
    `${frame("right")}.querySelector(".card.waiting") !== null`,
  );
  await shoot(page, "two-desktop-light");
  // Applied entries become durable on the device about once a second.
  await sleep(1_500);
  await page.reload();
  await until(
    page,
    `${frame("right")}.querySelector("#state").dataset.state === "unplugged"`,
  );
  await until(
    page,
    `${frame("right")}.querySelector(".card.waiting") !== null`,
  );
  assertEquals(await page.evaluate(EQUAL, 1e4), false);
  await page.evaluate(`${frame("right")}.querySelector("#plug").click()`, 1e4);
  await until(page, EQUAL);
  await until(
    page,
    `/right device ticked .*Paint.*applied once on 2 devices/s.test(
      document.querySelector(".log li").textContent)`,
  );
  assertEquals(await findings(page), []);
  await emulate(page, { width: 390, isDark: true });
  await shoot(page, "two-phone-dark");
  assertEquals(await findings(page), []);
  await page.close();
});

test("the board is moved, written, ticked, archived and undone by keyboard alone, and by pointer", async ({ browser }) => {
  const page = await browser.open((await opened!).url("keys"));
  const person = new Person("Chromium", page);
  for (const text of ["one", "two", "three"]) await person.add(text);
  await until(page, `${LISTS} === "one,two,three||"`);
  await person.press(2, "ArrowUp", true);
  await until(page, `${LISTS} === "one,three,two||"`);
  // The focus goes with the card.
  await until(
    page,
    `document.activeElement.textContent === "three" && ${
      card("three")
    } !== undefined`,
  );
  await person.press(1, "ArrowRight", true);
  await until(page, `${LISTS} === "one,two|three|"`);
  await person.press(0, "t");
  await until(page, `${card("one")}.querySelector("input").checked`);
  await person.edit(1, "zwei");
  await until(page, `${LISTS} === "one,zwei|three|"`);
  await person.press(1, "Delete");
  await until(page, `${LISTS} === "one|three|"`);
  for (
    const lists of ["one,zwei|three|", "one,two|three|"]
  ) {
    await person.click("button.undo");
    await until(page, `${LISTS} === ${JSON.stringify(lists)}`);
  }
  await person.click("button.redo");
  await until(page, `${LISTS} === "one,zwei|three|"`);
  await drag(page, card("one"), `document.querySelectorAll(".cards")[2]`);
  await until(page, `${LISTS} === "zwei|three|one"`);
  await drag(page, card("three"), card("zwei"));
  await until(page, `/^(three,zwei|zwei,three)\\|\\|one$/.test(${LISTS})`);
  // A drag is no click: nothing is being written.
  assertEquals(
    await page.evaluate(`document.querySelector("textarea")`, 1e4),
    null,
  );
  await page.close();
});

test("a finger scrolls a list at once, and lifts and moves a card after a moment of rest", async ({ browser }) => {
  const page = await browser.open((await opened!).url("finger"));
  const person = new Person("Chromium", page);
  for (let i = 0; i < 30; i++) await person.add(`card ${i}`);
  // As many as the window holds, and some more.
  await person.until(({ pending, items }) =>
    pending === "0" && items.length > 20
  );
  await emulate(page, { width: 390 });
  await page.devtools!("Emulation.setTouchEmulationEnabled", {
    enabled: true,
    maxTouchPoints: 1,
  });
  const touch = async (
    type: "touchStart" | "touchMove" | "touchEnd",
    x = 0,
    y = 0,
  ): Promise<void> => {
    const touchPoints = type === "touchEnd" ? [] : [{ x, y }];
    await page.devtools!("Input.dispatchTouchEvent", { type, touchPoints });
  };
  const SCROLLED = `document.querySelector(".cards").scrollTop`;
  const FIRST = `[...document.querySelectorAll(".list .text")]
    .slice(0, 4).map((text) => text.textContent).join()`;
  const middle = async (text: string): Promise<[number, number]> =>
    await page.evaluate(
      `(() => {
        const { left, top, width, height } = ${
        card(text)
      }.getBoundingClientRect();
        return [left + width / 2, top + height / 2];
      })()`,
      1e4,
    ) as [number, number];

  // A swipe.
  let [x, y] = await middle("card 8");
  await touch("touchStart", x, y);
  for (let i = 1; i <= 8; i++) await touch("touchMove", x, y - 25 * i);
  await touch("touchEnd");
  await until(page, `${SCROLLED} > 50`);
  assertEquals(
    await page.evaluate(`document.querySelector(".ghost")`, 1e4),
    null,
  );
  // It goes on for a moment after the finger has left.
  await until(
    page,
    `(async () => {
      document.querySelector(".cards").scrollTop = 0;
      await new Promise((resolve) => setTimeout(resolve, 300));
      return ${SCROLLED} === 0;
    })()`,
  );
  assertEquals(await page.evaluate(FIRST, 1e4), "card 0,card 1,card 2,card 3");

  // A rest, and then a move.
  [x, y] = await middle("card 0");
  const [, below] = await middle("card 2");
  await touch("touchStart", x, y);
  await until(page, `document.querySelector(".ghost") !== null`);
  for (let i = 1; i <= 8; i++) {
    await touch("touchMove", x, y + (below + 60 - y) * i / 8);
  }
  await shoot(page, "finger-phone-light");
  await touch("touchEnd");
  await until(page, `${FIRST} === "card 1,card 2,card 0,card 3"`);
  assertEquals(await page.evaluate(SCROLLED, 1e4), 0);
  assertEquals(
    await page.evaluate(`document.querySelector("textarea, .ghost")`, 1e4),
    null,
  );
  // A tap writes.
  [x, y] = await middle("card 3");
  await touch("touchStart", x, y);
  await touch("touchEnd");
  await until(page, `document.querySelector("textarea")?.value === "card 3"`);
  await page.close();
});

test("U10 U12 tabs with one board share a device: a follower edits, its plug is the same, and it takes the lead when the leader is closed", async ({ browser }) => {
  const url = (await opened!).url("tabs");
  const one = await browser.open(url);
  const first = new Person("first", one);
  await first.add("tea");
  await first.until(({ tab, pending }) => tab === "leading" && pending === "0");
  const two = await browser.open(url);
  const second = new Person("second", two);
  await second.until(({ tab, items }) =>
    tab === "following" && items.join() === "tea"
  );
  await second.click("#plug");
  await first.until(({ state }) => state === "unplugged");
  await second.add("milk");
  await first.until(({ items }) => items.join() === "tea,milk…");
  await second.click("#plug");
  await first.until(({ items, pending }) =>
    pending === "0" && items.join() === "tea,milk"
  );
  assertEquals(await findings(two), []);
  await one.close();
  await second.until(({ tab, state }) => tab === "leading" && state === "live");
  await second.add("rice");
  await second.until(({ items, pending }) =>
    pending === "0" && items.join() === "tea,milk,rice"
  );
  await two.close();
});

test("U25 an edit looks pending from its first paint, while it is being stored, and so does its undo", async ({ browser }) => {
  const page = await browser.open((await opened!).url("storing"));
  const person = new Person("Chromium", page);
  await person.add("tea");
  await person.until(({ pending, items }) =>
    pending === "0" && items.join() === "tea"
  );
  // A transaction that does not end keeps the outbox from storing.
  await page.evaluate(
    `new Promise((resolve) => {
      globalThis.isStalled = true;
      indexedDB.open("sampan here storing outbox").onsuccess = ({ target }) => {
        const db = target.result;
        globalThis.stall = () => {
          const names = [...db.objectStoreNames];
          const store = db.transaction(names, "readwrite").objectStore(names[0]);
          (function again() {
            if (globalThis.isStalled) store.count().onsuccess = again;
          })();
        };
        globalThis.stall();
        resolve(0);
      };
    })`,
    1e4,
  );
  await person.press(0, "t");
  await person.until(({ pending, items }) =>
    pending === "1" && items.join() === "✓tea…"
  );
  assertEquals(
    await page.evaluate(
      `document.querySelector(".card .mark").textContent`,
      1e4,
    ),
    "waiting to be sent",
  );
  await page.evaluate(`globalThis.isStalled = false, 0`, 1e4);
  await person.until(({ pending, items }) =>
    pending === "0" && items.join() === "✓tea"
  );
  await page.evaluate(
    `globalThis.isStalled = true, globalThis.stall(), 0`,
    1e4,
  );
  await person.click("button.undo");
  await person.until(({ pending, items }) =>
    pending === "1" && items.join() === "tea…"
  );
  await page.evaluate(`globalThis.isStalled = false, 0`, 1e4);
  await person.until(({ pending, items }) =>
    pending === "0" && items.join() === "tea"
  );
  await page.close();
});

test("who else is here, and at which card, is passed on beside the log, shown and announced in words, until they leave or pull the plug", async ({ browser }) => {
  const stage = await opened!;
  // The browser treats two origins as two devices.
  const one = await browser.open(stage.url("people"));
  const first = new Person("first", one);
  await first.add("tea");
  await first.until(({ pending, items }) =>
    pending === "0" && items.join() === "tea"
  );
  const two = await browser.open(stage.url("people", "127.0.0.1"));
  const second = new Person("second", two);
  await second.until(({ items }) => items.join() === "tea");
  const SAID = `document.querySelector("[role=status]").textContent`;
  await until(one, `document.querySelectorAll(".person").length === 1`);
  await until(one, `/^\\w+ \\w+ is here$/.test(${SAID})`);
  await second.click("#menu");
  await until(
    two,
    `document.querySelector("dialog [maxlength='30']") !== null`,
  );
  await two.evaluate(
    `(() => {
      const field = document.querySelector("dialog [maxlength='30']");
      field.value = "Mei";
      field.dispatchEvent(new Event("change"));
      document.querySelector("dialog").close();
    })()`,
    1e4,
  );
  const before = await one.evaluate(
    `document.getElementById("applied").textContent`,
    1e4,
  );
  await second.type(0, "tea and milk");
  await until(
    one,
    `document.querySelector(".card .tag")?.textContent === "Mei is writing"`,
  );
  await until(
    one,
    `/^Mei is writing .*tea/.test(document.querySelector(".person").title)`,
  );
  await emulate(one, { width: 1440 });
  await shoot(one, "people-desktop-light");
  assertEquals(await findings(one), []);
  await emulate(one, { width: 390, isDark: true });
  await shoot(one, "people-phone-dark");
  assertEquals(await findings(one), []);
  await two.evaluate(
    `document.activeElement.dispatchEvent(
    new KeyboardEvent("keydown", { key: "Escape", bubbles: true }))`,
    1e4,
  );
  await until(
    one,
    `document.querySelector(".card .tag")?.textContent === "Mei is here"`,
  );
  await second.click("#plug");
  await until(one, `document.querySelector(".tag, .person") === null`);
  await until(one, `${SAID} === "Mei has left"`);
  assertEquals(
    await one.evaluate(`document.getElementById("applied").textContent`, 1e4),
    before,
  );
  await second.click("#plug");
  await until(one, `document.querySelectorAll(".person").length === 1`);
  await two.close();
  await until(one, `document.querySelector(".person") === null`);
  await one.close();
});

test("U36 a saved board is put on another one from its file, with the edits that waited, once; any other file is refused with words", async ({ browser }) => {
  const stage = await opened!;
  const one = await browser.open(stage.url("saved"));
  const first = new Person("first", one);
  for (const text of ["tea", "milk", "salt"]) await first.add(text);
  await first.until(({ pending, items }) =>
    pending === "0" && items.join() === "tea,milk,salt"
  );
  await first.press(0, "t");
  await first.press(2, "Delete");
  await first.until(({ pending, items }) =>
    pending === "0" && items.join() === "✓tea,milk"
  );
  await first.click("#plug");
  await first.add("rice");
  await first.until(({ pending }) => pending === "1");
  // What the browser would write into files.
  await one.evaluate(
    `(() => {
      globalThis.saved = [];
      const { createObjectURL } = URL;
      URL.createObjectURL = (blob) => {
        globalThis.saved.push(blob);
        return createObjectURL(blob);
      };
    })()`,
    1e4,
  );
  await first.click("#menu");
  await first.remedy("dialog", "Save the board to a file");
  await until(one, `globalThis.saved.length === 2`);
  const saved = await one.evaluate(
    `Promise.all(globalThis.saved.map(async (blob) =>
      [...new Uint8Array(await blob.arrayBuffer())]))`,
    1e4,
  ) as number[][];
  await first.click("#plug");
  await first.until(({ pending }) => pending === "0");
  await one.close();

  const page = await browser.open(stage.url("restored", "127.0.0.1"));
  const person = new Person("second", page);
  await person.until(({ tab, state }) => tab === "leading" && state === "live");
  /** Opens the menu, and chooses files. */
  const choose = async (
    files: readonly (readonly [name: string, bytes: number[]])[],
  ): Promise<void> => {
    await page.evaluate(
      `(() => {
        HTMLInputElement.prototype.click = function () {
          const chosen = new DataTransfer();
          for (const [name, bytes] of ${JSON.stringify(files)}) {
            chosen.items.add(new File([new Uint8Array(bytes)], name));
          }
          this.files = chosen.files;
          this.dispatchEvent(new Event("change"));
        };
      })()`,
      1e4,
    );
    await person.click("#menu");
    await person.remedy("dialog", "Import from a file");
  };
  await choose([["cat.snapshot", [1, 2, 3, 4, 5, 6, 7, 8]]]);
  const { messages: { problem } } = await person.until(({ messages }) =>
    messages["problem"] !== undefined
  );
  assertMatch(problem!, /cat.snapshot.* cannot be imported: it is no board/);
  await person.remedy("[data-topic=problem]", "Dismiss");
  await choose([["saved-edits.json", [123, 125]]]);
  await person.until(({ messages }) =>
    /saved-edits.json.* cannot be imported/.test(messages["problem"] ?? "")
  );
  await person.remedy("[data-topic=problem]", "Dismiss");

  await choose([
    ["saved-edits.json", saved[1]!],
    ["saved.snapshot", saved[0]!],
  ]);
  const { messages } = await person.until(({ pending, items, messages }) =>
    pending === "0" && items.join() === "✓tea,milk,rice" &&
    messages["import"] !== undefined
  );
  assertMatch(
    messages["import"]!,
    /Imported 3 lists and 3 cards from .*, and 1 edit from/,
  );
  assertEquals(await findings(page), []);
  // A second time it adds nothing.
  await choose([["saved.snapshot", saved[0]!]]);
  await sleep(500);
  const again = await person.until(({ pending }) => pending === "0");
  assertEquals([again.items.join(), again.refused], ["✓tea,milk,rice", ""]);
  await person.click("#menu");
  await until(
    page,
    `document.querySelector("dialog .archive").textContent.includes("salt")`,
  );
  await page.close();
});

test("U9 a page that can store nothing works in memory, and says why", async ({ browser }) => {
  const page = await browser.open((await opened!).url("memory", "0.0.0.0"));
  const person = new Person("Chromium", page);
  await person.add("tea");
  const { messages } = await person.until(({ tab, pending, items }) =>
    tab === "memory" && pending === "0" && items.join() === "tea"
  );
  assertMatch(messages["storage"]!, /Nothing is kept.*https/);
  assertEquals(await findings(page), []);
  await page.close();
});

test("U8 a page without room for an edit says so, keeps what it has, and goes on once there is room", async ({ browser }) => {
  const page = await browser.open((await opened!).url("room"));
  const person = new Person("Chromium", page);
  await person.add("tea");
  await person.until(({ pending, items }) =>
    pending === "0" && items.join() === "tea"
  );
  // As a browser fails whose storage is full.
  await page.evaluate(
    `(() => {
      const { prototype } = IDBObjectStore;
      globalThis.put = prototype.put;
      prototype.put = () => {
        throw new DOMException("The quota has been exceeded", "QuotaExceededError");
      };
    })()`,
    1e4,
  );
  await person.add("salt");
  const { messages } = await person.until(({ messages }) =>
    messages["full"] !== undefined
  );
  assertMatch(messages["full"]!, /no room left/);
  assertEquals(await findings(page), []);
  await page.evaluate(`IDBObjectStore.prototype.put = globalThis.put, 0`, 1e4);
  await person.remedy("[data-topic=full]", "Dismiss");
  await person.add("rice");
  await person.until(({ pending, items, messages }) =>
    pending === "0" && items.includes("rice") &&
    messages["full"] === undefined
  );
  await page.close();
});

test("axe finds nothing in the board, its dialogs and its messages, on a desktop and a phone, in both colour schemes", async ({ browser }) => {
  const page = await browser.open((await opened!).url("look"));
  const person = new Person("Chromium", page);
  const long = `Ein-sehr-langes-Wort-${"ohne-Ende-".repeat(40)}`;
  for (const text of ["حبل بطول 12 متر", long, "Rope"]) await person.add(text);
  await person.until(({ pending, items }) =>
    pending === "0" && items.length === 3
  );
  await person.click("#plug");
  await person.press(2, "t");
  await person.until(({ pending }) => pending === "1");
  for (const width of [1440, 768, 390]) {
    for (const isDark of [false, true]) {
      await emulate(page, { width, isDark });
      const name = `${width}-${isDark ? "dark" : "light"}`;
      await shoot(page, `board-${name}`);
      assertEquals(await findings(page), [], name);
      // Nothing is wider than the screen.
      assert(
        await page.evaluate(
          `document.documentElement.scrollWidth <= innerWidth`,
          1e4,
        ),
        name,
      );
      for (const button of [".card .more", ".list > header .more", "#menu"]) {
        await person.click(button);
        await until(page, `document.querySelector("dialog h2") !== null`);
        assertEquals(await findings(page), [], `${button} ${name}`);
        await shoot(page, `dialog-${button.replaceAll(/\W/g, "")}-${name}`);
        await page.evaluate(`document.querySelector("dialog").close()`, 1e4);
      }
    }
  }
  await page.evaluate(`document.documentElement.dir = "rtl"`, 1e4);
  await emulate(page, { width: 1440 });
  await shoot(page, "board-right-to-left");
  assertEquals(await findings(page), []);
  await person.click("#plug");
  await page.close();
});

test("a link's dialog has a QR code, also without a network", async ({ browser }) => {
  const page = await browser.open((await opened!).url("share"));
  const person = new Person("Chromium", page);
  await person.until(({ tab }) => tab === "leading");
  await person.click("#share");
  await until(page, `document.querySelector("dialog svg[role=img]") !== null`);
  assertMatch(
    await page.evaluate(
      `document.querySelector("dialog input").value`,
      1e4,
    ) as string,
    /^http:\/\/localhost:\d+\/#share$/,
  );
  assertEquals(await findings(page), []);
  await page.close();
});
// The last test: it goes on with a server of newer code.

test("U14 a page meets a server of newer code, and newer edits: it keeps what it has, asks for a reload, and goes on after it", async ({ server, browser }) => {
  await using newer = await NewerDemo.write();
  const stage = await opened!;
  const page = await browser.open(stage.url("newer"));
  const person = new Person("older", page);
  await person.add("tea");
  await person.until(({ pending, state }) =>
    pending === "0" && state === "live"
  );
  await person.kept();
  await server.stop("SIGTERM");
  await person.until(({ state }) => state === "offline");
  await person.add("milk");
  await person.until(({ pending }) => pending === "1");
  server.program = newer.program;
  await server.start();
  // The older page goes on, and knows that there is newer code.
  const ready = await person.until(({ pending, messages }) =>
    pending === "0" && messages["code"] !== undefined
  );
  assertMatch(ready.messages["code"]!, /newer version of this page is here/);
  assertEquals(ready.items.join(), "tea,milk");
  // All of it, as the device may be without a network from now on.
  const scripts = await page.evaluate(
    `caches.open("sampan-app").then((cache) => cache.keys()).then((all) =>
      all.map(({ url }) => /([a-z-]+)-\\w+[.]js$/.exec(url)?.[1]).filter(Boolean))`,
    WAIT_MS_MAX,
  ) as string[];
  assertEquals(
    ["app", "sampan-later", "sampan-inspect", "sampan-on-demand"]
      .filter((name) => !scripts.includes(name)),
    [],
  );
  await person.add("salt");
  await person.until(({ pending, items }) =>
    pending === "0" && items.join() === "tea,milk,salt"
  );
  // An edit that only newer code knows stops it.
  const other = await browser.open(stage.url("newer", "127.0.0.1"));
  const second = new Person("newer", other);
  await second.until(({ items }) => items.join() === "tea,milk,salt");
  await second.press(0, "s");
  await second.until(({ items, pending }) =>
    pending === "0" && items.join() === "★tea,milk,salt"
  );
  const stopped = await person.until(({ messages }) =>
    /newer version/.test(messages["connection"] ?? "")
  );
  assertMatch(stopped.messages["connection"]!, /Reload to get it/);
  await person.add("rice");
  await person.until(({ pending }) => pending === "1");
  await emulate(page, { width: 1440 });
  await shoot(page, "newer-desktop-light");
  assertEquals(await findings(page), []);
  await person.remedy("[data-topic=connection]", "Reload");
  for (const one of [person, second]) {
    await one.until(({ pending, items, state }) =>
      state === "live" && pending === "0" &&
      items.join() === "★tea,milk,salt,rice"
    );
  }
  await person.press(1, "s");
  await second.until(({ items }) => items[1] === "★milk");
  await page.close();
  await other.close();
});
