/**
 * A person with the page of an example.
 *
 * This module needs Deno.
 *
 * @module
 */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { sleep, WAIT_MS_MAX } from "../sync/server_process.ts";
import type { Page } from "./browser.ts";

/** Milliseconds that a call in a page may take. */
const CALL_MS_MAX = 30_000;

/** Content of an example's page, as a person sees it. */
export interface Seen {
  /** State of the connection. */
  readonly state: string;
  /** Items of the list, without their buttons' texts. */
  readonly items: readonly string[];
  /** Line that says how many edits wait to be sent. */
  readonly waiting: string;
  /** Everything else that is said: refusals and errors. */
  readonly problems: string;
}

const LOOK = `() => {
  const textOf = (selector) =>
    [...document.querySelectorAll(selector)]
      .map((element) => element.textContent.trim());
  return {
    state: textOf("[data-state], output")[0],
    items: textOf("ul li > :first-child, ul li:not(:has(*)), ol button, section > button"),
    waiting: textOf("p[role=status]")[0],
    problems: textOf("[role=alert], [aria-live]").join(" ").trim(),
  };
}`;

/** A person with the page of an example on a device of their own. */
export class Visitor {
  readonly #page: Page;

  constructor(page: Page) {
    this.#page = page;
  }

  async #call(script: string, ...args: unknown[]): Promise<unknown> {
    const call = `((${script})(...${JSON.stringify(args)}))`;
    return await this.#page.evaluate(call, CALL_MS_MAX);
  }

  /** Content of the page now. */
  async look(): Promise<Seen> {
    return await this.#call(LOOK) as Seen;
  }

  /** Waits until the page says something about the state of the connection. */
  async reads(expected: RegExp): Promise<void> {
    for (let waited = 0;; waited += 50) {
      const state = await this.look().then(({ state }) => state, () => "");
      if (expected.test(state)) return;
      if (waited > WAIT_MS_MAX / 4) return assertMatch(state, expected);
      await sleep(50);
    }
  }

  /** Waits until the page shows what is expected; fails with what it shows instead. */
  async sees(expected: Partial<Seen>): Promise<void> {
    for (let waited = 0;; waited += 50) {
      // The page may be loading.
      const seen = await this.look().catch(() => ({} as Seen));
      const found = Object.fromEntries(
        Object.keys(expected).map((key) => [key, seen[key as keyof Seen]]),
      );
      if (JSON.stringify(found) === JSON.stringify(expected)) return;
      if (waited > WAIT_MS_MAX / 4) return assertEquals(seen, expected);
      await sleep(50);
    }
  }

  /** Waits until an element is visible. */
  async finds(selector: string): Promise<void> {
    const isVisible = (): Promise<unknown> =>
      this.#call(
        `(selector) => document.querySelector(selector).checkVisibility()`,
        selector,
      ).catch(() => false);
    for (let waited = 0; await isVisible() !== true; waited += 50) {
      assert(waited < WAIT_MS_MAX / 4, `${selector} is not visible`);
      await sleep(50);
    }
  }

  /** Types into a field the way a framework notices. */
  async type(selector: string, text: string): Promise<void> {
    await this.#call(
      `(selector, text) => {
        const field = document.querySelector(selector);
        Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value")
          .set.call(field, text);
        field.dispatchEvent(new Event("input", { bubbles: true }));
      }`,
      selector,
      text,
    );
  }

  /** Clicks a button, just after it returns: the page may navigate. */
  async click(selector: string): Promise<void> {
    await this.#call(
      `(selector) => {
        const button = document.querySelector(selector);
        setTimeout(() => button.click());
      }`,
      selector,
    );
  }

  /** Adds an item to a list. */
  async add(item: string): Promise<void> {
    await this.type("form input", item);
    await this.click("form button");
  }

  /**
   * Reloads the page, once a service worker has it. The worker need not control this
   * document, which may have begun to load before the worker was active.
   */
  async reload(): Promise<void> {
    await this.#call("async () => void await navigator.serviceWorker.ready");
    await this.#page.reload();
  }
}
