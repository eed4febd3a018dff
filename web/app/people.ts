/**
 * Badges of the other people at a board, and what is said of them. Loaded when the
 * first one comes.
 *
 * This module runs in a browser.
 *
 * @module
 */

import type { Voice } from "./actions.ts";
import { h } from "./dom.ts";
import { type Visit, visitOf } from "./visit.ts";
import { quote } from "./words.ts";

/** Milliseconds that someone who left may take to come back, as after a reload. */
const LEAVE_MS = 2_000;

/** People whose badges are shown; the others are counted. */
const BADGES_MAX = 4;

/** Kinds of badges, each with a shape and a colour of its own in the style sheet. */
const BADGES = 6;

/** Parts of the page that badges use. */
export interface PeopleParts {
  /** Part that speaks to the person. */
  readonly voice: Voice;
  /** Text of a card that is on the page. */
  textOf(card: string): string | undefined;
  /** Called after each change, with the words for each card at which someone is. */
  changed(tags: ReadonlyMap<string, string>): void;
}

/** Other people at a board. */
export class People {
  readonly #parts: PeopleParts;
  readonly #self: string;
  readonly #element: HTMLElement;
  #visits: readonly Visit[] = [];
  /** Names of people who were announced, by device. */
  readonly #known = new Map<string, string>();

  /** People at the board of a page, beside the person of the device `self`. */
  constructor(parts: PeopleParts, self: string, element: HTMLElement) {
    this.#parts = parts;
    this.#self = self;
    this.#element = element;
  }

  /** Shows those of some visits, as they were received, that are of other devices. */
  show(received: readonly unknown[]): void {
    this.#visits = received.flatMap((visit) => visitOf(visit) ?? []);
    const people = new Map<string, Visit>();
    const tags = new Map<string, string>();
    for (const visit of this.#visits) {
      const { device, name, card, isWriting } = visit;
      if (device === this.#self) continue;
      if (card !== null || !people.has(device)) people.set(device, visit);
      if (card === null) continue;
      const words = `${name} ${isWriting ? "is writing" : "is here"}`;
      const others = tags.get(card);
      tags.set(card, others === undefined ? words : `${others}, ${words}`);
    }
    this.#parts.changed(tags);
    const all = [...people.values()];
    const more = all.length - BADGES_MAX;
    this.#element.hidden = all.length === 0;
    this.#element.replaceChildren(
      ...all.slice(0, BADGES_MAX).map((visit) => this.#badge(visit)),
      ...(more > 0 ? [h("li", { className: "hint" }, `+${more}`)] : []),
    );
    this.#announce(people);
  }

  #badge({ device, name, card, isWriting }: Visit): HTMLElement {
    const text = card === null ? undefined : this.#parts.textOf(card);
    const title = text === undefined
      ? `${name} is here`
      : `${name} is ${isWriting ? "writing" : "at"} ${quote(text)}`;
    const kind = [...device].reduce((sum, c) => sum + c.charCodeAt(0), 0);
    const initials = name.split(/\s+/).map(([first]) => first).join("");
    return h(
      "li",
      { className: `person badge-${kind % BADGES}`, title },
      h("span", { ariaHidden: "true" }, [...initials].slice(0, 2).join("")),
      h("span", { className: "unseen" }, title),
    );
  }

  /** Announces who came and who left, not where they go. */
  #announce(people: ReadonlyMap<string, Visit>): void {
    const { voice } = this.#parts;
    for (const [device, { name }] of people) {
      if (!this.#known.has(device)) voice.say(`${name} is here`);
      this.#known.set(device, name);
    }
    for (const [device, name] of this.#known) {
      if (people.has(device)) continue;
      setTimeout(() => {
        const isBack = this.#visits
          .some((visit) => visit.device === device);
        if (isBack || !this.#known.delete(device)) return;
        voice.say(`${name} has left`);
      }, LEAVE_MS);
    }
  }
}
