import { assertEquals } from "@std/assert";
import { stopBundler } from "../../web/bundle.ts";
import {
  type Browser,
  type Engine,
  ENGINES,
  launch,
  removeFolder,
} from "./browser.ts";
import { Ledger, OPEN_MS_MAX } from "./persistence.ts";
import type { ReplicaState } from "./persistence_page.ts";
import { servePages } from "./server.ts";

/**
 * Browser shared by the tests that do not end it; each has an origin of its
 * own.
 */
let running: Browser | undefined;

async function shared(engine: Engine): Promise<Browser> {
  if (running?.engine !== engine) {
    await running?.close();
    running = undefined;
  }
  return running ??= await launch(engine);
}

Deno.test.afterAll(async () => {
  await running?.close();
  await stopBundler();
});

const PAGE = "tests/browser/persistence_page.ts";
const SUITE = "tests/indexeddb/browser_suite.ts";

for (const engine of ENGINES) {
  Deno.test({
    name:
      `U2 ${engine} refuses a second page what one has open, and a page reloaded afterwards finds it`,
    sanitizeOps: false,
    sanitizeResources: false,
    async fn(): Promise<void> {
      await using server = servePages();
      const url = await server.page(SUITE);
      const browser = await shared(engine);
      const one = await browser.open(url);
      try {
        const kept = JSON.stringify(
          await one.evaluate("page.beforeReload()", OPEN_MS_MAX),
        );
        const two = await browser.open(url);
        await two.evaluate(`page.whileOpen(${kept})`, OPEN_MS_MAX);
        await two.close();
        await one.reload();
        await one.evaluate(`page.afterReload(${kept})`, OPEN_MS_MAX);
      } finally {
        await one.close();
      }
    },
  });

  Deno.test({
    name: `D1 ${engine} keeps machine, log and snapshots over a reload`,
    sanitizeOps: false,
    sanitizeResources: false,
    async fn(): Promise<void> {
      await using server = servePages();
      const ledger = new Ledger();
      const browser = await shared(engine);
      const page = await browser.open(await server.page(PAGE));
      try {
        await page.evaluate("page.open()", OPEN_MS_MAX);
        await page.evaluate(`page.work("first", 300, 1)`, OPEN_MS_MAX);
        const before = await page.evaluate(
          "page.state()",
          OPEN_MS_MAX,
        ) as ReplicaState;
        ledger.add(server.told());
        // The first time the page closes the stores, the second time the
        // browser does.
        await page.evaluate("page.close()", OPEN_MS_MAX);
        await page.reload();
        const after = await ledger.check(page);
        assertEquals(after.hash, before.hash);
        await page.evaluate(`page.work("second", 300, 2)`, OPEN_MS_MAX);
        ledger.add(server.told());
        await page.reload();
        await ledger.check(page);
      } finally {
        await page.close();
      }
    },
  });

  Deno.test({
    name: `D1 ${engine} keeps machine, log and snapshots over a restart`,
    sanitizeOps: false,
    sanitizeResources: false,
    async fn(): Promise<void> {
      await using server = servePages();
      const ledger = new Ledger();
      const profile = await Deno.makeTempDir({ prefix: "profile-" });
      let browser: Browser | undefined;
      try {
        for (const life of ["first", "second"]) {
          browser = await launch(engine, { profile });
          const page = await browser.open(await server.page(PAGE));
          await ledger.check(page);
          await page.evaluate(`page.work("${life}", 200, 3)`, OPEN_MS_MAX);
          ledger.add(server.told());
          await browser.close();
        }
      } finally {
        await browser?.kill();
        await removeFolder(profile);
      }
    },
  });
}
