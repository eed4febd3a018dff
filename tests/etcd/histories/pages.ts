/**
 * Pages of Chromium that take part in a history.
 *
 * This module needs Deno.
 *
 * @module
 */

import { stopBundler } from "../../../web/bundle.ts";
import { type Browser, launch } from "../../browser/browser.ts";
import { type PageServer, servePages } from "../../browser/server.ts";
import { nanoseconds } from "./clock.ts";
import { Lines, type Member, type Recorder } from "./members.ts";
import type { PageMessage, PageSettings } from "./page.ts";
import type { Line, Request } from "./record.ts";

/** Timeout of a page that starts its client, in milliseconds. */
const PAGE_MS_MAX = 90_000;

/** A browser with pages. */
export class ChromiumPages implements AsyncDisposable {
  readonly #server: PageServer;
  readonly #browser: Browser;
  readonly #closing: (() => Promise<void>)[] = [];

  private constructor(server: PageServer, browser: Browser) {
    this.#server = server;
    this.#browser = browser;
  }

  /** Launches the browser. */
  static async launch(): Promise<ChromiumPages> {
    return new ChromiumPages(servePages(), await launch("Chromium"));
  }

  /** Origin of the pages. */
  get origin(): string {
    return this.#server.origin;
  }

  /** Opens a page with a client. */
  async open(
    recorder: Recorder,
    settings: Omit<PageSettings, "now">,
  ): Promise<Member> {
    const lines = new Lines(recorder);
    const connected = Promise.withResolvers<WebSocket>();
    // Only the page knows the address.
    const coordinator = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen(): void {} },
      (request) => {
        const { socket, response } = Deno.upgradeWebSocket(request);
        socket.onopen = (): void => connected.resolve(socket);
        socket.onmessage = ({ data }): void => {
          const line = JSON.parse(data as string) as Line;
          // Its clock is not that of the processes. An operation begins after its line is here.
          lines.take("at" in line ? { ...line, at: nanoseconds() } : line);
          const written: PageMessage = "written";
          if (line.type === "call") socket.send(JSON.stringify(written));
        };
        return response;
      },
    );
    this.#closing.push(async () => {
      lines.end(`${settings.name} is closed`, true);
      await coordinator.shutdown();
    });
    const page = await this.#browser.open(
      await this.#server.page("tests/etcd/histories/page.ts"),
    );
    const json = JSON.stringify({ ...settings, now: nanoseconds() });
    const address = `ws://127.0.0.1:${coordinator.addr.port}`;
    await page.evaluate(`page.start("${address}", ${json})`, PAGE_MS_MAX);
    return {
      started: lines.started.promise,
      async request<T>(request: Request): Promise<T> {
        const answer = lines.answer<T>(request);
        (await connected.promise).send(JSON.stringify(request));
        return await answer;
      },
      signal(): void {},
      kill: () => Promise.resolve(),
    };
  }

  /** Closes the browser. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#browser.close();
    for (const close of this.#closing) await close();
    await this.#server[Symbol.asyncDispose]();
    await stopBundler();
  }
}
