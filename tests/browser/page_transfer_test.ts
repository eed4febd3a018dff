import { assert, assertEquals } from "@std/assert";
import { demoFiles, servePage } from "../../web/page.ts";
import { type Engine, launch } from "./browser.ts";

/** Most that the first visit of an empty board may transfer: everything, headers included. The aim is 100 KiB. */
const BOARD_BYTES_MAX = 113.25 * 1024;

/** Most that the first visit of two devices side by side may transfer. */
const TWO_BYTES_MAX = 117.5 * 1024;

/** Response that a browser received. */
interface Sent {
  readonly path: string;
  readonly status: number;
  /** Size of its headers and its body, in bytes. */
  readonly size: number;
}

/** Page on a port, with a count of the bytes sent. */
class CountedPage implements AsyncDisposable {
  readonly sent: Sent[] = [];
  /** Number of files that the page needs without a network. */
  readonly files: number;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;

  private constructor(
    page: (request: Request) => Response,
    paths: readonly string[],
  ) {
    // Its HTML, and its scripts.
    this.files = 1 +
      paths.filter((path) => /^[/](app|sampan)-.*[.]js$/.test(path)).length;
    this.#server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen(): void {} },
      (request) => {
        const { pathname } = new URL(request.url);
        const response = page(request);
        const headers = [...response.headers]
          .reduce(
            (sum, [name, value]) => sum + name.length + value.length + 4,
            0,
          );
        const body = response.body === null
          ? 0
          : Number(response.headers.get("content-length"));
        if (response.status !== 404) {
          const { status } = response;
          this.sent.push({
            path: pathname,
            status,
            size: headers + body + 100,
          });
        }
        return response;
      },
    );
  }

  static async open(): Promise<CountedPage> {
    const files = await demoFiles();
    return new CountedPage(servePage(files), [...files.keys()]);
  }

  get url(): string {
    return `http://localhost:${this.#server.addr.port}/`;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#server.shutdown();
  }
}

/**
 * Waits until the service worker has cached every file, and would have looked
 * for a newer version.
 */
const settled = (files: number): string =>
  `(async () => {
  await navigator.serviceWorker.ready;
  await (await navigator.serviceWorker.getRegistration()).update();
  for (let last = -1;;) {
    const cache = await caches.open("sampan-app");
    const { length } = await cache.keys();
    if (length === last && length >= ${files}) return length;
    last = length;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
})()`;

for (const engine of ["Chromium", "Firefox"] satisfies Engine[]) {
  Deno.test({
    name:
      `U37 a first visit transfers each file once, and not more than it may, a later one next to nothing (${engine})`,
    sanitizeOps: false,
    sanitizeResources: false,
    async fn(): Promise<void> {
      await using page = await CountedPage.open();
      const browser = await launch(engine);
      try {
        const size = (): number =>
          page.sent.reduce((sum, { size }) => sum + size, 0);
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
        // A board alone, on another device.
        page.sent.length = 0;
        const other = new URL("#plans", page.url);
        other.hostname = "127.0.0.1";
        const board = await browser.open(other.href);
        await board.evaluate(settled(2), 30_000);
        assert(
          size() < BOARD_BYTES_MAX,
          `${size()} bytes: ${JSON.stringify(page.sent)}`,
        );
        await board.close();
        page.sent.length = 0;
        // The second visit fetches what the page may need later.
        await tab.reload();
        await tab.evaluate(settled(page.files), 30_000);
        page.sent.length = 0;
        await tab.reload();
        await tab.evaluate(settled(page.files), 30_000);
        assert(size() < 2048, JSON.stringify(page.sent));
      } finally {
        await browser.close();
      }
    },
  });
}
