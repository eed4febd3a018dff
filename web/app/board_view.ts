/**
 * The board on the page: its lists side by side, with keyboard and pointer.
 *
 * This module runs in a browser.
 *
 * @module
 */

import { newID } from "../../src/typed/mod.ts";
import type { Actions, Voice } from "./actions.ts";
import { type Card, type List, TITLE_LENGTH_MAX } from "./board.ts";
import { CardView } from "./card_view.ts";
import type { BoardApp } from "./device.ts";
import { h } from "./dom.ts";
import type { DialogParts } from "./dialogs.ts";
import type { Frames } from "./frames.ts";
import { firstUse, type Later, loadLater } from "./lazy.ts";
import { ListView } from "./list_view.ts";

/** Keys that are kept until what takes them has been loaded. */
const KEYS_MAX = 32;

/** Parts of the page that the board uses. */
export interface BoardParts {
  /** Typed access to the board. */
  readonly app: BoardApp;
  /** Edits of this person. */
  readonly actions: Actions;
  /** Part that speaks to the person. */
  readonly voice: Voice;
  /** Frames in which the board is drawn. */
  readonly frames: Frames;
  /** Parts of the dialogs. */
  readonly dialogs: DialogParts;
}

/** Board on the page. */
export class BoardView {
  /** Part of the page with the lists. */
  readonly element = h("main", { id: "board", ariaLabel: "Board" });
  readonly #parts: BoardParts;
  readonly #watch: ReturnType<BoardApp["watch"]["lists"]>;
  readonly #lists = new Map<string, ListView>();
  readonly #cards = new Map<string, CardView>();
  #ordered: readonly ListView[] = [];
  readonly #newList: HTMLFormElement;
  /** Height of the window, kept here since reading it lays the page out. */
  #height = innerHeight;
  #tags: ReadonlyMap<string, string> = new Map();
  /** Card that gets the focus when it is drawn next. */
  #focusNext: string | undefined;

