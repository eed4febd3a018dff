import { assert, assertEquals } from "@std/assert";
import { start, type Started } from "../../web/start.ts";
import { type Engine, launch } from "./browser.ts";

/** Most that the first visit of an empty board may transfer: everything, headers and frames of WebSockets included. */
const BOARD_BYTES_MAX = 100 * 1024;

/** Most that the first visit of two devices side by side may transfer. */
const TWO_BYTES_MAX = 108.5 * 1024;

/** Response that a browser received, or connection by WebSocket. */
interface Sent {
  readonly path: string;
  status: number;
  /** Bytes of its headers and its body, or of all frames so far. */
  size: number;
}

/** The demo's server behind a proxy that counts every byte to the browser: those of frames on WebSockets, too. */
class CountedPage implements AsyncDisposable {
  readonly sent: Sent[] = [];
  readonly url: string;
  readonly #started: Started;
  readonly #listener: Deno.TcpListener;
  readonly #stopping: AbortController;
  readonly #data: string;
  readonly #work = new Set<Promise<void>>();
  readonly #open = new Set<Deno.Conn>();

  private constructor(
    started: Started,
    stopping: AbortController,
    data: string,
  ) {
    this.#started = started;
    this.#stopping = stopping;
    this.#data = data;
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = this.#listener.addr as Deno.NetAddr;
    this.url = `http://localhost:${port}/`;
    this.#run(this.#accept());
  }

  static async open(): Promise<CountedPage> {
    const data = await Deno.makeTempDir({ prefix: "page-transfer-" });
    const stopping = new AbortController();
    const { signal } = stopping;
    const hostname = "127.0.0.1";
    const started = await start({ hostname, port: 0, data, signal });
    return new CountedPage(started, stopping, data);
  }

  /** Number of files that the page needs without a network: its HTML, its script, and those that these name. */
  async files(): Promise<number> {
    const text = async (path: string): Promise<string> =>
      await (await fetch(new URL(path, this.#started.url))).text();
    const script = /app-[0-9a-f]+[.]js/.exec(await text(""))![0];
    const names = new Set([script]);
    for (const name of names) {
      const found = (await text(name)).match(/sampan-[a-z-]+-[0-9a-f]+[.]js/g);
      for (const other of found ?? []) names.add(other);
    }
    assert(names.size > 10);
    return 1 + names.size;
  }

  #run(work: Promise<void>): void {
    // A connection that ends early fails in its own way.
    const done = work.catch(() => {}).finally(() => this.#work.delete(done));
    this.#work.add(done);
  }

  async #accept(): Promise<void> {
    while (true) {
      const browser = await this.#listener.accept();
      const { hostname, port } = new URL(this.#started.url);
      const server = await Deno.connect({ hostname, port: Number(port) });
      this.#open.add(browser).add(server);
      let last: Sent | undefined;
      this.#run(this.#pass(browser, server, (text) => {
        // A browser waits for a response before its next request.
        const path = /^GET (\S+) HTTP/.exec(text)?.[1];
        if (path === undefined) return;
        last = { path, status: 0, size: 0 };
        this.sent.push(last);
      }));
      this.#run(this.#pass(server, browser, (text, size) => {
        last!.status ||= Number(text.slice(9, 12));
        last!.size += size;
      }));
    }
  }

  /** Passes on what one end sends, until it ends. */
  async #pass(
    from: Deno.Conn,
    to: Deno.Conn,
    saw: (text: string, size: number) => void,
  ): Promise<void> {
    const buffer = new Uint8Array(64 * 1024);
    try {
      while (true) {
        const size = await from.read(buffer);
        if (size === null) return;
        const chunk = buffer.subarray(0, size);
        saw(new TextDecoder().decode(chunk.subarray(0, 256)), size);
        for (let at = 0; at < size;) at += await to.write(chunk.subarray(at));
      }
    } finally {
      this.#close(from);
      this.#close(to);
    }
  }

  #close(connection: Deno.Conn): void {
    if (this.#open.delete(connection)) connection.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    this.#stopping.abort();
    for (const connection of this.#open) this.#close(connection);
    await Promise.all([this.#started.finished, ...this.#work]);
    await Deno.remove(this.#data, { recursive: true });
  }
}

/** Waits until the service worker has cached every file. */
const settled = (files: number): string =>
  `(async () => {
  await navigator.serviceWorker.ready;
  for (let last = -1;;) {
    const cache = await caches.open("sampan-app");
    const { length } = await cache.keys();
    if (length === last && length >= ${files}) return length;
    last = length;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
})()`;

/** Waits until an empty board is live, and has its first lists. */
const begun = `(async () => {
  const isThere = (selector) => document.querySelector(selector) !== null;
  while (
    !isThere("#state[data-state=live]") || !isThere(".list:nth-child(3)") ||
    !isThere('#pending[data-count="0"]')
  ) await new Promise((resolve) => setTimeout(resolve, 50));
})()`;

for (const engine of ["Chromium", "Firefox"] satisfies Engine[]) {
  Deno.test({
    name:
      `U37 a first visit transfers each file once, and not more than it may, a later one next to nothing (${engine})`,
    sanitizeOps: false,
    sanitizeResources: false,
    async fn(): Promise<void> {
      await using page = await CountedPage.open();
      const files = await page.files();
      const size = (): number =>
        page.sent.reduce((sum, { size }) => sum + size, 0);
      // A board alone.
      const first = await launch(engine);
      try {
        page.sent.length = 0;
        const board = await first.open(new URL("#plans", page.url).href);
        await board.evaluate(begun, 30_000);
        await board.evaluate(settled(2), 30_000);
        assert(
          size() < BOARD_BYTES_MAX,
          `${size()} bytes: ${JSON.stringify(page.sent)}`,
        );
      } finally {
        await first.close();
      }
      const browser = await launch(engine);
      try {
        page.sent.length = 0;
        const tab = await browser.open(page.url);
        await tab.evaluate(settled(2), 30_000);
        const whole = page.sent.filter(({ status }) => status === 200);
        const paths = whole.map(({ path }) => path);
        // Chromium caches a page in a frame apart from one in a tab.
        const twice = engine === "Chromium" ? "/" : undefined;
        assertEquals(
          paths.filter((path, i) =>
            paths.indexOf(path) !== i && path !== twice
          ),
          [],
          "A file was sent twice",
        );
        assert(
          size() < TWO_BYTES_MAX,
          `${size()} bytes: ${JSON.stringify(page.sent)}`,
        );
        // The second visit fetches what the page may need later.
        await tab.reload();
        await tab.evaluate(settled(files), 30_000);
        page.sent.length = 0;
        await tab.reload();
        await tab.evaluate(settled(files), 30_000);
        assert(size() < 3072, JSON.stringify(page.sent));
      } finally {
        await browser.close();
      }
    },
  });
}
