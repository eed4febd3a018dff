import { assert, assertEquals } from "@std/assert";
import { stopBundler } from "../../web/bundle.ts";
import { type Browser, launch, type Page } from "./browser.ts";
import { newSeed } from "../support/random.ts";
import { servePages } from "./server.ts";

const PAGE = "tests/browser/quota_page.ts";
const MIB = 1024 * 1024;
/** Quota of the page, in bytes. */
const QUOTA_BYTES = 6 * MIB;
const STEP_MS_MAX = 120_000;

Deno.test.afterAll(() => stopBundler());

/**
 * Runs a test in a page of Chromium, the only engine whose quota can be set
 * from outside.
 */
async function inChromium(
  body: (page: Page, origin: string, browser: Browser) => Promise<void>,
): Promise<void> {
  await using server = servePages();
  const browser = await launch("Chromium");
  try {
    const page = await browser.open(await server.page(PAGE));
    await body(page, server.origin, browser);
  } finally {
    await browser.close();
  }
}

function call(page: Page, what: string): Promise<unknown> {
  return page.evaluate(`page.${what}`, STEP_MS_MAX);
}

/**
 * Sets the quota of an origin; without a number, restores the browser's
 * default. Call it before pages open anything: later the browser may take half
 * a minute to notice.
 */
async function setQuota(
  page: Page,
  origin: string,
  quotaSize?: number,
): Promise<void> {
  await page.devtools!("Storage.overrideQuotaForOrigin", {
    origin,
    ...(quotaSize === undefined ? {} : { quotaSize }),
  });
}

async function clear(page: Page, origin: string): Promise<void> {
  await page.devtools!("Storage.clearDataForOrigin", {
    origin,
    storageTypes: "indexeddb",
  });
}

Deno.test({
  name:
    "U8 a full store in Chromium fails with nothing half written, and works again when there is room",
  sanitizeOps: false,
  sanitizeResources: false,
  async fn(): Promise<void> {
    const seed = newSeed();
    await inChromium(async (page, origin) => {
      await setQuota(page, origin, QUOTA_BYTES);
      await call(page, "open()");
      const failures = await call(page, `fill(${seed}, 30)`) as number;
      assert(failures > 0, `Seed ${seed}`);
      await setQuota(page, origin);
      assertEquals(await call(page, "writeMore(10)"), 10, `Seed ${seed}`);
      await call(page, "close()");
    });
  },
});

Deno.test({
  name:
    "U8 a replica in Chromium rejects proposals that do not fit with ErrStoreFull, and continues when there is room",
  sanitizeOps: false,
  sanitizeResources: false,
  async fn(): Promise<void> {
    await inChromium(async (page, origin) => {
      await setQuota(page, origin, QUOTA_BYTES);
      await call(page, "start()");
      const full = await call(page, "propose(150)") as number;
      assert(full > 0);
      await setQuota(page, origin);
      assertEquals(await call(page, "propose(10)"), 0);
      const [answered, now, replayed] = await call(
        page,
        "counts()",
      ) as number[];
      assertEquals(answered, 160 - full);
      assertEquals([now, replayed], [answered, answered]);
      await call(page, "close()");
    });
  },
});

Deno.test({
  name:
    "U2 storage that Chromium clears, of an open page or not, is reported as ErrStoreVanished",
  sanitizeOps: false,
  sanitizeResources: false,
  async fn(): Promise<void> {
    await inChromium(async (page, origin) => {
      const identity = await call(page, "open()");
      assertEquals(await call(page, "write()"), null);
      await call(page, "start()");
      assertEquals(await call(page, "proposeOnce()"), null);
      await clear(page, origin);
      assertEquals(await call(page, "proposeOnce()"), "ErrStoreVanished");
      // The store is not recreated behind the page's back, now or later.
      for (let i = 0; i < 3; i++) {
        assertEquals(await call(page, "write()"), "ErrStoreVanished");
      }
      await call(page, "close()");
      assertEquals(await call(page, `open("${identity}")`), "ErrStoreVanished");
      // A caller without an identity gets a new store.
      const other = await call(page, "open()");
      assert(other !== identity && other !== "ErrStoreVanished", `${other}`);
      assertEquals(await call(page, "write()"), null);
      await page.reload();
      assertEquals(await call(page, `open("${other}")`), other);
      await call(page, "close()");
      await clear(page, origin);
      await page.reload();
      assertEquals(await call(page, `open("${other}")`), "ErrStoreVanished");
    });
  },
});
