/**
 * Measures the demo board as a person meets it: how soon it can be used, and how
 * smooth it is while others edit it.
 *
 * This module needs Deno.
 *
 * @module
 */

import { assert } from "@std/assert";
import { MemoryOutbox, NodeHost } from "../../mod.ts";
import { DataFolder } from "../../src/sqlite/mod.ts";
import { RemoteLogDB } from "../../src/sync/client/mod.ts";
import { newNodeID } from "../../src/nodehost/node_id.ts";
import { newID, typed } from "../../src/typed/mod.ts";
import { board } from "../../web/app/board.ts";
import { clusterOf, HASH_ENTRIES } from "../../web/app/names.ts";
import { sleep } from "../sync/server_process.ts";
import type { Figure } from "./bench.ts";
import { launch, type Page, removeFolder } from "./browser.ts";
import { DemoServer } from "./sync_demo.ts";

export const NAME = "bench";
const LISTS = 4;
const CALL_MS_MAX = 60_000;

/** Cards that one command adds. */
const FILL_CARDS = 100;

/** Edits a second that arrive from another device. */
const EDITS_PER_SECOND = 10;

/** Milliseconds for which frames are counted. */
const FRAMES_MS = 6_000;

/** Writes a board with many cards into a data folder. */
export async function fill(folder: string, cards: number): Promise<void> {
  await using data = await DataFolder.open(folder);
  await using host = new NodeHost({
    logDB: data.logDB,
    snapshots: data.snapshots,
    outbox: new MemoryOutbox(),
  });
  const replica = await host.startConcurrentCluster(board.create, {
    clusterID: clusterOf(NAME),
    nodeID: 1n,
    hashEntries: HASH_ENTRIES,
  });
  const app = typed(replica, board);
  const lists = Array.from({ length: LISTS }, (_, i) => `list-${i}`);
  await app.do.begin({
    lists: lists.map((id) => ({ id, title: id, cards: [] })),
  });
  let last: { readonly result: Promise<unknown> } | undefined;
  for (let at = 0; at < cards; at += FILL_CARDS) {
    const count = Math.min(FILL_CARDS, cards - at);
    const id = lists[at / FILL_CARDS % LISTS]!;
    last = await app.do.fill({
      lists: [{
        id,
        title: id,
        cards: Array.from({ length: count }, (_, i) => ({
          id: `card-${at + i}`,
          text: `Card ${at + i}, with a text of a usual length`,
          done: false,
          archived: false,
        })),
      }],
    });
  }
  await last?.result;
  await replica.requestSnapshot();
}

/** Has a page note when its first card is there. */
const NOTE = `new MutationObserver((_, observer) => {
  if (document.querySelector(".card") === null) return;
  observer.disconnect();
  globalThis.usableAt = performance.now();
}).observe(document, { childList: true, subtree: true })`;

/** Bytes that the page has transferred over HTTP, its headers included. */
const TRANSFERRED =
  `[...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
    .reduce((sum, { transferSize }) => sum + transferSize, 0)`;

/** Time until the page that is loading has its first card, in milliseconds. */
async function usable(page: Page): Promise<number> {
  const until = performance.now() + CALL_MS_MAX;
  for (;;) {
    // An evaluation is lost with the document of a page that navigates.
    const at = await page.evaluate("globalThis.usableAt", CALL_MS_MAX)
      .catch(() => null);
    if (typeof at === "number") return at;
    assert(performance.now() < until, "The board does not open");
    await sleep(20);
  }
}

