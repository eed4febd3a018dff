/**
 * Brings a large state from SQLite into a page's IndexedDB and back, and looks
 * at the memory it takes.
 *
 * ```sh
 * deno run -A tests/browser/transfer.ts       # 256 MiB
 * deno run -A tests/browser/transfer.ts 32
 * deno run -A tests/browser/transfer.ts 32 123  # with this seed
 * ```
 *
 * This module needs Deno.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { kv, NodeHost, type Replica } from "../../mod.ts";
import {
  FileSnapshotStore,
  SqliteKVStateMachine,
  SqliteLogDB,
} from "../../src/sqlite/mod.ts";
import { stopBundler } from "../../web/bundle.ts";
import { bytesInUse } from "../support/garbage.ts";
import {
  type Browser,
  descendants,
  launch,
  type Page,
  removeFolder,
  within,
} from "./browser.ts";
import { newSeed, random } from "../support/random.ts";
import { servePages } from "./server.ts";

const MIB = 1024 * 1024;
const PAGE = "tests/browser/transfer_page.ts";
const CLUSTER = { clusterID: 1n, nodeID: 1n };

/** Timeout of a step, in milliseconds. */
const STEP_MS_MAX = 600_000;

/**
 * Maximum growth of the live memory since before the first step, in MiB,
 * besides the budgets of the machines. Garbage is not counted: the engine
 * decides when to free it, and does so late on a busy machine.
 */
const LIVE_MIB_MAX = 16;

/** Interval between two samples of process memory, in milliseconds. */
const SAMPLE_MS = 50;

/** Interval between two samples of live memory, in milliseconds. */
const LIVE_MS = 100;

/** Share of the state that the machines may keep in memory: 16 MiB of 256. */
const BUDGET_SHARE = 1 / 16;

/** Sizes of the state's values and of one command, in bytes. */
const VALUE_BYTES_MIN = 1024;
const VALUE_BYTES_MAX = 64 * 1024;
const BATCH_BYTES = 896 * 1024;

/** Memory at the beginning of a step and at its peak, in MiB. */
type Range = readonly [before: number, peak: number];

/** Duration and memory of a step. */
export interface Step {
  /** Name of the step. */
  readonly name: string;
  /** Duration, in milliseconds. */
  readonly ms: number;
  /** Live objects and buffers of this process. */
  readonly live: Range;
  /** Live objects and buffers of the page. */
  readonly pageLive: Range;
  /** Resident memory of this process. */
  readonly deno: Range;
  /** Resident memory of the page's process. */
  readonly page: Range;
  /** Resident memory of all processes of the browser. */
  readonly browser: Range;
}

/** Result of `transfer()`. */
export interface Transfer {
  /** Hashes of the first machine, of the page's and of the last. */
  readonly hashes: readonly string[];
  /** Numbers of rows in the first machine and in the last. */
  readonly rows: readonly number[];
  /** Total size of the values, in MiB. */
  readonly mib: number;
  /** Number of bytes that the page sent back. */
  readonly bytes: number;
  /** Steps, in order. */
  readonly steps: readonly Step[];
}

/** Resident memory of a process, in MiB; 0 if it has ended. */
function residentOf(pid: number, rendererOnly: boolean): number {
  try {
    const isRenderer = Deno.readTextFileSync(`/proc/${pid}/cmdline`)
      .includes("--type=renderer");
    if (rendererOnly && !isRenderer) return 0;
    const status = Deno.readTextFileSync(`/proc/${pid}/status`);
    return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) / 1024;
  } catch {
    return 0;
  }
}

function memory(
  { pid }: Browser,
): [deno: number, page: number, browser: number] {
  const pids = [pid, ...descendants(pid)];
  return [
    Deno.memoryUsage().rss / MIB,
    Math.max(0, ...pids.map((pid) => residentOf(pid, true))),
    pids.reduce((sum, pid) => sum + residentOf(pid, false), 0),
  ];
}

/** Live memory of this process and of a page, in MiB. */
async function inUse(page: Page): Promise<[here: number, there: number]> {
  const here = bytesInUse();
  await page.devtools!("HeapProfiler.collectGarbage");
  const { usedSize, backingStorageSize } = await page.devtools!(
    "Runtime.getHeapUsage",
  ) as { usedSize: number; backingStorageSize: number };
  return [here / MIB, (usedSize + backingStorageSize) / MIB];
}

