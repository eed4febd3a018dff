import { assertEquals, assertMatch } from "@std/assert";
import { bundle, stopBundler } from "../../web/bundle.ts";
import { sleep, WAIT_MS_MAX } from "../sync/server_process.ts";
import {
  type Browser,
  type Engine,
  ENGINES,
  launch,
  type Page,
  removeFolder,
} from "./browser.ts";
import { emulate, findings, shoot } from "./looks.ts";
import { servePages } from "./server.ts";
import { DemoServer } from "./sync_demo.ts";

Deno.test.afterAll(() => stopBundler());

/** Root of the inspector in a page. */
const ROOT = `document.querySelector("sampan-inspector").shadowRoot`;

/** Button of the inspector with a text. */
const button = (text: string): string =>
  `[...${ROOT}.querySelectorAll("button")].find((button) =>
    button.checkVisibility() && button.textContent.startsWith(${
    JSON.stringify(text)
  }))`;

/** Text of the panel that is visible. */
const PANEL =
  `[...${ROOT}.querySelectorAll("[role=tabpanel]")].find(({ hidden }) => !hidden).innerText`;

/** Last thing that the inspector said. */
const SAID = `${ROOT}.querySelector(".said").textContent`;

async function until(page: Page, expression: string): Promise<void> {
  for (let waited = 0;; waited += 50) {
    const value = await page.evaluate(expression, WAIT_MS_MAX)
      .catch((error) => `${error}`);
    if (value === true) return;
    if (waited > WAIT_MS_MAX / 4) {
      const panel = await page.evaluate(PANEL, WAIT_MS_MAX).catch(() => "");
      throw new Error(`${expression}: ${value}; the panel has ${panel}`);
    }
    await sleep(50);
  }
}

async function click(page: Page, text: string): Promise<void> {
  await until(page, `${button(text)} !== undefined`);
  await page.evaluate(`${button(text)}.click()`, WAIT_MS_MAX);
}

/** Clicks a button, and waits until the inspector has said something. */
async function run(page: Page, text: string, said: RegExp): Promise<string> {
  await click(page, text);
  await until(page, `${said}.test(${SAID})`);
  return await page.evaluate(SAID, WAIT_MS_MAX) as string;
}

/** Adds a card to the board. */
async function addCard(page: Page, text: string): Promise<void> {
  await page.evaluate(
    `(() => {
      const input = document.querySelector(".list form input, .list form textarea");
      input.value = ${JSON.stringify(text)};
      input.dispatchEvent(new Event("input", { bubbles: true }));
      input.form.requestSubmit();
    })()`,
    WAIT_MS_MAX,
  );
}

const TABS = [
  "Overview",
  "Log",
  "Time travel",
  "Outbox",
  "Sessions",
  "Snapshots",
  "Server",
];

/** Presses a key in the inspector. */
async function press(page: Page, key: string): Promise<void> {
  if (page.devtools !== undefined) {
    await page.devtools("Input.dispatchKeyEvent", { type: "keyDown", key });
    return;
  }
  await page.evaluate(
    `void ${ROOT}.activeElement.dispatchEvent(new KeyboardEvent("keydown", {
      key: "${key}", bubbles: true, cancelable: true,
    }))`,
    WAIT_MS_MAX,
  );
}

/** Looks at each tab of the inspector on a phone and a desktop, in light and in dark. */
async function lookAround(page: Page): Promise<void> {
  for (const width of [390, 1280]) {
    for (const isDark of [false, true]) {
      await emulate(page, {
        width,
        height: width < 600 ? 844 : 900,
        isDark,
      });
      const size = width < 600 ? "phone" : "desktop";
      const look = isDark ? "dark" : "light";
      for (const tab of TABS) {
        await click(page, tab);
        await sleep(50);
        assertEquals(
          await findings(page, { tries: 5 }),
          [],
          `${tab}, ${size}, ${look}`,
        );
        assertEquals(
          await page.evaluate(
            `document.scrollingElement.scrollWidth <= innerWidth &&
              document.querySelector("dialog").scrollWidth <=
                document.querySelector("dialog").clientWidth`,
            WAIT_MS_MAX,
          ),
          true,
          `${tab} is wider than the ${size}`,
        );
        const name = tab.toLowerCase().replace(" ", "-");
        // Charts are drawn with the next frame.
        await sleep(300);
        await shoot(page, `inspector-${name}-${size}-${look}`);
      }
    }
  }
}

