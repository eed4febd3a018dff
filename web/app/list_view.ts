/**
 * One list on the page, with as many of its cards as a person has scrolled to.
 *
 * This module runs in a browser.
 *
 * @module
 */

import { newID, type PendingEdit } from "../../src/typed/mod.ts";
import type { Watch } from "../../mod.ts";
import type { Actions } from "./actions.ts";
import { type Card, type List, TEXT_LENGTH_MAX } from "./board.ts";
import type { CardView } from "./card_view.ts";
import type { BoardApp } from "./device.ts";
import { h, iconButton, setText } from "./dom.ts";
import { quote } from "./words.ts";

/** Least height of a card with the gap after it, in pixels. */
const CARD_PX = 44;

/** Cards that are on the page after those for which the window has room. */
const CARDS_AHEAD = 12;

/** Distance from the last card on the page at which more are added, in pixels: less than what is ahead. */
const AHEAD_PX = 300;

/** Number of cards that are on the page at first, and that are added whenever the last one comes near. */
function cardsFor(height: number): number {
  return Math.ceil(height / CARD_PX) + CARDS_AHEAD;
}

/** Marks of the board's rows. */
export type BoardMarks = NonNullable<
  ReturnType<BoardApp["marks"]["getSnapshot"]>
>;

/** Parts of the page that a list uses. */
export interface ListParts {
  /** Typed access to the board. */
  readonly app: BoardApp;
  /** Edits of this person. */
  readonly actions: Actions;
  /** Called when cards have changed: the list has to be drawn again. */
  changed(): void;
  /** Called when the person waits for cards to be drawn. */
  drawNow(): void;
  /** View of a card, created if it has none; `isNew` if so. */
  viewOf(card: Card): CardView;
  /** Opens everything that can be done with the list. */
  open(list: List): void;
}

/** True if a pending edit concerns a list itself, and not cards in it. */
function isOfList({ name }: Pick<PendingEdit, "name">): boolean {
  return name.endsWith("List") || name === "begin";
}

/** List on the page. */
export class ListView {
  /** Section of the board. */
  readonly element: HTMLElement;
  readonly #parts: ListParts;
  readonly #watch: Watch<readonly Card[]>;
  readonly #end: () => void;
  readonly #title: HTMLHeadingElement;
  readonly #count = h("span", { className: "count" });
  readonly #mark = h("p", { className: "mark", hidden: true });
  readonly #cards: HTMLOListElement;
  readonly #last = h("li", { className: "last", ariaHidden: "true" });
  readonly #more: HTMLButtonElement;
  readonly #field: HTMLInputElement;
  readonly #observer: IntersectionObserver;
  #list: List;
  /** Height of the window. */
  #height: number;
  #shown: number;
  #rows: readonly Card[] = [];
  #marks: BoardMarks | undefined;
  #drawn = 0;
  #revision = 0;
  /** Ids of the cards that are on the page. */
  ids: ReadonlySet<string> = new Set();