/** Milliseconds of the 95th of 100 frames while another device edits. */
async function frames(page: Page, url: string): Promise<number> {
  const address = new URL("sync", url);
  address.protocol = "ws:";
  await using logDB = new RemoteLogDB(address.href);
  await using host = new NodeHost({ logDB, outbox: new MemoryOutbox() });
  const replica = await host.startConcurrentCluster(board.create, {
    clusterID: clusterOf(NAME),
    nodeID: newNodeID(),
    hashEntries: HASH_ENTRIES,
  });
  const app = typed(replica, board);
  await page.devtools!("Emulation.setCPUThrottlingRate", { rate: 4 });
  const counted = page.evaluate(
    `new Promise((resolve) => {
      const times = [];
      let last = performance.now();
      const end = last + ${FRAMES_MS};
      requestAnimationFrame(function frame() {
        const now = performance.now();
        times.push(now - last);
        last = now;
        if (now < end) requestAnimationFrame(frame);
        else resolve(times.sort((a, b) => a - b)[Math.floor(times.length * 0.95)]);
      });
    })`,
    CALL_MS_MAX,
  );
  let i = 0;
  const timer = setInterval(() => {
    const id = `card-${i % 40}`;
    i++;
    const edit = i % 3 === 0
      ? app.do.write({ id, text: `Written ${i}` })
      : i % 3 === 1
      ? app.do.tick({ id, done: i % 2 === 0 })
      : app.do.add({
        id: newID(),
        list: "list-0",
        text: `New ${i}`,
        before: "card-0",
      });
    edit.catch(() => {});
  }, 1000 / EDITS_PER_SECOND);
  try {
    return await counted as number;
  } finally {
    clearInterval(timer);
    await page.devtools!("Emulation.setCPUThrottlingRate", { rate: 1 });
  }
}

/** Opens a board with that many cards at first, and without a network. */
async function measure(cards: number, isEdited: boolean): Promise<Figure[]> {
  const folder = await Deno.makeTempDir({ prefix: "board-bench-" });
  const server = new DemoServer(`${folder}/data`);
  const profile = `${folder}/profile`;
  await Deno.mkdir(profile);
  const name = `board of ${cards.toLocaleString("en")} cards`;
  const figures: Figure[] = [];
  const browser = await launch("Chromium", { profile });
  try {
    await fill(`${folder}/data`, cards);
    await server.start();
    const page = await browser.open("about:blank");
    await page.devtools!("Page.enable");
    await page.devtools!("Page.addScriptToEvaluateOnNewDocument", {
      source: NOTE,
    });
    const url = `${server.url}#${NAME}`;
    await page.devtools!("Page.navigate", { url });
    const first = await usable(page);
    figures.push({
      name: `${name}: first visit until it can be used`,
      value: Math.round(first),
      unit: "ms",
    });
    if (!isEdited && cards < 100) {
      const bytes = await page.evaluate(TRANSFERRED, CALL_MS_MAX) as number;
      figures.push({
        name: `${name}: first visit, transferred by the page`,
        value: Math.round(bytes / 1024),
        unit: "KiB, aim 100",
      });
    }
    if (isEdited) {
      figures.push({
        name:
          `${name}: 95 % of frames, ${EDITS_PER_SECOND} edits a second arriving, CPU 4 × slower`,
        value: Math.round(await frames(page, server.url)),
        unit: "ms, at most 33",
      });
    }
    // What was applied becomes durable about once a second.
    await page.evaluate(
      `navigator.serviceWorker.ready.then(() => new Promise((resolve) => setTimeout(resolve, 3000)))`,
      CALL_MS_MAX,
    );
    await server.stop("SIGKILL");
    await page.reload();
    figures.push({
      name: `${name}: without a network until it can be used`,
      value: Math.round(await usable(page)),
      unit: cards > 10_000 ? "ms, at most 2000" : "ms, at most 500",
    });
    return figures;
  } finally {
    await browser.close();
    await server.stop("SIGTERM");
    await removeFolder(folder);
  }
}

/** Measures boards of several sizes in Chromium. */
export async function boards(): Promise<readonly Figure[]> {
  return [
    ...await measure(6, false),
    ...await measure(2_000, true),
    ...await measure(20_000, false),
  ];
}

if (import.meta.main) {
  for (const { name, value, unit } of await boards()) {
    Deno.stdout.writeSync(
      new TextEncoder().encode(`${name}: ${value} ${unit}\n`),
    );
  }
}
