/**
 * One card on the page.
 *
 * This module runs in a browser.
 *
 * @module
 */

import type { Mark } from "../../src/typed/mod.ts";
import type { Actions, Voice } from "./actions.ts";
import { type Card, TEXT_LENGTH_MAX } from "./board.ts";
import { h, icon, setText } from "./dom.ts";
import type { Frames } from "./frames.ts";
import { quote } from "./words.ts";

/** Parts of the page that a card uses. */
export interface CardParts {
  /** Edits of this person. */
  readonly actions: Actions;
  /** Part that speaks to the person. */
  readonly voice: Voice;
  /** Frames in which cards are drawn. */
  readonly frames: Frames;
  /** Opens everything that can be done with a card. */
  open(card: Card): void;
}

/** Milliseconds for which a change of another device is shown. */
const CHANGED_MS = 2_500;

/** Milliseconds without a change of another device, after which the next one is announced and moves. */
const QUIET_MS = 1_000;

/** Time of the last change of another device. */
let lastChange = -QUIET_MS;

/** Length of a text of one line up to which it never has more lines than a card shows, in UTF-16 code units. */
const SHORT_LENGTH = 70;

/** True if a text may have more lines than a card shows: only such a text is cut off, which costs a layer of its own in each frame. */
function mayBeLong(text: string): boolean {
  return text.length > SHORT_LENGTH || text.includes("\n");
}

const WAITING = "waiting to be sent";
const REFUSED = "an edit was not applied";

/** Card on the page; it moves from list to list with what is typed in it. */
export class CardView {
  /** Item of a list. */
  readonly element: HTMLLIElement;
  readonly #parts: CardParts;
  readonly #tick: HTMLInputElement;
  readonly #text: HTMLButtonElement;
  readonly #more: HTMLButtonElement;
  readonly #mark = h("p", { className: "mark", hidden: true });
  readonly #tag = h("p", { className: "tag", dir: "auto" });
  #card: Card;
  #markState: string | undefined;
  #editor: HTMLTextAreaElement | undefined;
  /** True while the element is moved on the page, and loses the focus for a moment. */
  #isMoving = false;
  #changedTimer: ReturnType<typeof setTimeout> | undefined;

