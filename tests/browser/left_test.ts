import { assert, assertEquals, assertMatch } from "@std/assert";
import { stopBundler } from "../../web/bundle.ts";
import { ENGINES, launch, type Page } from "./browser.ts";
import { OPEN_MS_MAX } from "./persistence.ts";
import { servePages } from "./server.ts";

Deno.test.afterAll(stopBundler);

const PAGE = "tests/browser/left_page.ts";

/** Error of an evaluation that was lost with the document of a page that navigated. */
const NAVIGATED = /context was destroyed/;

/**
 * Evaluates an expression in the current document of a page, once its module
 * has run; once more in the next document if the page navigates.
 */
async function evaluate(page: Page, expression: string): Promise<unknown> {
  const until = performance.now() + OPEN_MS_MAX;
  for (;;) {
    const isReady = await page.evaluate("typeof page", OPEN_MS_MAX)
      .catch(() => "undefined");
    if (isReady !== "undefined") {
      try {
        return await page.evaluate(expression, OPEN_MS_MAX);
      } catch (error) {
        if (!NAVIGATED.test(`${error}`)) throw error;
      }
    }
    assert(performance.now() < until, "Page has not loaded");
  }
}

/** Navigates a page; resolves once the new document is there. */
async function leave(page: Page, url: string): Promise<void> {
  await page.evaluate(
    `void setTimeout(() => location.href = ${JSON.stringify(url)})`,
    OPEN_MS_MAX,
  );
  const until = performance.now() + OPEN_MS_MAX;
  for (;;) {
    const at = await page.evaluate("location.href", OPEN_MS_MAX)
      .catch(() => undefined);
    if (at === url) return;
    assert(performance.now() < until, `Page has not navigated to ${url}`);
  }
}

for (const engine of ENGINES) {
  Deno.test({
    name:
      `case B9 B10: ${engine} has the store of a page that is left for another one, and again when it comes back [U10, M1]`,
    sanitizeOps: false,
    sanitizeResources: false,
    async fn(): Promise<void> {
      await using server = servePages();
      const url = `${await server.page(PAGE)}?kept`;
      const away = `${await server.page("tests/browser/core_suite.ts")}?kept`;
      const browser = await launch(engine);
      try {
        const one = await browser.open(url);
        await evaluate(one, "page.put(1)");
        assertMatch(
          await evaluate(one, "page.twice()") as string,
          /^ErrStoreLocked: This page has the store left open already/,
        );
        // Away and back, whether the browser restores the page from its cache
        // or reloads it.
        await leave(one, away);
        await one.evaluate(
          "void setTimeout(() => history.back())",
          OPEN_MS_MAX,
        );
        await evaluate(one, "page.cached()");
        const until = performance.now() + OPEN_MS_MAX;
        while (
          await one.evaluate("location.href", OPEN_MS_MAX).catch(() => "") !==
            url
        ) assert(performance.now() < until, "Page does not come back");
        assertEquals(await evaluate(one, "page.get()"), 1);
        await evaluate(one, "page.put(2)");
        // A waiting page gets the store as soon as the other page is left.
        const two = await browser.open(url);
        const waiting = two.evaluate("page.get()", OPEN_MS_MAX);
        await leave(one, away);
        assertEquals(await waiting, 2);
        await two.close();
        await one.close();
      } finally {
        await browser.close();
      }
    },
  });
}

// Only Chromium opens an insecure address of this machine.
Deno.test({
  name:
    "case B5: Chromium says why a page that is not in a secure context keeps nothing [U9]",
  sanitizeOps: false,
  sanitizeResources: false,
  async fn(): Promise<void> {
    await using server = servePages();
    const url = await server.page(PAGE);
    const browser = await launch("Chromium");
    try {
      // Address of this machine that no browser treats as secure.
      const page = await browser.open(url.replace("127.0.0.1", "0.0.0.0"));
      assertEquals(
        await page.evaluate("isSecureContext", OPEN_MS_MAX),
        false,
      );
      const { mode, reason } = await evaluate(page, "page.status()") as {
        mode: string;
        reason: string;
      };
      assertEquals(mode, "memory");
      assertMatch(reason, /serve the page over https/);
      assertEquals(await evaluate(page, "page.refused()"), reason);
      await page.close();
    } finally {
      await browser.close();
    }
  },
});