/** Saves downloads in a folder, or nowhere in browsers that would ask. */
async function keepDownloads(page: Page, folder: string): Promise<void> {
  if (page.devtools !== undefined) {
    await page.devtools("Browser.setDownloadBehavior", {
      behavior: "allow",
      downloadPath: folder,
    });
    return;
  }
  await page.evaluate(
    `void (HTMLAnchorElement.prototype.click = () => {})`,
    WAIT_MS_MAX,
  );
}

/** Opens the inspector from the menu of the board. */
async function openInspector(page: Page): Promise<void> {
  await page.evaluate(
    `document.getElementById("menu").click()`,
    WAIT_MS_MAX,
  );
  const entry = `[...document.querySelectorAll("dialog button")]
          .find(({ textContent }) => textContent === "Inspect")`;
  await until(page, `${entry} !== undefined`);
  await page.evaluate(`${entry}.click()`, WAIT_MS_MAX);
  await until(page, `/Applied/.test(${PANEL})`);
}

/** A second tab follows the first one, and shows the same. */
async function looksFromSecondTab(
  browser: Browser,
  url: string,
  at: number,
): Promise<void> {
  const other = await browser.open(new URL("#inspected", url).href);
  if (browser.engine === "Chromium") {
    await emulate(other, { width: 1280, height: 900 });
  }
  await until(
    other,
    `document.querySelectorAll(".card").length === 3`,
  );
  await openInspector(other);
  await until(other, `/follows the leading tab/.test(${PANEL})`);
  await click(other, "Log");
  await until(other, `/Mend the sail/.test(${PANEL})`);
  await click(other, `#${at}`);
  await until(other, `/2 differences to the present/.test(${PANEL})`);
  await other.close();
}

for (const engine of ENGINES) {
  Deno.test({
    name:
      `U42 in ${engine} a person opens the inspector of the board, and finds its state, log, earlier states and server; every button does what it says`,
    sanitizeOps: false,
    sanitizeResources: false,
    fn: () => usesInspector(engine),
  });
}