/** Runs an action and samples the memory during it. */
async function step<T>(
  steps: Step[],
  browser: Browser,
  page: Page,
  name: string,
  work: () => Promise<T>,
): Promise<T> {
  const before = [...memory(browser), ...await inUse(page)];
  const peak = [...before];
  const note = (found: readonly number[], from: number): void =>
    found.forEach((now, i) => peak[from + i] = Math.max(peak[from + i]!, now));
  const timer = setInterval(() => note(memory(browser), 0), SAMPLE_MS);
  let done = false;
  const looking = (async (): Promise<void> => {
    while (!done) {
      note(await inUse(page), 3);
      await new Promise((resolve) => setTimeout(resolve, LIVE_MS));
    }
  })();
  const began = performance.now();
  try {
    return await within(STEP_MS_MAX, name, work());
  } finally {
    const ms = performance.now() - began;
    done = true;
    clearInterval(timer);
    await looking;
    const [deno, page, browser, live, pageLive] = before.map((
      one,
      i,
    ): Range => [one, peak[i]!]) as [Range, Range, Range, Range, Range];
    steps.push({ name, ms, live, pageLive, deno, page, browser });
  }
}

/** Host with its data in a directory. */
class Site implements AsyncDisposable {
  readonly #logDB: SqliteLogDB;
  readonly #snapshots: FileSnapshotStore;
  readonly #directory: string;
  readonly #budget: number;
  readonly host: NodeHost;

  constructor(directory: string, budget: number) {
    this.#directory = directory;
    this.#budget = budget;
    this.#logDB = new SqliteLogDB(`${directory}/log.db`, {
      durability: "normal",
    });
    this.#snapshots = new FileSnapshotStore(`${directory}/snapshots`);
    this.host = new NodeHost({
      logDB: this.#logDB,
      snapshots: this.#snapshots,
    });
  }

  start(): Promise<Replica> {
    return this.host.startOnDiskCluster(
      () =>
        new SqliteKVStateMachine(`${this.#directory}/state.db`, {
          memoryBudgetBytes: this.#budget,
        }),
      CLUSTER,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.host.stop();
    await this.#snapshots.close();
    await this.#logDB.close();
  }
}

/** Puts values of many sizes until their total reaches `bytes`. */
async function fill(
  replica: Replica,
  bytes: number,
  seed: number,
): Promise<void> {
  const next = random(seed);
  const noise = new Uint32Array(VALUE_BYTES_MAX / 2);
  for (let i = 0; i < noise.length; i++) noise[i] = next() * 2 ** 32;
  const source = new Uint8Array(noise.buffer);
  let row = 0;
  for (let done = 0; done < bytes;) {
    const parts: Uint8Array[] = [];
    let length = 0;
    while (length < BATCH_BYTES && done + length < bytes) {
      const size = VALUE_BYTES_MIN +
        Math.floor(next() * (VALUE_BYTES_MAX - VALUE_BYTES_MIN));
      const at = Math.floor(next() * (source.length - size));
      // Not in the order of the keys.
      const key = `${Math.floor(next() * 1e9)}/${row++}`;
      parts.push(kv.put(key, source.subarray(at, at + size)));
      length += size;
    }
    await replica.propose(kv.batch(parts));
    done += length;
  }
}

/**
 * Serves one stream at `/out`, and assembles another from the bodies posted to
 * `/in`.
 */
function serveStreams(out: () => ReadableStream<Uint8Array>): {
  readonly origin: string;
  readonly incoming: ReadableStream<Uint8Array>;
  abort(reason: unknown): Promise<void>;
  stop(): Promise<void>;
} {
  const { readable, writable } = new TransformStream<Uint8Array>();
  const writer = writable.getWriter();
  // The reader gets the error.
  writer.closed.catch(() => {});
  let posts = 0;
  const headers = { "access-control-allow-origin": "*" };
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen(): void {} },
    async (request) => {
      const { pathname } = new URL(request.url);
      if (pathname === "/out") return new Response(out(), { headers });
      if (pathname === "/in/end") await writer.close();
      else if (pathname !== `/in/${posts++}`) {
        return new Response(null, { status: 409, headers });
      } else {
        for await (const chunk of request.body ?? []) await writer.write(chunk);
      }
      return new Response(null, { status: 204, headers });
    },
  );
  return {
    origin: `http://127.0.0.1:${server.addr.port}`,
    incoming: readable,
    abort: (reason) => writer.abort(reason),
    stop: () => server.shutdown(),
  };
}