  /** Creates the view of a list, in a window of a height. */
  constructor(list: List, height: number, parts: ListParts) {
    this.#list = list;
    this.#height = height;
    this.#shown = cardsFor(height);
    this.#parts = parts;
    const { actions, app } = parts;
    const titleID = `list-${list.id}`;
    this.#title = h("h2", { id: titleID, dir: "auto" });
    this.#more = iconButton("more", "", () => parts.open(this.#list));
    this.#cards = h("ol", { className: "cards" }, this.#last);
    this.#field = h("input", {
      type: "text",
      name: "text",
      dir: "auto",
      autocomplete: "off",
      enterKeyHint: "done",
      placeholder: "Add a card",
      maxLength: TEXT_LENGTH_MAX,
    });
    const form = h(
      "form",
      {
        className: "new",
        onsubmit: (event: Event): void => {
          event.preventDefault();
          const text = this.#field.value.trim();
          if (text === "") return;
          this.#field.value = "";
          const id = newID();
          const { id: list } = this.#list;
          this.#shown = Math.max(this.#shown, this.#rows.length + 1);
          actions.run(actions.do.add({ id, list, text, before: null }), id);
        },
      },
      this.#field,
      h("button", { type: "submit", className: "quiet" }, "Add"),
    );
    this.element = h(
      "section",
      {
        className: "list",
        dataset: { list: list.id },
        "aria-labelledby": titleID,
      },
      h("header", {}, this.#title, this.#count, this.#more),
      this.#mark,
      this.#cards,
      form,
    );
    this.#watch = app.watch.cards(list.id);
    this.#end = this.#watch.subscribe(parts.changed);
    this.#observer = new IntersectionObserver(([entry]) => {
      if (!entry?.isIntersecting || this.#rows.length <= this.#shown) return;
      this.#shown += cardsFor(this.#height);
      parts.drawNow();
    }, { root: this.#cards, rootMargin: `${AHEAD_PX}px` });
    this.#observer.observe(this.#last);
  }

  /** List that is shown. */
  get list(): List {
    return this.#list;
  }

  /** Cards of the list in order, also those that are not on the page yet. */
  get rows(): readonly Card[] {
    return this.#watch.getSnapshot() ?? this.#rows;
  }

  /** Has a card on the page, however far down it is. */
  reveal(id: string): void {
    const at = this.rows.findIndex((card) => card.id === id);
    if (at >= this.#shown) this.#shown = at + cardsFor(this.#height);
  }

  /** Sets the focus on the field for a new card. */
  focusField(): void {
    this.#field.focus();
  }

  /** Shows a list, in a window of a height; true if something has changed. */
  show(list: List, marks: BoardMarks | undefined, height: number): boolean {
    const rows = this.rows;
    const { revision } = this.#parts.actions;
    const isSame = list === this.#list && rows === this.#rows &&
      marks === this.#marks && this.#shown === this.#drawn &&
      height === this.#height && revision === this.#revision;
    if (isSame) return false;
    this.#revision = revision;
    this.#height = height;
    this.#list = list;
    this.#rows = rows;
    this.#marks = marks;
    this.#drawn = this.#shown;
    this.#showHead();
    this.#showCards();
    return true;
  }

  #showHead(): void {
    const { id, title } = this.#list;
    setText(this.#title, title);
    this.#more.ariaLabel = this.#more.title = `More about the list ${
      quote(title)
    }`;
    this.#field.ariaLabel = `New card in ${quote(title)}`;
    const done = this.#rows.filter(({ done }) => done).length;
    const count = this.#rows.length;
    setText(this.#count, done === 0 ? `${count}` : `${done}/${count}`);
    this.#count.ariaLabel = done === 0
      ? `${count} cards`
      : `${done} of ${count} done`;
    this.#count.role = "img";
    const edits = this.#marks?.lists.get(id)?.edits.filter(isOfList) ?? [];
    const isWaiting = edits.some(({ state }) => state === "queued") ||
      this.#parts.actions.isStoring(id);
    this.element.classList.toggle("waiting", isWaiting);
    this.#mark.hidden = edits.length === 0 && !isWaiting;
    setText(
      this.#mark,
      isWaiting ? "waiting to be sent" : "an edit was not applied",
    );
  }

  #showCards(): void {
    const ids = new Set<string>();
    let next = this.#cards.firstElementChild;
    for (const card of this.#rows.slice(0, this.#shown)) {
      ids.add(card.id);
      const view = this.#parts.viewOf(card);
      view.show(card, this.#marks?.cards.get(card.id) as never);
      if (next === view.element) next = next.nextElementSibling;
      else view.moveTo(this.#cards, next);
    }
    this.ids = ids;
    // As high as the board then, whatever is in it.
    const isFull = ids.size * CARD_PX > this.#height;
    this.element.classList.toggle("full", isFull);
    this.#last.hidden = this.#rows.length <= this.#shown;
  }

  /** Takes the list off the page. */
  remove(): void {
    this.#end();
    this.#observer.disconnect();
    this.element.remove();
  }
}
