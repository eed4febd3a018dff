import { assert, assertEquals } from "@std/assert";
import { MemoryOutbox, NodeHost } from "../../mod.ts";
import { newNodeID } from "../../src/nodehost/node_id.ts";
import { RemoteLogDB } from "../../src/sync/client/mod.ts";
import { typed } from "../../src/typed/mod.ts";
import { board } from "../../web/app/board.ts";
import { clusterOf, HASH_ENTRIES } from "../../web/app/names.ts";
import { sleep, WAIT_MS_MAX } from "../sync/server_process.ts";
import { fill, NAME } from "./board_bench.ts";
import { launch, type Page, removeFolder } from "./browser.ts";
import { DemoServer } from "./sync_demo.ts";

/** Cards of the board. */
const CARDS = 2_000;

/** Most cards on the page, of four lists in a window of 600 pixels. */
const CARDS_ON_PAGE_MAX = 120;

/** Work of a page. */
interface Work {
  /** Ids of cards that were put on the page, moved or taken off. */
  readonly moved: readonly string[];
  /** Ids of cards in which something has changed. */
  readonly changed: readonly string[];
  /** Other elements in which something has changed, with the number of their changes. */
  readonly others: Readonly<Record<string, number>>;
  /** Reads of blocks and of rows in IndexedDB. */
  readonly reads: number;
  /** Writes of blocks and of rows in IndexedDB. */
  readonly writes: number;
}

/** Has a page count what it does, from before its first script. */
const COUNT = `{
  let records = [];
  const note = new MutationObserver((more) => void records.push(...more));
  const counts = { reads: 0, writes: 0 };
  for (const [name, kind] of [
    ["get", "reads"], ["getAll", "reads"], ["getKey", "reads"],
    ["getAllKeys", "reads"], ["openCursor", "reads"], ["openKeyCursor", "reads"],
    ["put", "writes"], ["add", "writes"], ["delete", "writes"],
  ]) {
    const real = IDBObjectStore.prototype[name];
    IDBObjectStore.prototype[name] = function (...args) {
      counts[kind]++;
      return real.apply(this, args);
    };
  }
  globalThis.beginWork = () => {
    records = [];
    counts.reads = counts.writes = 0;
    note.observe(document.body, {
      attributes: true, attributeOldValue: true, characterData: true, childList: true, subtree: true,
    });
  };
  globalThis.work = () => {
    records.push(...note.takeRecords());
    const moved = [];
    const changed = new Set();
    const others = {};
    for (const record of records) {
      const { target, type, addedNodes, removedNodes } = record;
      const { attributeName: name, oldValue } = record;
      if (type === "attributes" && target.getAttribute(name) === oldValue) {
        continue;
      }
      const cards = [...addedNodes, ...removedNodes]
        .filter((node) => node.classList?.contains("card"));
      if (cards.length > 0) {
        moved.push(...cards.map((card) => card.dataset.card));
        continue;
      }
      const element = target.nodeType === 1 ? target : target.parentElement;
      const card = element?.closest(".card");
      if (card) changed.add(card.dataset.card);
      else {
        const name = element?.id || element?.className || element?.tagName || type;
        others[name] = (others[name] ?? 0) + 1;
      }
    }
    return { moved, changed: [...changed], others, ...counts };
  };
}`;

async function until(page: Page, condition: string): Promise<void> {
  const end = performance.now() + WAIT_MS_MAX;
  // An evaluation is lost with the document of a page that navigates.
  while (
    await page.evaluate(condition, WAIT_MS_MAX).catch(() => false) !== true
  ) {
    assert(performance.now() < end, `Page is never so: ${condition}`);
    await sleep(20);
  }
}

Deno.test({
  name:
    "U15 an edit that arrives at a board of 2,000 cards costs the card that it is about: no other card is touched, and no list is read",
  sanitizeOps: false,
  sanitizeResources: false,
  async fn(): Promise<void> {
    const folder = await Deno.makeTempDir({ prefix: "board-work-" });
    const server = new DemoServer(`${folder}/data`);
    const browser = await launch("Chromium");
    try {
      await fill(`${folder}/data`, CARDS);
      await server.start();
      const page = await browser.open("about:blank");
      await page.devtools!("Page.enable");
      await page.devtools!("Page.addScriptToEvaluateOnNewDocument", {
        source: COUNT,
      });
      await page.devtools!("Page.navigate", { url: `${server.url}#${NAME}` });
      await until(
        page,
        `document.querySelectorAll(".card").length > 4 &&
          document.getElementById("state").dataset.state === "live"`,
      );
      const shown = await page.evaluate(
        `document.querySelectorAll(".card").length`,
        WAIT_MS_MAX,
      ) as number;
      assert(shown <= CARDS_ON_PAGE_MAX, `${shown} cards are on the page`);
      // A change of a card is laid out in its list, and not on the whole page.
      assertEquals(
        await page.evaluate(
          `[...document.querySelectorAll(".cards")].map((cards) => getComputedStyle(cards).contain)`,
          WAIT_MS_MAX,
        ),
        ["strict", "strict", "strict", "strict"],
      );

      const address = new URL("sync", server.url);
      address.protocol = "ws:";
      await using logDB = new RemoteLogDB(address.href);
      await using host = new NodeHost({ logDB, outbox: new MemoryOutbox() });
      const replica = await host.startConcurrentCluster(board.create, {
        clusterID: clusterOf(NAME),
        nodeID: newNodeID(),
        hashEntries: HASH_ENTRIES,
      });
      const app = typed(replica, board);
      // Opens the session, which is an entry of its own.
      await (await app.do.tick({ id: "card-1", done: true })).result;
      /** Work of the page for one edit, until it is shown and the page has come to rest. */
      const workOf = async (
        edit: Promise<{ readonly result: Promise<unknown> }>,
      ): Promise<Work> => {
        await (await edit).result;
        const at = replica.appliedIndex;
        await until(
          page,
          `document.getElementById("applied").textContent === "${at}"`,
        );
        // Marks of the change go after a while.
        await until(page, `document.querySelector(".changed") === null`);
        return await page.evaluate("work()", WAIT_MS_MAX) as Work;
      };
      const begin = async (): Promise<void> => {
        await until(
          page,
          `document.getElementById("applied").textContent === "${replica.appliedIndex}" &&
            document.querySelector(".changed") === null`,
        );
        await page.evaluate("beginWork()", WAIT_MS_MAX);
      };

      await begin();
      const ticked = await workOf(app.do.tick({ id: "card-3", done: true }));
      assertEquals(ticked.moved, []);
      assertEquals(ticked.changed, ["card-3"]);
      // What reads as before is not set once more.
      const { others } = ticked;
      assertEquals([others["pending"], others["state"]], [
        undefined,
        undefined,
      ]);
      assert(
        ticked.reads <= 4 && ticked.writes <= 8,
        `IndexedDB: ${ticked.reads} reads, ${ticked.writes} writes`,
      );

      await begin();
      const added = await workOf(app.do.add({
        id: "new",
        list: "list-0",
        text: "New",
        before: "card-0",
      }));
      // It comes, and the last one of those shown goes.
      assertEquals(added.moved.length, 2, added.moved.join());
      assertEquals(added.moved.includes("new"), true);
      assertEquals(added.changed, []);

      await begin();
      // Far below what is on the page.
      const unseen = await workOf(
        app.do.write({ id: "card-90", text: "Read" }),
      );
      assertEquals([unseen.moved, unseen.changed], [[], []]);
    } finally {
      await browser.close();
      await server.stop("SIGTERM");
      await removeFolder(folder);
    }
  },
});
