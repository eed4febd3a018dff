/**
 * Drives the demo like a user.
 *
 * This module needs Deno.
 *
 * @module
 */

import { assert } from "@std/assert";
import { freePort } from "../../web/free_ports.ts";
import { sleep, WAIT_MS_MAX } from "../sync/server_process.ts";
import type { Page } from "./browser.ts";

/** Timeout of a call in the page, in milliseconds. */
const CALL_MS_MAX = 30_000;

/** Process that runs the demo's server. */
export class DemoServer {
  readonly #data: string;
  #program: string;
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
    const port = this.url === "" ? freePort() : new URL(this.url).port;
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

  /** Sets the program of the next start, by its path relative to `tests`. */
  set program(program: string) {
    this.#program = program;
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

/** Visible content of a board. */
export interface Seen {
  /** State of the connection. */
  readonly state: string;
  /** State of the tab: `data-sampan` of the page. */
  readonly tab: string;
  /** Cards of all lists. A pending one ends in `…`, a ticked one begins with `✓`. */
  readonly items: readonly string[];
  /** Number of edits that wait to be sent. */
  readonly pending: string;
  readonly hash: string;
  /** Edits that were refused, with their reasons. */
  readonly refused: string;
  /** Messages of the page by topic. */
  readonly messages: Readonly<Record<string, string>>;
}

/** Person in front of a board. */
export class Person {
  readonly #name: string;
  readonly #page: Page;

  /** Person in front of a page of the demo that shows one board. */
  constructor(name: string, page: Page) {
    this.#name = name;
    this.#page = page;
  }

  /** Calls a function in the page. */
  async do(script: string, ...args: unknown[]): Promise<unknown> {
    return await this.#page.evaluate(
      `((${script})(...${JSON.stringify(args)}))`,
      CALL_MS_MAX,
    );
  }

  /** Reads the visible content. */
  async look(): Promise<Seen> {
    return await this.do(`() => {
      const text = (id) => document.getElementById(id).textContent.trim();
      const items = [...document.querySelectorAll(".list .card")].map((card) =>
        (card.querySelector("[type=checkbox]").checked ? "✓" : "") +
        card.querySelector(".text").textContent +
        (card.classList.contains("waiting") ? "…" : ""));
      const messages = Object.fromEntries(
        [...document.querySelectorAll("#messages .message")].map((message) =>
          [message.dataset.topic, message.querySelector("p").textContent.trim()]));
      return { state: document.getElementById("state").dataset.state, items,
        tab: document.documentElement.dataset.sampan,
        pending: document.getElementById("pending").dataset.count,
        hash: text("hash"), refused: text("refused"), messages };
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

  /** Adds a card to the first list, as soon as there is one. */
  async add(text: string): Promise<void> {
    await this.do(
      `async (text) => {
        let form;
        while ((form = document.querySelector(".list .new")) === null) {
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
        form.querySelector("input").value = text;
        form.requestSubmit();
      }`,
      text,
    );
  }

  /** Begins to write in the card at that position, and leaves the text as it is typed. */
  async type(at: number, text: string): Promise<void> {
    await this.do(
      `(at, text) => {
        const card = document.querySelectorAll(".list .card")[at];
        card.querySelector(".text").click();
        card.querySelector("textarea").value = text;
      }`,
      at,
      text,
    );
  }

  /** Changes the text of the card at that position. */
  async edit(at: number, text: string): Promise<void> {
    await this.type(at, text);
    await this.do(
      `(at) => document.querySelectorAll(".list .card")[at]
        .querySelector("textarea").dispatchEvent(
          new KeyboardEvent("keydown", { key: "Enter", bubbles: true, cancelable: true }))`,
      at,
    );
  }

  /** Presses a key on the card at that position. */
  async press(at: number, key: string, altKey = false): Promise<void> {
    await this.do(
      `(at, key, altKey) => {
        const text = document.querySelectorAll(".list .card")[at].querySelector(".text");
        text.focus();
        text.dispatchEvent(
          new KeyboardEvent("keydown", { key, altKey, bubbles: true, cancelable: true }));
      }`,
      at,
      key,
      altKey,
    );
  }

  /**
   * Clicks the first match of a selector as soon as there is one, within the card
   * at that position if one is given.
   */
  async click(selector: string, at?: number): Promise<void> {
    await this.do(
      `async (selector, at) => {
        const within = at === null
          ? document
          : document.querySelectorAll(".list .card")[at];
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

  /** Clicks the button of a message, as soon as it is there. */
  async remedy(topic: string, text: string): Promise<void> {
    await this.do(
      `async (topic, text) => {
        const find = () => [...document.querySelectorAll(topic + " button")]
          .find((button) => button.textContent === text);
        while (find() === undefined) {
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
        const button = find();
        setTimeout(() => button.click());
      }`,
      topic,
      text,
    );
  }

  /** Uses the page; resolves once a service worker controls it, and has what a page in use needs. */
  async kept(): Promise<void> {
    await this.do(`async () => {
      const pause = () => new Promise((resolve) => setTimeout(resolve, 20));
      await navigator.serviceWorker.ready;
      while (navigator.serviceWorker.controller === null) await pause();
      dispatchEvent(new Event("pointerdown"));
      const cache = await caches.open("sampan-app");
      const isKept = ({ url }) => url.includes("sampan-later-");
      while (!(await cache.keys()).some(isKept)) await pause();
    }`);
  }

  /** Reloads the page. */
  async reload(): Promise<void> {
    await this.#page.reload();
  }
}