async function usesInspector(engine: Engine): Promise<void> {
  const isChromium = engine === "Chromium";
  const folder = await Deno.makeTempDir({ prefix: "inspector-" });
  const server = new DemoServer(`${folder}/data`);
  await server.start();
  const browser: Browser = await launch(engine);
  try {
    const page = await browser.open(new URL("#inspected", server.url).href);
    if (isChromium) await emulate(page, { width: 1280, height: 900 });
    await until(
      page,
      `document.querySelectorAll(".list").length > 0 &&
          document.getElementById("state").dataset.state === "live"`,
    );
    for (const text of ["Rope, 12 m", "Mend the sail", "Charts"]) {
      await addCard(page, text);
    }
    await until(page, `document.querySelectorAll(".card").length === 3`);
    const isLoaded =
      `performance.getEntriesByType("resource").some(({ name }) => name.includes("sampan-inspect"))`;
    assertEquals(await page.evaluate(isLoaded, WAIT_MS_MAX), false);
    await openInspector(page);
    assertEquals(await page.evaluate(isLoaded, WAIT_MS_MAX), true);
    assertEquals(
      await page.evaluate(
        `[...${ROOT}.querySelectorAll("[role=tab]")].map((tab) =>
            tab.firstChild.textContent)`,
        WAIT_MS_MAX,
      ),
      TABS,
    );
    await until(page, `${ROOT}.querySelectorAll("canvas").length === 2`);
    for (
      const fact of [
        "Outbox",
        "leads",
        "live",
        "until a person clears it|while the browser has room|the browser does not say",
        "1 session",
      ]
    ) await until(page, `/${fact}/.test(${PANEL})`);

    // The log, decoded and filtered.
    await click(page, "Log");
    await until(page, `/Mend the sail/.test(${PANEL})`);
    await page.evaluate(
      `(() => {
          const filter = ${ROOT}.querySelector("[type=search]");
          filter.value = "add ROPE";
          filter.dispatchEvent(new Event("input"));
        })()`,
      WAIT_MS_MAX,
    );
    await until(
      page,
      `/^1 of/m.test(${PANEL}) && /Rope/.test(${PANEL}) && !/Mend/.test(${PANEL})`,
    );
    const at = await page.evaluate(
      `Number(${ROOT}.querySelector(".rows button").textContent.slice(1))`,
      WAIT_MS_MAX,
    ) as number;

    // Time travel from a row of the log.
    await click(page, `#${at}`);
    await until(page, `/As of entry ${at}/.test(${PANEL})`);
    await until(
      page,
      `/2 differences to the present/.test(${PANEL}) && /Charts/.test(${PANEL})`,
    );
    await page.evaluate(
      `${ROOT}.querySelectorAll("details")[1].open = true`,
      WAIT_MS_MAX,
    );
    if (isChromium) await lookAround(page);

    // Of a second tab, WebKitGTK draws no frame: its driver opens it in the background.
    if (engine !== "WebKitGTK") {
      await looksFromSecondTab(browser, server.url, at);
    }

    // Tabs by keyboard.
    await click(page, "Overview");
    await page.evaluate(
      `${ROOT}.querySelector("[role=tab]").focus()`,
      WAIT_MS_MAX,
    );
    for (const key of ["ArrowRight", "End", "ArrowRight", "ArrowLeft"]) {
      await press(page, key);
    }
    assertEquals(
      await page.evaluate(
        `${ROOT}.activeElement.firstChild.textContent`,
        WAIT_MS_MAX,
      ),
      "Server",
    );

    // The server, on this machine.
    await until(
      page,
      `/Appended/.test(${PANEL}) && /anonymous/.test(${PANEL})`,
    );
    await click(page, "Entries of cluster");
    await until(page, `/Mend the sail/.test(${PANEL})`);
    await click(page, "Snapshot of cluster");
    await until(page, `/taken at entry/.test(${PANEL})`);

    // Buttons.
    await click(page, "Overview");
    assertMatch(
      await run(page, "Compare hashes", /equal on the server/),
      /equal after a replay/,
    );
    await until(page, `/equal on the server/.test(${PANEL})`);
    await run(page, "Snapshot", /Snapshot taken at entry \d+/);
    await click(page, "Snapshots");
    await until(page, `/1 snapshot,/.test(${PANEL})`);
    await run(page, "Go offline", /Offline until/);
    await click(page, "Overview");
    await until(page, `/switched off here/.test(${PANEL})`);
    await page.evaluate(
      `document.querySelector("dialog").close()`,
      WAIT_MS_MAX,
    );
    await addCard(page, "Written offline");
    await openInspector(page);
    await click(page, "Outbox");
    await until(page, `/Written offline/.test(${PANEL})`);
    if (isChromium) await shoot(page, "inspector-outbox-offline");
    await keepDownloads(page, `${folder}/downloads`);
    await run(page, "Export to a file", /^Exported .*edits\.json/);
    await run(page, "Go online", /Online again/);
    await until(page, `/Nothing waits/.test(${PANEL})`);
    await page.evaluate(
      `(() => {
          const input = ${ROOT}.querySelector("[type=file]");
          const files = new DataTransfer();
          files.items.add(new File(["[]"], "none-edits.json"));
          input.files = files.files;
          input.dispatchEvent(new Event("change"));
        })()`,
      WAIT_MS_MAX,
    );
    await until(page, `/Submitted 0 edits/.test(${SAID})`);
    await click(page, "Start over");
    if (isChromium) await shoot(page, "inspector-start-over");
    await click(page, "Leave it");
    await click(page, "Start over");
    await click(page, "Start over now");
    await until(
      page,
      `document.querySelector("dialog") === null &&
          document.querySelectorAll(".card").length === 4`,
    );
  } finally {
    await browser.close();
    await server.stop("SIGTERM");
    await removeFolder(folder);
  }
}