/**
 * Fills a machine in SQLite, streams its snapshot into a page that recovers it
 * into IndexedDB, and that page's snapshot back into a new machine in SQLite
 * (H9, D11).
 */
export async function transfer(mib: number, seed: number): Promise<Transfer> {
  const directory = await Deno.makeTempDir({ prefix: "transfer-" });
  const budget = mib * BUDGET_SHARE * MIB;
  const steps: Step[] = [];
  await using pages = servePages();
  const url = await pages.page(PAGE);
  const browser = await launch("Chromium");
  try {
    const page = await browser.open(url);
    await using from = new Site(`${directory}/from`, budget);
    const first = await from.start();
    await step(
      steps,
      browser,
      page,
      "fill",
      () => fill(first, mib * MIB, seed),
    );
    const streams = serveStreams(() => first.exportSnapshot());
    try {
      const { origin } = streams;
      const there = await step(
        steps,
        browser,
        page,
        "into the page",
        () =>
          page.evaluate(
            `page.importFrom("${origin}/out", ${budget})`,
            STEP_MS_MAX,
          ),
      );
      // Without a receiver: the memory of the export itself.
      const exported = await step(
        steps,
        browser,
        page,
        "export in the page",
        () => page.evaluate("page.exportTo()", STEP_MS_MAX),
      );
      await using to = new Site(`${directory}/to`, budget);
      const bytes = await step(steps, browser, page, "back", async () => {
        const imported = to.host.importSnapshot(1n, streams.incoming);
        const given = page.evaluate(
          `page.exportTo("${origin}/in")`,
          STEP_MS_MAX,
        );
        given.catch((error) => streams.abort(error));
        return (await Promise.all([given, imported]))[0] as number;
      });
      assertEquals(exported, bytes, "Two exports differ in length");
      await page.evaluate("page.close()", STEP_MS_MAX);
      const last = await step(
        steps,
        browser,
        page,
        "recover",
        () => to.start(),
      );
      const hash = async (replica: Replica): Promise<string> =>
        `${(await replica.getHash()).hash}`;
      const rows = async (replica: Replica): Promise<number> =>
        Number(await replica.read(kv.count()));
      return {
        hashes: [await hash(first), there as string, await hash(last)],
        rows: [await rows(first), await rows(last)],
        mib,
        bytes,
        steps,
      };
    } finally {
      await streams.stop();
    }
  } finally {
    await browser.kill();
    await removeFolder(directory);
  }
}

/**
 * Verifies that the state came back, and that the memory stayed bounded; the
 * bound does not depend on the state's size.
 */
export function checkTransfer(
  { hashes, rows, mib, bytes, steps }: Transfer,
  said: string,
): void {
  assertEquals(new Set(hashes).size, 1, `${hashes}, ${said}`);
  assert(hashes[0] !== "0", said);
  assertEquals(rows[0], rows[1], said);
  assert(bytes > mib * MIB, `${bytes} bytes came back, ${said}`);
  const [first] = steps;
  const budget = mib * BUDGET_SHARE;
  for (const one of steps) {
    const text = `${lineOf(one)}, ${said}`;
    // There are two machines in the end.
    assert(one.live[1] - first!.live[0] < 2 * budget + LIVE_MIB_MAX, text);
    assert(one.pageLive[1] - first!.pageLive[0] < budget + LIVE_MIB_MAX, text);
  }
}

/** Formats a step as a line. */
export function lineOf(
  { name, ms, live, pageLive, deno, page, browser }: Step,
): string {
  const of = (range: Range): string =>
    range.map((mib) => mib.toFixed(1)).join(" → ");
  return `${name}: ${(ms / 1000).toFixed(1)} s; MiB before and at the peak: ` +
    `in use here ${of(live)}, in the page ${of(pageLive)}; resident here ` +
    `${of(deno)}, page ${of(page)}, browser ${of(browser)}`;
}

if (import.meta.main) {
  const say = (line: string): void =>
    void Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
  const mib = Number(Deno.args[0] ?? 256);
  const seed = Number(Deno.args[1] ?? newSeed());
  say(`Transfer: ${mib} MiB, seed ${seed}`);
  const made = await transfer(mib, seed);
  const { hashes, rows, bytes, steps } = made;
  for (const one of steps) say(lineOf(one));
  say(`Hashes ${hashes.join(", ")}; rows ${rows.join(", ")}; ${bytes} bytes`);
  await stopBundler();
  checkTransfer(made, `seed ${seed}`);
}
