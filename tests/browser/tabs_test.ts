import { assert, assertEquals, assertMatch } from "@std/assert";
import { stopBundler } from "../../web/bundle.ts";
import {
  type Browser,
  type Engine,
  ENGINES,
  gone,
  killAll,
  launch,
  type Page,
  removeFolder,
} from "./browser.ts";
import { OPEN_MS_MAX } from "./persistence.ts";
import { servePages } from "./server.ts";
import { answering, processOf } from "./tab_process.ts";

Deno.test.afterAll(stopBundler);

const PAGE = "tests/browser/tabs_page.ts";

/** Number of tabs in each engine. */
const TABS: Readonly<Record<Engine, number>> = {
  Chromium: 8,
  Firefox: 8,
  WebKitGTK: 3,
};

const evaluate = (page: Page, expression: string): Promise<unknown> =>
  page.evaluate(expression, OPEN_MS_MAX);

/** Waits until an expression has a value that passes, and returns it. */
async function until<T>(
  page: Page,
  expression: string,
  passes: (value: T) => boolean,
): Promise<T> {
  const end = performance.now() + OPEN_MS_MAX;
  let value: T | undefined;
  while (performance.now() < end) {
    value = await evaluate(page, expression).catch(() => undefined) as T;
    if (value !== undefined && passes(value)) return value;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`${expression} is ${JSON.stringify(value)}`);
}

/** Tab of the browser. */
interface Tab {
  readonly page: Page;
}

async function open(browser: Browser, url: string): Promise<Tab> {
  const page = await browser.open(url);
  await until(page, "page.ready()", () => true);
  return { page };
}

async function stateOf({ page }: Tab): Promise<string> {
  const { state } = await evaluate(page, "page.status()") as { state: string };
  return state;
}

/** The tab that leads among some, once there is one. */
async function leaderOf(tabs: readonly Tab[]): Promise<Tab> {
  const end = performance.now() + OPEN_MS_MAX;
  while (performance.now() < end) {
    for (const tab of tabs) if (await stateOf(tab) === "leading") return tab;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`None of ${tabs.length} tabs leads`);
}

/** Waits until all tabs show the same items and nothing is pending. */
async function settle(
  tabs: readonly Tab[],
  ids: readonly string[],
): Promise<void> {
  const wanted = [...ids].sort().join();
  for (const { page } of tabs) {
    await until<string[]>(
      page,
      "page.all()",
      (all) => [...all].sort().join() === wanted,
    );
    await until<number>(page, "page.pending()", (count) => count === 0);
  }
}

for (const engine of ENGINES) {
  Deno.test({
    name:
      `M1 M2 M3 M4 M6 U10 U11 U12 U13 U21: in ${engine} tabs share one replica of a typed machine, also when the leader is killed, frozen, closed, left or reloaded`,
    sanitizeOps: false,
    sanitizeResources: false,
    async fn(): Promise<void> {
      await using server = servePages();
      const url = `${await server.page(PAGE)}?kept`;
      const away = `${await server.page("tests/browser/core_suite.ts")}?kept`;
      const browser = await launch(engine);
      try {
        let tabs: Tab[] = [];
        const fill = async (): Promise<void> => {
          while (tabs.length < TABS[engine]) {
            tabs.push(await open(browser, url));
          }
        };
        await fill();
        const states = await Promise.all(tabs.map(stateOf));
        assertEquals(
          states.filter((state) => state === "leading").length,
          1,
          states.join(),
        );
        const ids: string[] = [];
        const add = async ({ page }: Tab): Promise<void> => {
          const id = `i${ids.length}`;
          ids.push(id);
          await evaluate(page, `page.add(${JSON.stringify(id)})`);
        };
        for (const tab of tabs) await add(tab);
        await settle(tabs, ids);
        // Undo, and reads through the leader, in a follower.
        const [follower] = tabs.filter((_, i) => states[i] !== "leading");
        await add(follower!);
        assertEquals(await evaluate(follower!.page, "page.undo()"), true);
        ids.pop();
        await settle(tabs, ids);
        await evaluate(follower!.page, "page.read()");
        let leader = await leaderOf(tabs);
        let others = tabs.filter((tab) => tab !== leader);
        if (engine !== "WebKitGTK") {
          // Its process is killed, and with it the tabs that share it.
          const pid = await processOf(browser, leader.page);
          killAll([pid]);
          await gone([pid]);
          tabs = await answering(others);
          assert(tabs.length > 0);
          await leaderOf(tabs);
          for (const tab of tabs.slice(0, 2)) await add(tab);
          await settle(tabs, ids);
          await fill();
          await settle(tabs, ids);
        }
        if (leader.page.devtools !== undefined) {
          // Frozen, and thawed.
          leader = await leaderOf(tabs);
          others = tabs.filter((tab) => tab !== leader);
          const method = "Page.setWebLifecycleState";
          await leader.page.devtools!(method, { state: "frozen" });
          await leaderOf(others);
          await add(others[0]!);
          await settle(others, ids);
          await leader.page.devtools!(method, { state: "active" });
          await until<{ state: string }>(
            leader.page,
            "page.status()",
            ({ state }) => state === "following",
          );
          await add(leader);
          await settle(tabs, ids);
        }
        // Closed.
        leader = await leaderOf(tabs);
        tabs = tabs.filter((tab) => tab !== leader);
        await leader.page.close();
        await add(tabs[0]!);
        await leaderOf(tabs);
        await settle(tabs, ids);
        tabs.push(await open(browser, url));
        // Left for another page, and come back to.
        leader = await leaderOf(tabs);
        others = tabs.filter((tab) => tab !== leader);
        await evaluate(
          leader.page,
          `void setTimeout(() => location.href = ${JSON.stringify(away)})`,
        );
        await leaderOf(others);
        await add(others[0]!);
        await settle(others, ids);
        await until(leader.page, "location.href", (at) => at === away);
        await leader.page.evaluate(
          "void setTimeout(() => history.back())",
          OPEN_MS_MAX,
        );
        await until(leader.page, "typeof page", (type) => type === "object");
        await until(leader.page, "page.ready()", () => true);
        await add(leader);
        await settle(tabs, ids);
        // Reloaded.
        leader = await leaderOf(tabs);
        await leader.page.reload();
        await until(leader.page, "page.ready()", () => true);
        await add(leader);
        await settle(tabs, ids);
        assert(ids.length > 5);
        if (engine !== "WebKitGTK") return;
        // Its process is killed. The driver ends its session then: the page that
        // leads next tells what it shows.
        leader = await leaderOf(tabs);
        for (const { page } of tabs.filter((tab) => tab !== leader)) {
          await evaluate(page, 'page.tellOnceLeading("last")');
        }
        killAll([await processOf(browser, leader.page)]);
        const end = performance.now() + OPEN_MS_MAX;
        let told: string[] = [];
        while (told.length === 0 && performance.now() < end) {
          await new Promise((resolve) => setTimeout(resolve, 20));
          told = server.told();
        }
        assertEquals(
          (JSON.parse(told[0] ?? "[]") as string[]).sort(),
          [...ids, "last"].sort(),
        );
      } finally {
        await browser.close();
      }
    },
  });
}

