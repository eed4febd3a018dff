/**
 * The demo, used as a person would.
 *
 * This module needs Deno.
 *
 * @module
 */

import { assert } from "@std/assert";
import { sleep, WAIT_MS_MAX } from "../sync/kill.ts";
import type { Page } from "./browser.ts";

/** What a call in the page may take, in milliseconds. */
const CALL_MS_MAX = 30_000;

/** The server of the demo, as it is started by hand. */
export class DemoServer {
  readonly #data: string;
  readonly #program: string;
  readonly #args: readonly string[];
  #child: Deno.ChildProcess | undefined;
  /** Where the page is. */
  url = "";

  /** Server that keeps everything in that folder; `program` is its path from the folder of the tests, `args` what it is called with besides port and folder. */
  constructor(
    data: string,
    program = "../web/start.ts",
    args: readonly string[] = [],
  ) {
    this.#data = data;
    this.#program = program;
    this.#args = args;
  }

  /** Starts it, on the port it had before if there was one. */
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
    // Read on, or what is written would block it.
    (async () => {
      while (!(await reader.read()).done);
    })().catch(() => {});
  }

  /** Removes everything it keeps; it must have ended. */
  async reset(): Promise<void> {
    await Deno.remove(this.#data, { recursive: true });
  }

  /** Ends it with that signal. */
  async stop(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    child?.kill(signal);
    await child?.status;
  }
}

/** What a person sees. */
export interface Seen {
  /** The pill at the top. */
  readonly state: string;
  /** The items; one that waits to be sent ends in `…`, one that is done begins with `✓`. */
  readonly items: readonly string[];
  readonly pending: string;
  readonly hash: string;
  readonly refused: string;
  readonly problem: string;
  /** Message of the page about the server. */
  readonly serverProblem: string;
}

/** A person before the page. */
export class Person {
  readonly #name: string;
  readonly #page: Page;

  /** Looks at a page of the demo. */
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

  /** What is on the page. */
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

  /** Looks until it is so; fails with what is seen if it never is. */
  async until(is: (seen: Seen) => boolean): Promise<Seen> {
    for (let waited = 0;; waited += 20) {
      // The page may be loading just now.
      const seen = await this.look().catch(() => undefined);
      if (seen !== undefined && is(seen)) return seen;
      if (waited > WAIT_MS_MAX / 4) {
        throw new Error(`${this.#name} sees ${JSON.stringify(seen)}`);
      }
      await sleep(20);
    }
  }

  /** Adds an item, as soon as the page lets one. */
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

  /** Writes another text into the item at that place. */
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

  /** Clicks the first thing that a selector finds, as soon as it finds one, in the item at that place if one is given. */
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

  /** Resolves once a service worker has the page. */
  async kept(): Promise<void> {
    await this.#do(`async () => {
      await navigator.serviceWorker.ready;
      while (navigator.serviceWorker.controller === null) {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }`);
  }

  /** Loads the page anew. */
  async reload(): Promise<void> {
    await this.#page.reload();
  }
}