  /** Shows a board, and keeps it up to date. */
  constructor(parts: BoardParts) {
    this.#parts = parts;
    const { app, actions } = parts;
    const field = h("input", {
      type: "text",
      dir: "auto",
      autocomplete: "off",
      placeholder: "Add a list",
      ariaLabel: "New list",
      maxLength: TITLE_LENGTH_MAX,
    });
    this.#newList = h(
      "form",
      {
        className: "new-list",
        onsubmit: (event: Event): void => {
          event.preventDefault();
          const title = field.value.trim();
          if (title === "") return;
          field.value = "";
          const id = newID();
          actions.run(actions.do.addList({ id, title, before: null }), id);
        },
      },
      field,
      h("button", { type: "submit", className: "quiet" }, "Add"),
    );
    this.element.append(this.#newList);
    this.#watch = app.watch.lists();
    this.#watch.subscribe(this.#schedule);
    app.marks.subscribe(this.#schedule);
    actions.onStoring(this.#scheduleNow);
    addEventListener("resize", () => {
      this.#height = innerHeight;
      this.#schedule();
    });
    // A finger may rest on a card already when what moves it has been loaded, or keys
    // have been pressed.
    let held: PointerEvent | undefined;
    const pressed: KeyboardEvent[] = [];
    this.element.onkeydown = (event): void => {
      if (pressed.length < KEYS_MAX) pressed.push(event);
    };
    this.element.onpointerdown = (event): void => {
      held = event;
    };
    this.element.onpointerup = this.element.onpointercancel = (): void => {
      held = undefined;
    };
    void firstUse().then(({ BoardMoves, dragCards, openCard }) => {
      const moves = new BoardMoves({
        ...parts,
        element: this.element,
        lists: () => this.#ordered,
        card: (id) => this.#cards.get(id),
        focus: (card) => this.#focus(card),
        focusNext: (id) => {
          this.#focusNext = id;
        },
        open: (card) => openCard(card, parts.dialogs),
      });
      dragCards(this.element, (to) => moves.drop(to), held);
      this.element.onpointerdown = null;
      this.element.onkeydown = (event): void => moves.key(event);
      for (const event of pressed) moves.key(event);
    });
    this.#draw();
  }

  /** Lists in order. */
  get lists(): readonly List[] {
    return this.#watch.getSnapshot() ?? [];
  }

  /** Cards of a list in order. */
  cards(list: string): readonly Card[] {
    return this.#lists.get(list)?.rows ?? [];
  }

  /** Text of a card that is on the page. */
  textOf(card: string): string | undefined {
    return this.#cards.get(card)?.card.text;
  }

  /** Shows the words for each card at which other people are. */
  showTags(tags: ReadonlyMap<string, string>): void {
    this.#tags = tags;
    for (const [id, view] of this.#cards) view.tag = tags.get(id);
  }

  /** Has the board drawn, once for all changes until then. */
  readonly #schedule = (): void => this.#parts.frames.request(this.#draw);

  /** Has the board drawn in the next frame. */
  readonly #scheduleNow = (): void => this.#parts.frames.requestNow(this.#draw);

  readonly #draw = (): void => {
    const marks = this.#parts.app.marks.getSnapshot();
    const lists = this.lists;
    const before = this.#ordered;
    this.#ordered = lists.map((list) => this.#listView(list));
    let isChanged = before.length !== this.#ordered.length;
    for (const [i, list] of lists.entries()) {
      const view = this.#ordered[i]!;
      isChanged = view.show(list, marks, this.#height) || isChanged;
      if (before[i] === view && view.element.isConnected) continue;
      const next = this.element.children[i];
      if (next !== view.element) {
        this.element.insertBefore(view.element, next ?? null);
      }
    }
    if (isChanged) this.#removeOthers(lists);
    const focus = this.#focusNext;
    this.#focusNext = undefined;
    if (focus !== undefined) this.#cards.get(focus)?.focus();
  };

  #listView(list: List): ListView {
    const known = this.#lists.get(list.id);
    if (known !== undefined) return known;
    const { app, actions, dialogs } = this.#parts;
    const view = new ListView(list, this.#height, {
      app,
      actions,
      changed: this.#schedule,
      drawNow: this.#scheduleNow,
      viewOf: (card) => this.#cardView(card),
      open: (list) => this.#open(({ openList }) => openList(list, dialogs)),
    });
    this.#lists.set(list.id, view);
    return view;
  }

  #cardView(card: Card): CardView {
    const known = this.#cards.get(card.id);
    if (known !== undefined) return known;
    const { actions, voice, frames, dialogs } = this.#parts;
    const view = new CardView(card, {
      actions,
      voice,
      frames,
      open: (card) => this.#open(({ openCard }) => openCard(card, dialogs)),
    });
    view.tag = this.#tags.get(card.id);
    this.#cards.set(card.id, view);
    return view;
  }

  /** Removes the views of lists and cards that are not shown any more. */
  #removeOthers(lists: readonly List[]): void {
    const ids = new Set(lists.map(({ id }) => id));
    for (const [id, view] of this.#lists) {
      if (ids.has(id)) continue;
      view.remove();
      this.#lists.delete(id);
    }
    for (const [id, view] of this.#cards) {
      if (this.#ordered.some(({ ids }) => ids.has(id))) continue;
      view.remove();
      this.#cards.delete(id);
    }
  }

  /** Opens a dialog. */
  #open(open: (later: Later) => void): void {
    const { voice } = this.#parts;
    loadLater().then(open).catch((error) => voice.complain(error));
  }

  #focus(card: Card | undefined): void {
    if (card === undefined) return;
    const view = this.#cards.get(card.id);
    if (view !== undefined) return view.focus();
    this.#lists.get(card.list)?.reveal(card.id);
    this.#focusNext = card.id;
    this.#scheduleNow();
  }
}
