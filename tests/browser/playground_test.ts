import { assert, assertEquals, assertMatch } from "@std/assert";
import { stopBundler } from "../../web/bundle.ts";
import { playgroundFile, servePage } from "../../web/page.ts";
import { sampleOf } from "../../web/playground/machines.ts";
import {
  type Recorded,
  Run,
  type Setup,
  urlOf,
} from "../../web/playground/run.ts";
import { sleep, WAIT_MS_MAX } from "../sync/server_process.ts";
import {
  type Browser,
  type Engine,
  ENGINES,
  launch,
  type Page,
} from "./browser.ts";
import { emulate, findings, shoot } from "./looks.ts";

Deno.test.afterAll(stopBundler);

/** Milliseconds that a call in a page may take. */
const CALL_MS_MAX = 30_000;

/** Serves the playground, as the demo server does. */
async function serve(): Promise<{ url: URL } & AsyncDisposable> {
  const handler = servePage(new Map([await playgroundFile()]));
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen(): void {} },
    handler,
  );
  return {
    url: new URL(`http://127.0.0.1:${server.addr.port}/playground`),
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}

/** Defines a test of the playground in a browser. */
function test(
  name: string,
  engine: Engine,
  run: (server: { readonly url: URL }, browser: Browser) => Promise<void>,
): void {
  Deno.test({
    name,
    sanitizeOps: false,
    sanitizeResources: false,
    async fn(): Promise<void> {
      await using server = await serve();
      const browser = await launch(engine);
      try {
        await run(server, browser);
      } finally {
        await browser.close();
      }
    },
  });
}

/** Content of the page, as a person sees it. */
interface Seen {
  readonly said: string;
  readonly phases: readonly string[];
  readonly states: readonly string[];
  readonly hashes: readonly string[];
  readonly cells: readonly string[];
  readonly sentences: readonly string[];
  readonly wrong: string;
  readonly isQuiet: boolean;
  readonly search: string;
}

const LOOK = `() => {
  const textsOf = (selector) =>
    [...document.querySelectorAll(selector)].map((element) => element.textContent);
  return {
    said: document.getElementById("said").textContent,
    phases: textsOf(".phase"),
    states: textsOf(".state"),
    hashes: textsOf(".hash b"),
    cells: textsOf("#tape .text"),
    sentences: textsOf("#sentences li"),
    wrong: document.getElementById("wrong").textContent,
    isQuiet: document.documentElement.dataset.sampan === "quiet",
    search: location.search,
  };
}`;

/** A person with the playground. */
class Person {
  readonly #page: Page;

  constructor(page: Page) {
    this.#page = page;
  }

  async call(script: string, ...args: unknown[]): Promise<unknown> {
    return await this.#page.evaluate(
      `((${script})(...${JSON.stringify(args)}))`,
      CALL_MS_MAX,
    );
  }

  async look(): Promise<Seen> {
    return await this.call(LOOK) as Seen;
  }

  async until(what: string, is: (seen: Seen) => boolean): Promise<Seen> {
    for (let waited = 0;; waited += 50) {
      // Evaluation fails while the page loads.
      const seen = await this.look().catch(() => undefined);
      if (seen !== undefined && is(seen)) return seen;
      assert(waited < WAIT_MS_MAX / 2, `${what}: ${JSON.stringify(seen)}`);
      await sleep(50);
    }
  }

  /** Clicks a button or a link by the text on it, in a replica or on the page. */
  async click(text: string, within = "body"): Promise<void> {
    const found = await this.call(
      `(text, within) => {
        const found = [...document.querySelectorAll(within + " button, " + within + " a")]
          .find((element) => element.firstChild?.nodeType === 3
            ? element.firstChild.data.trim() === text
            : element.textContent.trim().endsWith(text));
        if (found === undefined || found.disabled) return false;
        found.click();
        return true;
      }`,
      text,
      within,
    );
    assert(found, `No button ${text} in ${within}`);
  }

  /** Has simulated time pass four times as fast. */
  async hurry(): Promise<void> {
    await this.call(`() => {
      const speed = document.getElementById("speed");
      speed.value = "4";
      speed.dispatchEvent(new Event("change"));
    }`);
  }

  /** Proposes a command in the box above the log. */
  async propose(command: string, on: string): Promise<void> {
    await this.call(
      `(command, on) => {
        const form = document.getElementById("propose");
        form.elements.command.value = command;
        form.elements.on.value = on;
        form.requestSubmit();
      }`,
      command,
      on,
    );
  }

  /** Writes the code of a machine, and runs it. */
  async write(code: string): Promise<void> {
    await this.call(
      `(code) => {
        const editor = document.getElementById("code");
        editor.value = code;
        editor.dispatchEvent(new Event("input"));
      }`,
      code,
    );
    await this.click("Run this machine");
  }
}

