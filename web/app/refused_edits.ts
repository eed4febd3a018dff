/**
 * Edits that were refused, with the ways to take them up again. Loaded with the first
 * of them.
 *
 * This module runs in a browser.
 *
 * @module
 */

import { newID, type PendingEdit } from "../../src/typed/mod.ts";
import type { List } from "./board.ts";
import type { BoardApp } from "./device.ts";
import { button, h } from "./dom.ts";
import { isRefused } from "./lazy.ts";
import type { Messages } from "./messages.ts";
import {
  type Lookup,
  quote,
  reasonOf,
  sentenceOf,
  typedText,
} from "./words.ts";

/** Edit that can be submitted again, in a form that may be accepted this time. */
type Again = () => Promise<unknown>;

/** Edits that were refused, until they are taken up again or dismissed. */
export class RefusedEdits {
  readonly #element: HTMLElement;
  readonly #app: BoardApp;
  readonly #messages: Messages;
  readonly #lookup: Lookup;
  readonly #lists: () => readonly List[];
  readonly #shown = new Map<number, HTMLElement>();
  /** True if an edit that is shown now was refused now. */
  #isNews: boolean;

  /** Fills a part of the page with the refused edits of a board; `isNews` if there were none before. */
  constructor(
    element: HTMLElement,
    isNews: boolean,
    app: BoardApp,
    messages: Messages,
    lookup: Lookup,
    lists: () => readonly List[],
  ) {
    this.#element = element;
    this.#isNews = isNews;
    this.#app = app;
    this.#messages = messages;
    this.#lookup = lookup;
    this.#lists = lists;
  }

  /** Shows the edits that are refused now. */
  show(): void {
    const refused = this.#app.pending().filter(isRefused);
    const ids = new Set(refused.map(({ id }) => id));
    for (const [id, element] of this.#shown) {
      if (ids.has(id)) continue;
      element.remove();
      this.#shown.delete(id);
    }
    for (const edit of refused) {
      if (this.#shown.has(edit.id)) continue;
      const element = this.#create(edit);
      this.#shown.set(edit.id, element);
      this.#element.append(element);
      // After a reload they are there to be read, and no news.
      if (this.#isNews) {
        this.#messages.warn(element.querySelector("p")!.textContent!);
      }
    }
    this.#element.hidden = refused.length === 0;
    this.#isNews = true;
  }

  #create(edit: PendingEdit): HTMLElement {
    const what = sentenceOf(edit, this.#lookup);
    const again = this.#again(edit);
    const typed = typedText(edit);
    return h(
      "div",
      { className: "message bad" },
      h(
        "p",
        {},
        `Not applied: you ${what}. ${reasonOf(edit.code)}`,
        ...(typed !== undefined && typed.length > 60
          ? [h("q", { dir: "auto", tabIndex: 0 }, typed)]
          : []),
      ),
      ...(again === undefined ? [] : [
        button(again[0], () => {
          again[1]().then(() => edit.dismiss())
            .catch((error) => this.#messages.complain(error));
        }),
      ]),
      button("Dismiss", () => {
        edit.dismiss().catch((error) => this.#messages.complain(error));
      }, { ariaLabel: `Dismiss: ${quote(what)}` }),
    );
  }

  /** Way to take up an edit again, where there is one. */
  #again(
    { name, args, code }: PendingEdit,
  ): readonly [text: string, run: Again] | undefined {
    const commands = this.#app.do;
    const submit = (changed: object = {}): Promise<unknown> =>
      (commands[name as keyof typeof commands] as (args: object) => Promise<
        unknown
      >)({ ...args as object, ...changed });
    const { id = "", text } = args as { id?: string; text?: string };
    const [list] = this.#lists();
    switch (code) {
      case "archived":
        return ["Bring the card back, and apply it", async () => {
          await commands.restore({ id });
          await submit();
        }];
      case "gone":
        return text === undefined || list === undefined ? undefined : [
          "Make a new card of it",
          () =>
            commands.add({
              id: newID(),
              list: list.id,
              text,
              before: null,
            }),
        ];
      case "no-list":
        return list === undefined || name !== "add" && name !== "move"
          ? undefined
          : [
            `Use the list ${quote(list.title)}`,
            () => submit({ list: list.id, before: null }),
          ];
      case "exists":
      case "not-archived":
        return undefined;
      default:
        return name in commands ? ["Try again", () => submit()] : undefined;
    }
  }
}
