/**
 * Registers the suites that run in pages as tests, one for each case and
 * engine.
 *
 * This module needs Deno.
 *
 * @module
 */

import { type Browser, type Engine, launch, type Page } from "./browser.ts";
import type { Case, CaseResult } from "./runner.ts";
import { type PageServer, servePages } from "./server.ts";

/**
 * Timeout of a case, in milliseconds. The slowest takes a few seconds on an
 * idle machine.
 */
const CASE_MS_MAX = 120_000;

/** Module with cases that a page runs. */
export interface Suite {
  /** Path of the module, relative to the project's folder. */
  readonly path: string;
  /** True if the bundle is minified, like a release. @default {false} */
  readonly minify?: boolean;
}

/** Browser and page that the tests of a file share; one of each at a time. */
export class Stage implements AsyncDisposable {
  #server: PageServer | undefined;
  #browser: Browser | undefined;
  #page: { url: string; page: Page } | undefined;

  /** Runs a case of a module in a page of that engine. */
  async run(engine: Engine, suite: Suite, i: number): Promise<CaseResult> {
    const page = await this.page(engine, suite);
    try {
      const result = await page.evaluate(`page.runCase(${i})`, CASE_MS_MAX);
      return result as CaseResult;
    } catch (error) {
      // The page hangs or has crashed: the next case gets a new browser.
      await this.#end(true);
      throw error;
    }
  }

  /**
   * Page of that engine that runs a module; reuses the present one if it
   * matches.
   */
  async page(engine: Engine, { path, minify }: Suite): Promise<Page> {
    if (this.#browser?.engine !== engine) await this.#end();
    this.#server ??= servePages();
    this.#browser ??= await launch(engine);
    const url = await this.#server.page(path, minify);
    if (this.#page?.url !== url) {
      const old = this.#page;
      const page = await this.#browser.open(url);
      this.#page = { url, page };
      await old?.page.close();
    }
    return this.#page.page;
  }

  async #end(crash = false): Promise<void> {
    const browser = this.#browser;
    this.#browser = this.#page = undefined;
    await (crash ? browser?.kill() : browser?.close());
  }

  /** Closes the browser and the server. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end();
    await this.#server?.[Symbol.asyncDispose]();
    this.#server = undefined;
  }
}

/** Registers cases of a module, by default all, as tests in an engine. */
export function register(
  stage: Stage,
  engine: Engine,
  suite: Suite,
  cases: readonly Case[],
  wanted: (name: string) => boolean = () => true,
): void {
  cases.forEach(({ name }, i) => {
    if (!wanted(name)) return;
    Deno.test({
      name: `${engine}${suite.minify ? ", minified" : ""}: ${name}`,
      // The browser outlives the test.
      sanitizeOps: false,
      sanitizeResources: false,
      async fn(): Promise<void> {
        const { error } = await stage.run(engine, suite, i);
        if (error !== undefined) throw new Error(error);
      },
    });
  });
}
