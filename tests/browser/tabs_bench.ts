/**
 * Measures tabs that share a replica: the time from a submission in one tab until
 * another one shows it, the time until another tab leads after the leader was killed
 * (reloaded in WebKitGTK) or stopped, and the memory of a follower.
 *
 * ```sh
 * deno run -A tests/browser/tabs_bench.ts           # in Chromium
 * deno run -A tests/browser/tabs_bench.ts Firefox
 * ```
 *
 * This module needs Deno.
 *
 * @module
 */

import { stopBundler } from "../../web/bundle.ts";
import { type Figure, table } from "./bench.ts";
import {
  type Browser,
  type Engine,
  gone,
  killAll,
  launch,
  type Page,
} from "./browser.ts";
import { type PageServer, servePages } from "./server.ts";
import { answering, processOf } from "./tab_process.ts";

/** Timeout for all figures, in milliseconds. */
const BENCH_MS_MAX = 5 * 60_000;

/** Number of tabs in each engine. */
const TABS: Readonly<Record<Engine, number>> = {
  Chromium: 8,
  Firefox: 8,
  WebKitGTK: 3,
};

/** Timeout of a page that may have ended, in milliseconds. */
const ANSWER_MS_MAX = 1_000;

/** Items that each submitting tab adds in a run. */
const ITEMS = 150;

/** Leaders that are killed. */
const KILLS = 20;

/** Leaders that are stopped. */
const STOPS = 8;

type Time = [id: string, at: number];

/** Tab of the browser. */
interface Tab {
  readonly page: Page;
}

/** Value that a share of sorted values does not exceed. */
function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.ceil(share * sorted.length) - 1]!;
}

/** Time on the clock of all tabs, in milliseconds. */
function now(): number {
  return performance.timeOrigin + performance.now();
}

