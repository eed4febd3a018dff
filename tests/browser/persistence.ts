/**
 * Checks that a browser keeps every acknowledged proposal of a page.
 *
 * This module needs Deno.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import type { Page } from "./browser.ts";
import type { Answer, ReplicaState } from "./persistence_page.ts";

/** Timeout of a page that opens its stored state, in milliseconds. */
export const OPEN_MS_MAX = 60_000;

/**
 * Acknowledged proposals of pages over all restarts; verifies that they are
 * durable.
 */
export class Ledger {
  readonly #answered = new Map<string, number>();

  /** Number of acknowledged proposals. */
  get size(): number {
    return this.#answered.size;
  }

  /** Adds proposals that pages have reported as acknowledged. */
  add(told: readonly string[]): void {
    for (const line of told) {
      const [name, value] = JSON.parse(line) as Answer;
      assert(!this.#answered.has(name), `${name} is answered twice`);
      // The first application changes the state and returns 1; a second would
      // not.
      assertEquals(value, 1, `${name} was applied more than once`);
      this.#answered.set(name, value);
    }
  }

  /**
   * Starts a page's replica. Fails unless it has every acknowledged proposal,
   * and the state that a replay of its log gives.
   */
  async check(page: Page): Promise<ReplicaState> {
    await page.evaluate("page.open()", OPEN_MS_MAX);
    const held = await page.evaluate(
      "page.state()",
      OPEN_MS_MAX,
    ) as ReplicaState;
    const marks = new Set(held.marks);
    assertEquals(marks.size, held.marks.length);
    const lost = [...this.#answered.keys()].filter((name) => !marks.has(name));
    assertEquals(lost, []);
    assertEquals(held.hash, held.replayed);
    return held;
  }
}
