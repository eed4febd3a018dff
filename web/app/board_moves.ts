/**
 * Moves of cards on the board: by keyboard, and where they were dropped.
 *
 * This module runs in a browser.
 *
 * @module
 */

import type { Actions, Voice } from "./actions.ts";
import type { Card } from "./board.ts";
import type { CardView } from "./card_view.ts";
import type { Drop } from "./drag.ts";
import type { ListView } from "./list_view.ts";
import { quote } from "./words.ts";

/** Parts of the page that moves use. */
export interface MovesParts {
  /** Edits of this person. */
  readonly actions: Actions;
  /** Part that speaks to the person. */
  readonly voice: Voice;
  /** Part of the page with the lists. */
  readonly element: HTMLElement;
  /** Views of the lists in order. */
  lists(): readonly ListView[];
  /** View of a card. */
  card(id: string): CardView | undefined;
  /** Gives the focus to a card. */
  focus(card: Card | undefined): void;
  /** Gives the focus to a card when it is drawn next. */
  focusNext(id: string): void;
  /** Opens the dialog of a card. */
  open(card: Card): void;
}

/** Moves of cards. */
export class BoardMoves {
  readonly #parts: MovesParts;

  /** Moves on a board. */
  constructor(parts: MovesParts) {
    this.#parts = parts;
  }

  #list(id: string): ListView | undefined {
    return this.#parts.lists().find(({ list }) => list.id === id);
  }

  #rows(list: string): readonly Card[] {
    return this.#list(list)?.rows ?? [];
  }

  /** Moves a card that was dropped. */
  drop({ id, list, before }: Drop): void {
    const card = this.#parts.card(id)?.card;
    if (card === undefined) return;
    const rows = this.#rows(list);
    const at = rows.findIndex((row) => row.id === id);
    if (at >= 0 && (rows[at + 1]?.id ?? null) === before) return;
    this.#move(card, list, before);
  }

  #move({ id, text }: Card, list: string, before: string | null): void {
    const { actions, voice } = this.#parts;
    actions.run(actions.do.move({ id, list, before }), id);
    const title = this.#list(list)?.list.title ?? "";
    const rows = this.#rows(list).filter((card) => card.id !== id);
    const at = rows.findIndex((card) => card.id === before);
    const place = (at < 0 ? rows.length : at) + 1;
    voice.say(
      `${quote(text)} moved to ${quote(title)}, place ${place} of ${
        rows.length + 1
      }`,
    );
  }

  /** Takes a key that was pressed. */
  key(event: KeyboardEvent): void {
    const { target, key, altKey, ctrlKey, metaKey } = event;
    const element = target as HTMLElement;
    const id = element.closest<HTMLElement>(".card")?.dataset["card"];
    const view = id === undefined ? undefined : this.#parts.card(id);
    if (
      view === undefined || ctrlKey || metaKey ||
      element.matches("textarea, input[type=text]")
    ) return;
    const done = altKey ? this.#moveBy(view.card, key) : this.#go(view, key);
    if (done) event.preventDefault();
  }

  /** Sign of an arrow key along the lists: they run from right to left where the page does. */
  #sideways(key: string): number {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[key] ?? 0;
    const isRightToLeft =
      getComputedStyle(this.#parts.element).direction === "rtl";
    return isRightToLeft ? -step : step;
  }

  #moveBy(card: Card, key: string): boolean {
    const { id, list } = card;
    const rows = this.#rows(list);
    const at = rows.findIndex((row) => row.id === id);
    const sideways = this.#sideways(key);
    if (sideways !== 0) {
      const lists = this.#parts.lists();
      const other = lists[
        lists.findIndex((view) => view.list.id === list) + sideways
      ];
      if (other === undefined) return true;
      this.#parts.focusNext(id);
      this.#move(card, other.list.id, other.rows[at]?.id ?? null);
      return true;
    }
    if (key !== "ArrowUp" && key !== "ArrowDown") return false;
    const isUp = key === "ArrowUp";
    if (isUp ? at === 0 : at === rows.length - 1) return true;
    const before = rows[isUp ? at - 1 : at + 2]?.id ?? null;
    this.#move(card, list, before);
    this.#parts.focusNext(id);
    return true;
  }

  #go(view: CardView, key: string): boolean {
    const { card } = view;
    const { actions } = this.#parts;
    const list = this.#list(card.list);
    const at = list?.rows.findIndex(({ id }) => id === card.id) ?? 0;
    const sideways = this.#sideways(key);
    if (sideways !== 0) {
      const lists = this.#parts.lists();
      let next = lists.indexOf(list!);
      do next += sideways; while (lists[next]?.rows.length === 0);
      const rows = lists[next]?.rows ?? [];
      this.#parts.focus(rows[Math.min(at, rows.length - 1)]);
      return true;
    }
    switch (key) {
      case "ArrowUp":
        this.#parts.focus(list?.rows[at - 1]);
        return true;
      case "ArrowDown":
        this.#parts.focus(list?.rows[at + 1]);
        return true;
      case "t":
      case "T": {
        const { id, done } = card;
        actions.run(actions.do.tick({ id, done: !done }), id);
        return true;
      }
      case "Delete":
      case "Backspace":
        this.#parts.focus(list?.rows[at + 1] ?? list?.rows[at - 1]);
        actions.run(actions.do.archive({ id: card.id }), card.id);
        this.#parts.voice.say(`${quote(card.text)} is archived`);
        return true;
      case "m":
      case "M":
        this.#parts.open(card);
        return true;
      case "n":
      case "N":
        list?.focusField();
        return true;
      default:
        return false;
    }
  }
}
