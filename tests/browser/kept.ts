/**
 * Checks that a browser keeps what a page was answered.
 *
 * This module needs Deno.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import type { Page } from "./browser.ts";
import type { Answer, Held } from "./kept_page.ts";

/** What a page may take to come up with what it kept, in milliseconds. */
export const OPEN_MS_MAX = 60_000;

/** Collects what pages were answered over their lives, and holds them to it. */
export class Ledger {
  readonly #answered = new Map<string, number>();

  /** How many answers there were. */
  get size(): number {
    return this.#answered.size;
  }

  /** Takes what pages have told. */
  add(told: readonly string[]): void {
    for (const line of told) {
      const [name, value] = JSON.parse(line) as Answer;
      assert(!this.#answered.has(name), `${name} is answered twice`);
      // It was new, so that it changed the state; done twice it would not have.
      assertEquals(value, 1, `${name} was applied more than once`);
      this.#answered.set(name, value);
    }
  }

  /** Starts a page's replica and fails unless it holds all that was answered, and is what its log gives. */
  async check(page: Page): Promise<Held> {
    await page.evaluate("page.open()", OPEN_MS_MAX);
    const held = await page.evaluate("page.held()", OPEN_MS_MAX) as Held;
    const marks = new Set(held.marks);
    assertEquals(marks.size, held.marks.length);
    const lost = [...this.#answered.keys()].filter((name) => !marks.has(name));
    assertEquals(lost, []);
    assertEquals(held.hash, held.replayed);
    return held;
  }
}