/** Profile of a browser in which the answer to a request for persistence is known. */
async function answeringProfile(
  engine: Engine,
  isGranted: boolean,
): Promise<string> {
  const profile = await Deno.makeTempDir({ prefix: "profile-" });
  if (engine === "Firefox") {
    await Deno.writeTextFile(
      `${profile}/prefs.js`,
      `user_pref("dom.storageManager.prompt.testing", true);
user_pref("dom.storageManager.prompt.testing.allow", ${isGranted});
`,
    );
  }
  return profile;
}

for (const engine of ENGINES) {
  for (const isGranted of [true, false]) {
    // WebKitGTK answers as it likes.
    if (engine === "WebKitGTK" && isGranted) continue;
    Deno.test({
      name:
        `U3 M6: in ${engine} a tab that follows asks for persistence, which is ${
          isGranted ? "granted" : "not granted"
        }, and both tabs learn the answer`,
      sanitizeOps: false,
      sanitizeResources: false,
      async fn(): Promise<void> {
        await using server = servePages();
        const url = `${await server.page(PAGE)}?kept`;
        const profile = await answeringProfile(engine, isGranted);
        const browser = await launch(engine, { profile });
        try {
          const tabs = [await open(browser, url), await open(browser, url)];
          const leader = await leaderOf(tabs);
          const [follower] = tabs.filter((tab) => tab !== leader);
          await follower!.page.devtools?.("Browser.setPermission", {
            permission: { name: "persistent-storage" },
            setting: isGranted ? "granted" : "denied",
            origin: new URL(url).origin,
          });
          const answer = await evaluate(follower!.page, "page.persist()");
          if (engine === "WebKitGTK") {
            assertMatch(`${answer}`, /^(persistent|best-effort|unsupported)$/);
          } else assertEquals(answer, isGranted ? "persistent" : "best-effort");
          for (const { page } of tabs) {
            assertEquals(
              await evaluate(page, "page.mode()"),
              answer === "persistent" ? "persistent" : "best-effort",
            );
          }
          // What was asked has cost the tabs nothing.
          assertEquals(await stateOf(leader), "leading");
          assertEquals(await stateOf(follower!), "following");
          await evaluate(follower!.page, 'page.add("asked")');
          await settle(tabs, ["asked"]);
        } finally {
          await browser.close();
          await removeFolder(profile);
        }
      },
    });
  }
}

/** Files of a profile in which the user has forbidden sites to keep data. */
const WITHOUT_SITE_DATA = {
  Chromium: [
    "Default/Preferences",
    JSON.stringify({
      profile: { default_content_setting_values: { cookies: 2 } },
    }),
  ],
  Firefox: ["prefs.js", `user_pref("network.cookie.cookieBehavior", 2);\n`],
} as const;

for (const engine of ["Chromium", "Firefox"] as const) {
  Deno.test({
    name:
      `U9 M1: in ${engine} tabs of a site that may keep no data share nothing, and say why`,
    sanitizeOps: false,
    sanitizeResources: false,
    async fn(): Promise<void> {
      await using server = servePages();
      const url = await server.page(PAGE);
      const profile = await Deno.makeTempDir({ prefix: "profile-" });
      const [file, text] = WITHOUT_SITE_DATA[engine];
      if (file.includes("/")) await Deno.mkdir(`${profile}/Default`);
      await Deno.writeTextFile(`${profile}/${file}`, text);
      const browser = await launch(engine, { profile });
      try {
        const tabs = [await open(browser, url), await open(browser, url)];
        for (const [i, { page }] of tabs.entries()) {
          const { state, reason } = await evaluate(page, "page.status()") as {
            state: string;
            reason: string;
          };
          assertEquals(state, "memory");
          assertMatch(reason, /^Tabs share nothing here, since /);
          await evaluate(page, `page.add("only ${i}")`);
          await until<string[]>(
            page,
            "page.all()",
            (all) => all.join() === `only ${i}`,
          );
        }
      } finally {
        await browser.close();
        await removeFolder(profile);
      }
    },
  });
}
