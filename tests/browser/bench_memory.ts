/**
 * Measures the memory of a state in a page. Only Chromium reports it.
 *
 * This module needs Deno.
 *
 * @module
 */

import puppeteer from "puppeteer-core";
import type { Figure } from "./bench.ts";
import { removeFolder } from "./browser.ts";
import { program } from "./install.ts";
import type { PageServer } from "./server.ts";

/** Memory that V8 reports as in use, in bytes. */
interface Usage {
  readonly usedSize: number;
  /** Size of buffers, which lie outside the heap. */
  readonly backingStorageSize: number;
}

/**
 * Memory of 100,000 rows of 16 and 128 bytes after they are written, including
 * the store's own structures.
 */
export async function memory(server: PageServer): Promise<Figure[]> {
  const profile = await Deno.makeTempDir({ prefix: "profile-" });
  const browser = await puppeteer.launch({
    executablePath: program("chromium"),
    userDataDir: profile,
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-dev-shm-usage",
    ],
  });
  try {
    const page = await browser.newPage();
    await page.goto(
      await server.page("tests/indexeddb/browser_bench.ts", true),
    );
    const session = await page.createCDPSession();
    const used = async (): Promise<number> => {
      await session.send("HeapProfiler.collectGarbage");
      const { usedSize, backingStorageSize } = await session.send(
        "Runtime.getHeapUsage",
      ) as Usage;
      return usedSize + backingStorageSize;
    };
    await page.evaluate("page.fill(1)");
    const before = await used();
    await page.evaluate("page.fill()");
    const bytes = await used() - before;
    return [{
      name: "memory of 100,000 rows of 144 bytes",
      value: bytes / 1e6,
      unit: "MB",
    }];
  } finally {
    await browser.close();
    await removeFolder(profile);
  }
}