/** Strictest policy that a page with an inspector can have. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; require-trusted-types-for 'script'";

Deno.test({
  name:
    "U36 U42 under a strict policy the inspector breaks no rule, exports the state, imports it again, and follows the new replica",
  sanitizeOps: false,
  sanitizeResources: false,
  async fn(): Promise<void> {
    const { code } = await bundle({
      name: "inspector_page",
      text: 'import "./tests/browser/inspector_page.ts";',
    });
    await using server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen(): void {} },
      (request) =>
        new URL(request.url).pathname === "/page.js"
          ? new Response(code.slice(), {
            headers: { "content-type": "text/javascript" },
          })
          : new Response(
            `<!doctype html><html lang="en"><title>Notes</title><body><main><h1>Notes</h1></main><script type="module" src="page.js"></script>`,
            {
              headers: {
                "content-type": "text/html; charset=utf-8",
                "content-security-policy": POLICY,
              },
            },
          ),
    );
    const browser = await launch("Chromium");
    try {
      const page = await browser.open(
        `http://localhost:${server.addr.port}/`,
      );
      await until(page, `document.documentElement.dataset.sampan === "ready"`);
      await page.evaluate(
        `stage.write("a", "one").then(() => stage.write("b", "two"))`,
        WAIT_MS_MAX,
      );
      await page.evaluate(
        `(() => {
          const create = URL.createObjectURL;
          URL.createObjectURL = (blob) => (globalThis.exported = blob, create(blob));
        })()`,
        WAIT_MS_MAX,
      );
      await run(page, "Export to a file", /^Exported cluster-1-/);
      await page.evaluate(`stage.write("c", "three")`, WAIT_MS_MAX);
      await page.evaluate(
        `(() => {
          const input = ${ROOT}.querySelector("[type=file]");
          const files = new DataTransfer();
          files.items.add(new File([exported], "cluster-1.snapshot"));
          input.files = files.files;
          input.dispatchEvent(new Event("change"));
        })()`,
        WAIT_MS_MAX,
      );
      await click(page, "Replace the state");
      await until(page, `/now that of the file/.test(${SAID})`);
      await until(page, `stage.count().then((count) => count === 2)`);
      await click(page, "Log");
      await page.evaluate(`stage.write("d", "four")`, WAIT_MS_MAX);
      await until(page, `/four/.test(${PANEL})`);
      assertEquals(
        await page.evaluate(`stage.violations`, WAIT_MS_MAX),
        [],
      );
      assertEquals(await findings(page, { tries: 5 }), []);
    } finally {
      await browser.close();
    }
  },
});

for (const engine of ENGINES) {
  Deno.test({
    name:
      `U42 in ${engine} the charts of the inspector are drawn in a page whose language Intl refuses, and the page keeps it`,
    sanitizeOps: false,
    sanitizeResources: false,
    async fn(): Promise<void> {
      await using server = servePages();
      const browser = await launch(engine);
      try {
        const page = await browser.open(
          await server.page("tests/browser/language_page.ts"),
        );
        const [canvases, text, language] = await page.evaluate(
          "page.draw()",
          WAIT_MS_MAX,
        ) as [number, string, string];
        assertEquals([canvases, language], [1, "C"]);
        assertMatch(text, /a second 2/);
      } finally {
        await browser.close();
      }
    },
  });
}
