/**
 * Messages of the page about what goes wrong, each with what can be done about it.
 *
 * This module runs in a browser.
 *
 * @module
 */

import type { Voice } from "./actions.ts";
import { button, h, setText } from "./dom.ts";

/** Something that a person can do about a message. */
export type Remedy = readonly [text: string, run: () => Promise<void> | void];

/** Reloading of the page. */
export const RELOAD: Remedy = ["Reload", (): void => location.reload()];

/** Message of the page. */
export interface Message {
  /** Severity, which is also in the words. */
  readonly tone: "info" | "warn" | "bad";
  /** Description of what has happened, and of what that means. */
  readonly text: string;
  /** Time that is left, which is shown and not announced. */
  readonly countdown?: string;
  /** Buttons with what can be done. */
  readonly remedies?: readonly Remedy[];
}

/** Messages of the page by topic: one at a time for each. */
export class Messages implements Voice {
  /** Part of the page with the messages. */
  readonly element = h("section", {
    id: "messages",
    ariaLabel: "Messages",
  });
  /** Parts of the page that a screen reader reads when they change. */
  readonly voices = h("div", { className: "unseen" });
  readonly #polite = h("p", { role: "status" });
  readonly #alert = h("p", { role: "alert" });
  readonly #shown = new Map<
    string,
    { readonly element: HTMLElement; readonly message: Message }
  >();

  /** Creates messages without any. */
  constructor() {
    this.voices.append(this.#polite, this.#alert);
  }

  /** Says something to a screen reader. */
  say(text: string): void {
    this.#polite.textContent = text;
  }

  /** Interrupts a screen reader. */
  warn(text: string): void {
    this.#alert.textContent = text;
  }

  /** Sets the message of a topic; undefined for none. */
  set(topic: string, message: Message | undefined): void {
    const old = this.#shown.get(topic);
    if (message === undefined) {
      old?.element.remove();
      this.#shown.delete(topic);
      return;
    }
    const isSame = old?.message.text === message.text &&
      old.message.tone === message.tone &&
      old.message.remedies?.length === message.remedies?.length;
    if (isSame) {
      const countdown = old.element.querySelector<HTMLElement>(".countdown")!;
      setText(countdown, message.countdown ?? "");
      return;
    }
    const element = h(
      "div",
      { className: `message ${message.tone}`, dataset: { topic } },
      h(
        "p",
        {},
        message.text,
        " ",
        h("span", { className: "countdown" }, message.countdown ?? ""),
      ),
      ...(message.remedies ?? []).map(([text, run]) => this.#remedy(text, run)),
    );
    if (old === undefined) this.element.append(element);
    else old.element.replaceWith(element);
    this.#shown.set(topic, { element, message });
    if (message.tone === "bad") this.warn(message.text);
    else this.say(message.text);
  }

  #remedy(text: string, run: Remedy[1]): HTMLButtonElement {
    const made = button(text, () => {
      made.disabled = true;
      Promise.resolve(run())
        .catch((error) => this.complain(error))
        .finally(() => made.disabled = false);
    });
    return made;
  }

  /** Shows an error. */
  complain(error: unknown): void {
    const text = error instanceof Error ? error.message : `${error}`;
    this.set("problem", {
      tone: "bad",
      text,
      remedies: [["Dismiss", (): void => this.set("problem", undefined)]],
    });
  }
}
