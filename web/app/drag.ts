/**
 * Moving cards by pointer: with a mouse or a pen at once, with a finger after a
 * moment of rest, so that a finger can scroll.
 *
 * This module runs in a browser.
 *
 * @module
 */

import { h } from "./dom.ts";

/** Distance from which a press is a drag, in pixels. */
const THRESHOLD = 6;

/** Milliseconds that a finger rests on a card to lift it. */
const REST_MS = 250;

/** Distance from an edge from which on a list or the board is scrolled, in pixels. */
const EDGE = 48;

/** Place where a card was dropped. */
export interface Drop {
  /** Id of the card. */
  readonly id: string;
  /** Id of the list. */
  readonly list: string;
  /** Id of the card that follows; null at the end. */
  readonly before: string | null;
}

/** Card in the air. */
class Flight {
  readonly #card: HTMLElement;
  readonly #ghost: HTMLElement;
  readonly #gap = h("li", { className: "gap", ariaHidden: "true" });
  readonly #board: HTMLElement;
  readonly #dx: number;
  readonly #dy: number;
  #x = 0;
  #y = 0;
  #frame = 0;

  constructor(card: HTMLElement, board: HTMLElement, x: number, y: number) {
    this.#card = card;
    this.#board = board;
    const { left, top, width, height } = card.getBoundingClientRect();
    this.#dx = x - left;
    this.#dy = y - top;
    this.#ghost = card.cloneNode(true) as HTMLElement;
    this.#ghost.classList.add("ghost");
    this.#ghost.inert = true;
    this.#ghost.style.width = `${width}px`;
    this.#gap.style.height = `${height}px`;
    document.body.append(this.#ghost);
    card.classList.add("lifted");
    document.documentElement.classList.add("dragging");
    this.moveTo(x, y);
    this.#frame = requestAnimationFrame(this.#scroll);
  }

  moveTo(x: number, y: number): void {
    this.#x = x;
    this.#y = y;
    this.#ghost.style.transform = `translate(${x - this.#dx}px, ${
      y - this.#dy
    }px)`;
    const list = document.elementFromPoint(x, y)?.closest(".list");
    const cards = list?.querySelector(".cards");
    if (!cards) return;
    const next = [...cards.querySelectorAll<HTMLElement>(":scope > .card")]
      .find((card) => {
        if (card === this.#card) return false;
        const { top, height } = card.getBoundingClientRect();
        return y < top + height / 2;
      });
    const before = next ?? cards.querySelector(".last");
    if (this.#gap.nextElementSibling !== before) {
      cards.insertBefore(this.#gap, before);
    }
  }

  /** Scrolls what is under the pointer, at its edges. */
  readonly #scroll = (): void => {
    const cards = this.#gap.parentElement;
    if (cards !== null) {
      const { top, bottom } = cards.getBoundingClientRect();
      if (this.#y < top + EDGE) cards.scrollTop -= 10;
      else if (this.#y > bottom - EDGE) cards.scrollTop += 10;
    }
    const { left, right } = this.#board.getBoundingClientRect();
    if (this.#x < left + EDGE) this.#board.scrollLeft -= 12;
    else if (this.#x > right - EDGE) this.#board.scrollLeft += 12;
    this.#frame = requestAnimationFrame(this.#scroll);
  };

  /** Ends the flight; returns where the card was dropped. */
  land(): Drop | undefined {
    cancelAnimationFrame(this.#frame);
    const list = this.#gap.closest<HTMLElement>(".list")?.dataset["list"];
    let next = this.#gap.nextElementSibling as HTMLElement | null;
    if (next === this.#card) next = next.nextElementSibling as HTMLElement;
    const before = next?.dataset["card"] ?? null;
    this.#gap.remove();
    this.#ghost.remove();
    this.#card.classList.remove("lifted");
    document.documentElement.classList.remove("dragging");
    return list === undefined
      ? undefined
      : { id: this.#card.dataset["card"]!, list, before };
  }
}

/** Lets a person drag the cards of a board; `drop` is called with each place where one was dropped. A press that lasts goes on as if it began now. */
export function dragCards(
  board: HTMLElement,
  drop: (to: Drop) => void,
  held: PointerEvent | undefined,
): void {
  let flight: Flight | undefined;

  // A finger scrolls until it has lifted a card.
  board.addEventListener("touchmove", (event) => {
    if (flight !== undefined) event.preventDefault();
  }, { passive: false });
  board.addEventListener("contextmenu", (event) => {
    if (flight !== undefined) event.preventDefault();
  });

  const press = (down: PointerEvent): void => {
    const target = down.target as HTMLElement;
    const card = target.closest<HTMLElement>(".card");
    if (
      card === null || down.button !== 0 || !down.isPrimary ||
      flight !== undefined || target.closest("input, textarea, .more") !== null
    ) return;
    const ended = new AbortController();
    const { signal } = ended;
    let { clientX: x, clientY: y } = down;
    const lift = (): void => {
      if (!card.isConnected) return ended.abort();
      flight = new Flight(card, board, x, y);
      navigator.vibrate?.(10);
    };
    const isTouch = down.pointerType === "touch";
    const timer = isTouch ? setTimeout(lift, REST_MS) : 0;
    const end = (isDropped: boolean): void => {
      clearTimeout(timer);
      ended.abort();
      if (flight === undefined) return;
      const to = flight.land();
      flight = undefined;
      if (isDropped && to !== undefined) drop(to);
      // The click at the end of a drag has no effect.
      const stop = (event: Event): void => {
        event.stopPropagation();
        event.preventDefault();
      };
      addEventListener("click", stop, { capture: true, once: true });
      setTimeout(() => removeEventListener("click", stop, { capture: true }));
    };
    document.addEventListener("pointermove", (move) => {
      if (move.pointerId !== down.pointerId) return;
      x = move.clientX;
      y = move.clientY;
      if (flight !== undefined) return flight.moveTo(x, y);
      const isFar = Math.hypot(x - down.clientX, y - down.clientY) > THRESHOLD;
      if (!isFar) return;
      if (isTouch) end(false);
      else lift();
    }, { signal });
    document.addEventListener("pointerup", () => end(true), { signal });
    document.addEventListener("pointercancel", () => end(false), { signal });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") end(false);
    }, { signal });
  };
  board.addEventListener("pointerdown", press);
  if (held !== undefined) press(held);
}
