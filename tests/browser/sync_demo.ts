/**
 * Drives the demo like a user.
 *
 * This module needs Deno.
 *
 * @module
 */

import { assert } from "@std/assert";
import { sleep, WAIT_MS_MAX } from "../sync/server_process.ts";
import type { Page } from "./browser.ts";

/** Timeout of a call in the page, in milliseconds. */
const CALL_MS_MAX = 30_000;

/** Process that runs the demo's server. */
export class DemoServer {
  readonly #data: string;
  readonly #program: string;
  readonly #args: readonly string[];
  #child: Deno.ChildProcess | undefined;
  /** Address of the page. */
  url = "";

  /**
   * Server with its data in a folder; `program` is its path relative to
   * `tests`, `args` are its arguments besides port and folder.
   */
  constructor(
    data: string,
    program = "../web/start.ts",
    args: readonly string[] = [],
  ) {
    this.#data = data;
    this.#program = program;
    this.#args = args;
  }

  /** Starts the server, on its previous port if it had one. */
  async start(): Promise<void> {
    const port = this.url === "" ? "0" : new URL(this.url).port;
    const program = new URL(`../${this.#program}`, import.meta.url).href;
    const child = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--allow-all",
        program,
        `--port=${port}`,
        `--data=${this.#data}`,
        ...this.#args,
      ],
      stdin: "null",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#child = child;
    const reader = child.stdout.pipeThrough(new TextDecoderStream())
      .getReader();
    let said = "";
    let found: string | undefined;
    while (found === undefined) {
      const { value } = await reader.read();
      assert(value !== undefined, `Server has ended: ${said}`);
      said += value;
      found = /(http:\S+\/)\s/.exec(said)?.[1];
    }
    this.url = found;
    // Drained: a full pipe would block the server.
    (async () => {
      while (!(await reader.read()).done);
    })().catch(() => {});
  }

  /** Removes the server's data; the server must have ended. */
  async reset(): Promise<void> {
    await Deno.remove(this.#data, { recursive: true });
  }

  /** Ends the server with a signal. */
  async stop(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    child?.kill(signal);
    await child?.status;
  }
}

/** Visible content of the page. */
export interface Seen {
  /** Text of the status pill at the top. */
  readonly state: string;
  /** Items. A pending one ends in `…`, a completed one begins with `✓`. */
  readonly items: readonly string[];
  readonly pending: string;
  readonly hash: string;
  readonly refused: string;
  readonly problem: string;
  /** Message of the page about the server. */
  readonly serverProblem: string;
}

/** User of a page. */
export class Person {
  readonly #name: string;
  readonly #page: Page;

  /** User of a page of the demo. */
  constructor(name: string, page: Page) {
    this.#name = name;
    this.#page = page;
  }

  async #do(script: string, ...args: unknown[]): Promise<unknown> {
    return await this.#page.evaluate(
      `((${script})(...${JSON.stringify(args)}))`,
      CALL_MS_MAX,
    );
  }

  /** Reads the visible content. */
  async look(): Promise<Seen> {
    return await this.#do(`() => {
      const text = (id) => document.getElementById(id).textContent.trim();
      const items = [...document.querySelectorAll("#items li")].map((li) =>
        (li.querySelector("[type=checkbox]").checked ? "✓" : "") +
        li.querySelector("[type=text]").value +
        (li.classList.contains("pending") ? "…" : ""));
      return { state: text("state"), items, pending: text("pending"),
        hash: text("hash"), refused: text("refused"), problem: text("problem"),
        serverProblem: text("server-problem") };
    }`) as Seen;
  }

  /**
   * Polls until the condition is true; fails with the content if it never is.
   */
  async until(is: (seen: Seen) => boolean): Promise<Seen> {
    for (let waited = 0;; waited += 20) {
      // Evaluation fails while the page loads.
      const seen = await this.look().catch(() => undefined);
      if (seen !== undefined && is(seen)) return seen;
      if (waited > WAIT_MS_MAX / 4) {
        throw new Error(`${this.#name} sees ${JSON.stringify(seen)}`);
      }
      await sleep(20);
    }
  }

  /** Adds an item, as soon as the page allows it. */
  async add(text: string): Promise<void> {
    await this.#do(
      `async (text) => {
        const button = document.querySelector("#add button");
        while (button.disabled) {
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
        document.getElementById("text").value = text;
        button.click();
      }`,
      text,
    );
  }

  /** Changes the text of the item at that position. */
  async edit(at: number, text: string): Promise<void> {
    await this.#do(
      `(at, text) => {
        const field = document.querySelectorAll("#items li [type=text]")[at];
        field.value = text;
        field.dispatchEvent(new Event("change"));
      }`,
      at,
      text,
    );
  }

  /**
   * Clicks the first match of a selector as soon as there is one, within the
   * item at that position if one is given.
   */
  async click(selector: string, at?: number): Promise<void> {
    await this.#do(
      `async (selector, at) => {
        const within = at === null
          ? document
          : document.querySelectorAll("#items li")[at];
        let found;
        while ((found = within.querySelector(selector)) === null) {
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
        found.click();
      }`,
      selector,
      at ?? null,
    );
  }

  /** Resolves once a service worker controls the page. */
  async kept(): Promise<void> {
    await this.#do(`async () => {
      await navigator.serviceWorker.ready;
      while (navigator.serviceWorker.controller === null) {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }`);
  }

  /** Reloads the page. */
  async reload(): Promise<void> {
    await this.#page.reload();
  }
}