  /** Creates the view of a card. */
  constructor(card: Card, parts: CardParts) {
    this.#card = card;
    this.#parts = parts;
    const { actions } = parts;
    actions.noteChange(card.id);
    this.#tick = h("input", {
      type: "checkbox",
      onchange: (): void => {
        const { id } = this.#card;
        actions.run(actions.do.tick({ id, done: this.#tick.checked }), id);
      },
    });
    this.#text = h("button", {
      type: "button",
      className: "text",
      dir: "auto",
      onclick: () => this.edit(),
    });
    this.#more = h("button", {
      type: "button",
      className: "quiet more",
      onclick: () => parts.open(this.#card),
    }, icon("more"));
    this.element = h(
      "li",
      { className: "card", dataset: { card: card.id } },
      this.#tick,
      h("div", { className: "body" }, this.#text, this.#mark),
      this.#more,
    );
    this.#show();
  }

  /** Card that is shown. */
  get card(): Card {
    return this.#card;
  }

  /** Other people at the card, in words. */
  set tag(words: string | undefined) {
    if (words === undefined) this.#tag.remove();
    else if (this.#tag.textContent !== words || !this.#tag.isConnected) {
      this.#tag.textContent = words;
      this.#mark.after(this.#tag);
    }
  }

  /** True while a person types in it. */
  get isEditing(): boolean {
    return this.#editor !== undefined;
  }

  /** Shows a card, and whether edits of it are pending. */
  show(card: Card, mark: Mark<{ id: number; state: never }> | undefined): void {
    const { actions } = this.#parts;
    const wasPending = this.#markState !== undefined;
    const old = this.#card;
    if (card !== old) actions.noteChange(card.id);
    const state = mark?.state ??
      (actions.isStoring(card.id) ? "queued" : undefined);
    if (card === old && state === this.#markState) return;
    this.#card = card;
    this.#markState = state;
    const isChanged = card.text !== old.text || card.done !== old.done ||
      card.list !== old.list || card.position !== old.position;
    if (
      isChanged && state === undefined && !wasPending &&
      !actions.isOwn(card.id)
    ) this.changedElsewhere();
    this.#show();
  }

  #show(): void {
    const { text, done } = this.#card;
    this.#tick.checked = done;
    this.#tick.ariaLabel = `Done: ${quote(text)}`;
    this.#more.ariaLabel = `More about ${quote(text)}`;
    setText(this.#text, text);
    this.#text.classList.toggle("long", mayBeLong(text));
    const { element } = this;
    element.classList.toggle("done", done);
    element.classList.toggle("waiting", this.#markState === "queued");
    element.classList.toggle(
      "refused",
      this.#markState === "refused" || this.#markState === "unknown",
    );
    this.#mark.hidden = this.#markState === undefined;
    setText(this.#mark, this.#markState === "queued" ? WAITING : REFUSED);
  }

  /** Shows for a while that another device has changed the card. */
  changedElsewhere(): void {
    clearTimeout(this.#changedTimer);
    const { classList } = this.element;
    // Where many come, motion and words for each would be noise.
    const now = performance.now();
    const isFirst = now - lastChange > QUIET_MS;
    lastChange = now;
    classList.add("changed");
    classList.toggle("arriving", isFirst);
    this.#changedTimer = setTimeout(
      () => this.#parts.frames.request(() => classList.remove("changed")),
      CHANGED_MS,
    );
    if (!isFirst) return;
    this.#parts.voice.say(
      `${quote(this.#card.text)} was changed on another device`,
    );
  }

  /** Sets the focus on the card. */
  focus(): void {
    (this.#editor ?? this.#text).focus({ preventScroll: false });
  }

  /** Lets the person write. */
  edit(): void {
    if (this.#editor !== undefined) return;
    const editor = h("textarea", {
      value: this.#card.text,
      maxLength: TEXT_LENGTH_MAX,
      dir: "auto",
      rows: 1,
      ariaLabel: "Text of the card",
      onblur: () => {
        if (!this.#isMoving) this.commit();
      },
      onkeydown: (event): void => {
        event.stopPropagation();
        if (event.key === "Escape") this.#close();
        else if (
          event.key === "Enter" && !event.shiftKey && !event.isComposing
        ) {
          event.preventDefault();
          this.commit();
          this.focus();
        }
      },
      oninput: () => fit(editor),
    });
    this.#editor = editor;
    this.element.classList.add("editing");
    this.#text.hidden = true;
    this.#text.before(editor);
    fit(editor);
    editor.focus();
    editor.setSelectionRange(editor.value.length, editor.value.length);
  }

  /** Puts the card before another element of a list, with the focus if it has that. */
  moveTo(list: Element, before: Element | null): void {
    const focused = document.activeElement;
    const isFocused = this.element.contains(focused);
    this.#isMoving = true;
    list.insertBefore(this.element, before);
    if (isFocused) (focused as HTMLElement).focus({ preventScroll: true });
    this.#isMoving = false;
  }

  /** Submits what was typed, if it is another text, and ends the editing. */
  commit(): void {
    const editor = this.#editor;
    if (editor === undefined) return;
    const text = editor.value.trim();
    const { id } = this.#card;
    this.#close();
    if (text === "" || text === this.#card.text) return;
    const { actions } = this.#parts;
    actions.run(actions.do.write({ id, text }), id);
  }

  #close(): void {
    const editor = this.#editor;
    if (editor === undefined) return;
    this.#editor = undefined;
    const hadFocus = document.activeElement === editor;
    editor.remove();
    this.element.classList.remove("editing");
    this.#text.hidden = false;
    if (hadFocus) this.#text.focus();
  }

  /** Takes the card off the page. What was typed is submitted: if it is refused, the page shows it, and says why. */
  remove(): void {
    clearTimeout(this.#changedTimer);
    this.commit();
    this.element.remove();
  }
}

/** Makes a field as high as its text. */
function fit(field: HTMLTextAreaElement): void {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}