/** True if the three replicas run with one state, and nothing is under way. */
function isAgreed({ isQuiet, phases, hashes }: Seen): boolean {
  return isQuiet && phases.every((phase) => phase === "running") &&
    new Set(hashes).size === 1;
}

/** Actions that use every fault. */
const ACTIONS: readonly Recorded[] = [
  { at: 500, action: { do: "double", on: "B" } },
  {
    at: 600,
    action: { do: "propose", on: "B", command: "add 5", session: true },
  },
  { at: 1_900, action: { do: "lose answer", on: "C" } },
  {
    at: 2_000,
    action: { do: "propose", on: "C", command: "double", session: true },
  },
  { at: 2_400, action: { do: "crash", on: "A" } },
  { at: 3_000, action: { do: "slow", on: "B" } },
  { at: 4_000, action: { do: "snapshot", on: "B" } },
  { at: 4_500, action: { do: "restart", on: "A" } },
  { at: 9_000, action: { do: "cut", on: "B" } },
  {
    at: 9_100,
    action: { do: "propose", on: "A", command: "add 1", session: true },
  },
  { at: 11_000, action: { do: "join", on: "B" } },
  { at: 11_500, action: { do: "fast", on: "B" } },
];

for (const engine of ENGINES) {
  test(
    `H1 H3 H7 ${engine} runs the playground: a person breaks replicas and they agree, and a URL repeats a run as in Deno`,
    engine,
    async ({ url }, browser) => {
      // The first visit begins with the tour.
      const person = new Person(await browser.open(url.href));
      await person.hurry();
      await person.until(
        "the tour",
        ({ said }) => /Three replicas/.test(said),
      );
      await person.until(
        "its order",
        ({ cells }) => cells.includes("double"),
      );

      await person.click("On your own");
      await person.until(
        "a run",
        ({ search }) => search === "?tour=0&seed=1",
      );
      await person.until("its start", isAgreed);
      await person.click("add 5", ".replica.a");
      await person.until("added", ({ states }) => states[2] === "count5");
      await person.click("Crash", ".replica.b");
      await person.until("a crash", ({ phases }) => phases[1] === "crashed");
      await person.propose("double", "C");
      await person.until("doubled", ({ states }) => states[0] === "count10");
      await person.click("Cut off", ".replica.a");
      await person.click("add 1", ".replica.a");
      await person.click("Restart", ".replica.b");
      await person.until(
        "a recovery",
        ({ states }) => states[1] === "count10",
      );
      await person.click("Reconnect", ".replica.a");
      const seen = await person.until("agreement", isAgreed);
      assertEquals(seen.states, ["count11", "count11", "count11"]);

      // A machine of the person's own, with an error and without.
      await person.write("const initial = {");
      const { wrong } = await person.until(
        "an error",
        ({ wrong }) => wrong !== "",
      );
      assertMatch(wrong, /not valid JavaScript/);
      await person.write(
        'const initial = { words: "" }, commands = ["a"]; function update(s, c) { s.words += c }',
      );
      await person.until("no error", ({ wrong }) => wrong === "");
      await person.until(
        "its start",
        (seen) => isAgreed(seen) && seen.states[0] === "words",
      );
      await person.propose("b", "B");
      await person.until("b", ({ states }) => states[0] === "wordsb");

      // Code without an end is stopped: when it is tried, and when it is met later.
      await person.write(
        'const initial = { n: 0 }, commands = ["a"]; function update(s) { while (true) s.n++ }',
      );
      const endless = await person.until(
        "a loop",
        ({ wrong }) => wrong !== "",
      );
      assertMatch(endless.wrong, /does not return from the command “a”/);
      await person.propose("c", "B");
      await person.until("c", ({ states }) => states[0] === "wordsbc");
      await person.click("Back to the last code that worked");
      await person.until("no loop", ({ wrong }) => wrong === "");
      await person.write(
        'const initial = { n: 0 }, commands = ["a"]; function update(s, c) { while (c === "stay") s.n++; s.n++ }',
      );
      await person.until(
        "its start",
        (seen) => isAgreed(seen) && seen.states[0] === "n0",
      );
      await person.propose("stay", "C");
      const failed = await person.until(
        "a failure",
        ({ phases }) => phases.every((phase) => phase === "stopped"),
      );
      assert(
        failed.sentences.some((text) => /one of them has no end/.test(text)),
      );
      assertMatch(failed.wrong, /update\(\) has thrown at #\d+ of the log/);
      await person.click("Back to the last code that worked");
      await person.until(
        "its start",
        (seen) => isAgreed(seen) && seen.states[0] === "words",
      );
      await person.propose("d", "B");
      await person.until("d", ({ states }) => states[2] === "wordsd");

      // The same run as in Deno, message by message.
      const setup: Setup = {
        seed: 7,
        tour: undefined,
        code: sampleOf("counter").code,
        actions: ACTIONS,
      };
      const run = await Run.start(setup);
      await run.advance(60_000);
      const expected = run.sentences.map(({ at, text, times }) =>
        `${(at / 1_000).toFixed(1)}${text}${
          times > 1 ? ` (${times} times)` : ""
        }`
      );
      await run.close();
      const link = urlOf(url, setup, ACTIONS);
      await person.call(
        "(href) => void setTimeout(() => location.href = href)",
        link.href,
      );
      await person.until("the link", ({ search }) => search === link.search);
      await person.hurry();
      const { sentences } = await person.until(
        "the run",
        (seen) => isAgreed(seen) && seen.sentences.length > 0,
      );
      assertEquals(sentences, expected);
    },
  );
}

/** Sizes of the windows of phones and desktops, in pixels. */
const WINDOWS = {
  phone: { width: 390, height: 844 },
  desktop: { width: 1280, height: 900 },
} as const;

test(
  "the playground has no accessibility problem that axe-core finds, on a phone and a desktop, in light and in dark",
  "Chromium",
  async ({ url }, browser) => {
    for (const [name, size] of Object.entries(WINDOWS)) {
      for (const scheme of ["light", "dark"]) {
        const page = await browser.open(`${url}?tour=5`);
        const person = new Person(page);
        await emulate(page, { ...size, isDark: scheme === "dark" });
        await person.hurry();
        await person.until("a cut", ({ phases }) => phases[2] === "cut off");
        await person.until(
          "a loss",
          ({ sentences }) => sentences.some((text) => /is lost/.test(text)),
        );
        await person.call(`() => document.getElementById("play").click()`);
        await shoot(page, `playground-${name}-${scheme}`, { isMoving: true });
        const beyond = await person.call(`() => {
            const { scrollWidth, clientWidth } = document.documentElement;
            return scrollWidth - clientWidth;
          }`);
        assertEquals(beyond, 0, "scrolls sideways");
        assertEquals(
          await findings(page),
          [],
          `${name}, ${scheme}`,
        );
        await page.close();
      }
    }
  },
);

test(
  "the playground can be used with the keyboard alone, and says what happens",
  "Chromium",
  async ({ url }, browser) => {
    const page = await browser.open(`${url}?tour=0`);
    const person = new Person(page);
    const press = async (key: string, text?: string): Promise<void> => {
      for (const type of ["keyDown", "keyUp"]) {
        await page.devtools!("Input.dispatchKeyEvent", {
          type,
          key,
          code: key,
          windowsVirtualKeyCode: key === "Tab" ? 9 : 13,
          ...(text === undefined || type === "keyUp" ? {} : { text }),
        });
      }
    };
    /** Tabs to an element whose text or id matches. */
    const tabTo = async (what: RegExp): Promise<void> => {
      for (let i = 0; i < 60; i++) {
        await press("Tab");
        const at = await person.call(
          `() => document.activeElement.id + " " + document.activeElement.textContent`,
        ) as string;
        if (what.test(at)) return;
      }
      throw new Error(`Tab does not reach ${what}`);
    };
    await person.until("its start", isAgreed);
    await tabTo(/^command /);
    await page.devtools!("Input.insertText", { text: "add 7" });
    await press("Enter", "\r");
    await person.until("added", ({ states }) => states[1] === "count7");
    await tabTo(/ Crash, replica B$/);
    await press("Enter", "\r");
    await person.until("a crash", ({ phases }) => phases[1] === "crashed");
    for (let waited = 0;; waited += 50) {
      const live = await person.call(
        `() => document.getElementById("live").textContent`,
      ) as string;
      if (/B crashes/.test(live)) break;
      assert(waited < WAIT_MS_MAX / 4, live);
      await sleep(50);
    }
  },
);

test(
  "H1 H3 on a phone, a person taps through the playground: proposes, cuts off, crashes and restarts a replica, and goes on with the tour",
  "Chromium",
  async ({ url }, browser) => {
    const page = await browser.open(`${url}?tour=0`);
    const person = new Person(page);
    await page.devtools!("Emulation.setTouchEmulationEnabled", {
      enabled: true,
    });
    await emulate(page, WINDOWS.phone);
    await person.until("its start", isAgreed);
    /** Taps what has a text, where a finger would. */
    const tap = async (text: string, within = "body"): Promise<void> => {
      const at = await person.call(
        `async (text, within) => {
            const found = [...document.querySelectorAll(within + " button, " + within + " a, " + within + " input")]
              .find((element) => (element.textContent || element.name).trim().startsWith(text));
            found.scrollIntoView({ block: "center", inline: "center" });
            await new Promise((resolve) => setTimeout(resolve, 300));
            const { left, top, width, height } = found.getBoundingClientRect();
            const x = left + width / 2, y = top + height / 2;
            const hit = document.elementFromPoint(x, y);
            return { x, y, width, height, isFree: found.contains(hit) || hit?.contains(found) };
          }`,
        text,
        within,
      ) as Record<"x" | "y" | "width" | "height", number> & {
        isFree: boolean;
      };
      assert(at.isFree, `${text} is covered`);
      // WCAG 2.5.8.
      assert(at.width >= 24 && at.height >= 24, `${text} is too small`);
      const { x, y } = at;
      for (const type of ["touchStart", "touchEnd"]) {
        await page.devtools!("Input.dispatchTouchEvent", {
          type,
          touchPoints: type === "touchStart" ? [{ x, y }] : [],
        });
      }
    };
    await tap("add 5", ".replica.a");
    await person.until("added", ({ states }) => states[2] === "count5");
    await tap("Cut off", ".replica.c");
    await person.until("a cut", ({ phases }) => phases[2] === "cut off");
    await tap("Crash", ".replica.b");
    await person.until("a crash", ({ phases }) => phases[1] === "crashed");
    await tap("command", "#propose");
    await page.devtools!("Input.insertText", { text: "double" });
    await tap("Propose", "#propose");
    await person.until("doubled", ({ states }) => states[0] === "count10");
    await tap("Restart", ".replica.b");
    await tap("Reconnect", ".replica.c");
    const { states } = await person.until("agreement", isAgreed);
    assertEquals(states, ["count10", "count10", "count10"]);
    await shoot(page, "playground-phone-touched", { isMoving: true });
    await tap("1", "#tour");
    await person.until("the tour", ({ search }) => /tour=1/.test(search));
  },
);