function isLeading(state: string): boolean {
  return state === "leading";
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Tabs of one browser. */
class Tabs {
  readonly #browser: Browser;
  readonly #url: string;
  #open: Tab[] = [];

  constructor(browser: Browser, url: string) {
    this.#browser = browser;
    this.#url = url;
  }

  /** Id of the process that runs a page. */
  processOf(page: Page): Promise<number> {
    return processOf(this.#browser, page);
  }

  get pages(): Page[] {
    return this.#open.map(({ page }) => page);
  }

  call(page: Page, expression: string): Promise<unknown> {
    return page.evaluate(expression, BENCH_MS_MAX);
  }

  /** True if a tab's process can be killed: WebKitGTK's driver ends its session when one does. */
  get canKill(): boolean {
    return this.#browser.engine !== "WebKitGTK";
  }

  /** Opens tabs until there are enough. */
  async fill(): Promise<void> {
    while (this.#open.length < TABS[this.#browser.engine]) {
      const page = await this.#browser.open(this.#url);
      await this.call(page, "page.ready()");
      this.#open.push({ page });
    }
  }

  /** States of the tabs. */
  async states(): Promise<string[]> {
    const all = await Promise.all(
      this.pages.map((page) => this.call(page, "page.status()")),
    ) as { state: string }[];
    return all.map(({ state }) => state);
  }

  /** Waits until a tab leads, and returns it with the others. */
  async roles(): Promise<{ leader: Page; others: Page[] }> {
    for (;;) {
      const leader = this.pages[(await this.states()).findIndex(isLeading)];
      if (leader !== undefined) {
        return { leader, others: this.pages.filter((p) => p !== leader) };
      }
      await pause(20);
    }
  }

  /** Keeps those that answer. */
  async keepAnswering(): Promise<void> {
    this.#open = await answering(this.#open);
  }

  /** Time until one of some tabs has begun to lead since a time, in milliseconds; those that do not answer are passed over. */
  async led(pages: readonly Page[], since: number): Promise<number> {
    for (;;) {
      const all = await Promise.all(
        pages.map((page) =>
          page.evaluate("page.states", ANSWER_MS_MAX).catch(() => [])
        ),
      ) as Time[][];
      for (const states of all) {
        const led = states.find(([state, at]) =>
          state === "leading" && at >= since
        );
        if (led !== undefined) return led[1] - since;
      }
    }
  }
}

/** Delays until another tab shows what some tabs submit. */
async function shown(
  tabs: Tabs,
  name: string,
  authors: readonly Page[],
  pauseMs: number,
): Promise<Figure[]> {
  const prefixes = authors.map((_, i) => `${name} ${i} `);
  const added = await Promise.all(authors.map((page, i) =>
    tabs.call(
      page,
      `page.addMany(${JSON.stringify(prefixes[i])}, ${ITEMS}, ${pauseMs})`,
    )
  )) as Time[][];
  await pause(2_000);
  const delays: number[] = [];
  for (const page of tabs.pages) {
    const times = new Map(
      await tabs.call(
        page,
        `page.shownTimes(${JSON.stringify(name)})`,
      ) as Time[],
    );
    for (const [i, items] of added.entries()) {
      if (authors[i] === page) continue;
      for (const [id, at] of items) delays.push(times.get(id)! - at);
    }
  }
  delays.sort((a, b) => a - b);
  return [0.5, 0.99].map((share) => ({
    name: `${name}: shown in another tab, p${share * 100}`,
    value: quantile(delays, share),
    unit: "ms",
    ...(share === 0.99 ? { aim: 16 } : {}),
  }));
}

/** Delays from the moment when the leader's page is reloaded until another tab leads. */
async function reloads(tabs: Tabs): Promise<Figure[]> {
  const led: number[] = [];
  for (let i = 0; i < KILLS; i++) {
    await tabs.fill();
    const { leader, others } = await tabs.roles();
    const since = now();
    await leader.reload();
    led.push(await tabs.led(others, since));
    await tabs.call(leader, "page.ready()");
  }
  led.sort((a, b) => a - b);
  return [{
    name: "leader reloaded: another tab leads, p95",
    value: quantile(led, 0.95),
    unit: "ms",
    aim: 1_000,
  }];
}

/** Delays from the end of the leader's process until another tab leads, and until a linearizable read of some tab is answered. */
async function kills(tabs: Tabs): Promise<Figure[]> {
  const led: number[] = [];
  const answered: number[] = [];
  for (let i = 0; i < KILLS; i++) {
    await tabs.fill();
    const { leader, others } = await tabs.roles();
    const pid = await tabs.processOf(leader);
    const since = now();
    killAll([pid]);
    const reads = others.map((page) => tabs.call(page, "page.readAt()"));
    // Those of pages that share the process are not answered.
    for (const read of reads) read.catch(() => {});
    led.push(await tabs.led(others, since));
    answered.push(await Promise.any(reads) as number - since);
    await gone([pid]);
    await tabs.keepAnswering();
  }
  led.sort((a, b) => a - b);
  answered.sort((a, b) => a - b);
  return [
    {
      name: "leader killed: another tab leads, p95",
      value: quantile(led, 0.95),
      unit: "ms",
      aim: 1_000,
    },
    {
      name: "leader killed: a read in another tab is answered, p95",
      value: quantile(answered, 0.95),
      unit: "ms",
    },
  ];
}

/** Delays from the moment when the process of the leader is stopped, and the others submit, until another tab leads. */
async function stops(tabs: Tabs): Promise<Figure[]> {
  const delays: number[] = [];
  // WebKitGTK's driver does not always go on with a process that was stopped.
  const count = tabs.canKill ? STOPS : 1;
  for (let i = 0; i < count; i++) {
    await tabs.fill();
    const { leader, others } = await tabs.roles();
    const pid = await tabs.processOf(leader);
    const since = now();
    Deno.kill(pid, "SIGSTOP");
    try {
      // Those of pages that share the process are not answered.
      for (const [n, page] of others.entries()) {
        tabs.call(page, `page.add("stopped ${i} ${n}")`).catch(() => {});
      }
      delays.push(await tabs.led(others, since));
    } finally {
      if (tabs.canKill) {
        killAll([pid]);
        await gone([pid]);
        await tabs.keepAnswering();
      } else Deno.kill(pid, "SIGCONT");
    }
  }
  delays.sort((a, b) => a - b);
  return [{
    name:
      `leader stopped while others submit: another tab leads, largest of ${count}`,
    value: delays.at(-1)!,
    unit: "ms",
    aim: 5_000,
  }];
}

/** Memory of the script of a page, in bytes, with that of its buffers (Chromium only). */
async function memoryOf(page: Page): Promise<number> {
  await page.devtools!("HeapProfiler.collectGarbage");
  const { usedSize, backingStorageSize } = await page.devtools!(
    "Runtime.getHeapUsage",
  ) as { usedSize: number; backingStorageSize: number };
  return usedSize + backingStorageSize;
}

/** Figures of an engine. */
export async function tabs(
  server: PageServer,
  engine: Engine,
): Promise<readonly Figure[]> {
  const url = `${await server.page("tests/browser/tabs_page.ts", true)}?kept`;
  const browser = await launch(engine);
  try {
    const tabs = new Tabs(browser, url);
    await tabs.fill();
    const { leader, others } = await tabs.roles();
    const figures = [
      ...await shown(
        tabs,
        "one follower submits every 100 ms",
        others.slice(0, 1),
        100,
      ),
      ...await shown(tabs, "the leader submits every 100 ms", [leader], 100),
      ...await shown(
        tabs,
        `${TABS[engine]} tabs submit every 25 ms`,
        tabs.pages,
        25,
      ),
    ];
    if (leader.devtools !== undefined) {
      for (
        const [name, page] of [
          ["leader", leader],
          ["follower", others[0]!],
        ] as const
      ) {
        figures.push({
          name: `memory of the script of a ${name}`,
          value: await memoryOf(page) / 1e6,
          unit: "MB",
        });
      }
    }
    return [
      ...figures,
      ...tabs.canKill ? await kills(tabs) : await reloads(tabs),
      ...await stops(tabs),
    ];
  } finally {
    await browser.close();
  }
}

if (import.meta.main) {
  const engine = (Deno.args[0] ?? "Chromium") as Engine;
  await using server = servePages();
  const measured = table(new Map([[engine, await tabs(server, engine)]]));
  await stopBundler();
  Deno.stdout.writeSync(new TextEncoder().encode(`${measured}\n`));
}
