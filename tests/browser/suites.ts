/**
 * Registers the suites that run in pages as tests, one for each case and engine.
 *
 * This module needs Deno.
 *
 * @module
 */

import { type Browser, type Engine, launch, type Page } from "./browser.ts";
import type { Case, CaseResult } from "./runner.ts";
import { type PageServer, servePages } from "./server.ts";

/** What a case may take, in milliseconds. The slowest takes a few seconds when nothing else runs. */
const CASE_MS_MAX = 120_000;

/** A module that a page runs. */
export interface Suite {
  /** Where it is, from the project's folder. */
  readonly path: string;
  /** Whether it is minified, as what is shipped is. @default {false} */
  readonly minify?: boolean;
}

/** One browser at a time, and one page in it: what the tests of a file share. */
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
      // The page hangs or is gone: what comes next gets another browser.
      await this.#end(true);
      throw error;
    }
  }

  /** A page of that engine that runs a module; the one there is, if it is that. */
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

/** Registers those cases of a module that are wanted, all by default, as tests in an engine. */
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
