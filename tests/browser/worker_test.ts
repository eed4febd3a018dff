import { assertEquals } from "@std/assert";
import { stopBundler } from "../../web/bundle.ts";
import { type Engine, ENGINES, launch, type Page } from "./browser.ts";
import { OPEN_MS_MAX } from "./persistence.ts";
import { servePages } from "./server.ts";

Deno.test.afterAll(stopBundler);

const PAGE = "tests/browser/worker_page.ts";
const HOST_PAGE = "tests/browser/worker_host_page.ts";

/** Defines a test of a page. */
function test(
  name: string,
  engine: Engine,
  file: string,
  run: (page: Page) => Promise<void>,
): void {
  Deno.test({
    name,
    sanitizeOps: false,
    sanitizeResources: false,
    async fn(): Promise<void> {
      await using server = servePages();
      const browser = await launch(engine);
      try {
        await run(await browser.open(await server.page(file)));
      } finally {
        await browser.close();
      }
    },
  });
}

for (const engine of ENGINES) {
  test(
    `R1 R9: in ${engine} a machine in a worker applies commands, saves snapshots and recovers from them`,
    engine,
    PAGE,
    async (page) => {
      const found = await page.evaluate("page.count(500)", OPEN_MS_MAX);
      assertEquals(found, "501");
    },
  );
  test(
    `U15 U18 U21: in ${engine} a whole host in a worker stores, decides and refuses what the page submits, and has it after a restart`,
    engine,
    HOST_PAGE,
    async (page) => {
      const booked = await page.evaluate('page.book("A1")', OPEN_MS_MAX);
      assertEquals(booked, {
        bookings: { A1: "Ada" },
        waiting: 0,
        refused: [{ id: 2, reason: "Ada has that seat" }],
      });
      const again = await page.evaluate("page.restart()", OPEN_MS_MAX);
      const bookings = { A1: "Ada" };
      assertEquals(again, { bookings, waiting: 0, refused: [] });
    },
  );
}
