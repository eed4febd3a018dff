/**
 * Other people at this board, and the cards at which they are: passed on by the server
 * beside the log, never in it. Presence is true for a moment, and no replica has to
 * agree on it.
 *
 * This module runs in a browser.
 *
 * @module
 */

import { newID } from "../../src/typed/mod.ts";
import type { Voice } from "./actions.ts";
import type { Device } from "./device.ts";
import { h } from "./dom.ts";
import type { Place } from "./names.ts";
import { PERSON_LENGTH_MAX, type Visit, visitOf } from "./visit.ts";
import { quote } from "./words.ts";

/** Milliseconds until another attempt to connect. */
const RETRY_MS = 5_000;

/** Milliseconds for which moves of the focus are joined. */
const JOIN_MS = 150;

/** Milliseconds that someone who left may take to come back, as after a reload. */
const LEAVE_MS = 2_000;

/** People whose badges are shown; the others are counted. */
const BADGES_MAX = 4;

/** Kinds of badges, each with a shape and a colour of its own in the style sheet. */
const BADGES = 6;

const FIRST = "Calm Bold Kind Quick Wise Merry Brave Neat".split(" ");
const SECOND = "Otter Heron Puffin Seal Tern Crab Whale Gull".split(" ");

/** Names of the two devices that are shown side by side. */
export const DEVICES: Readonly<Record<string, string>> = {
  left: "Left device",
  right: "Right device",
};

function pick(names: readonly string[]): string {
  return names[Math.floor(Math.random() * names.length)]!;
}

/** Text in the storage of the browser, created if it is not there. */
function stored(key: string, create: () => string): string {
  const found = localStorage.getItem(key);
  if (found !== null) return found;
  const text = create();
  localStorage.setItem(key, text);
  return text;
}

/** Parts of the page that presence uses. */
export interface PresenceParts {
  /** Place that the page shows. */
  readonly place: Place;
  /** Device of the page, whose plug is the plug of this, too. */
  readonly device: Pick<Device, "plug" | "logDB" | "tabs">;
  /** Part that speaks to the person. */
  readonly voice: Voice;
  /** Part of the page with the cards. */
  readonly board: HTMLElement;
  /** Text of a card that is on the page. */
  textOf(card: string): string | undefined;
  /** Called after each change, with the words for each card at which someone is. */
  changed(tags: ReadonlyMap<string, string>): void;
}

/** Presence at a board. */
export class Presence {
  /** Badges of the people who are here. */
  readonly element = h("ul", { className: "people", ariaLabel: "Also here" });
  readonly #parts: PresenceParts;
  readonly #self: string;
  /** Visits of other pages, by the number that the server has given them. */
  readonly #visits = new Map<number, Visit>();
  /** Names of people who were announced, by device. */
  readonly #known = new Map<string, string>();
  #name: string;
  #socket: WebSocket | undefined;
  #triedAt = -RETRY_MS;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Joins a board, and stays while the device is connected. */
  constructor(parts: PresenceParts) {
    this.#parts = parts;
    const { device: { logDB, plug, tabs }, place, board } = parts;
    this.#self = stored(`presence ${place.device}`, newID);
    this.#name = DEVICES[place.device] ??
      stored("name", () => `${pick(FIRST)} ${pick(SECOND)}`);
    const check = (): void => this.#check();
    logDB.watch(check);
    tabs.watch(check);
    plug.addEventListener("change", check);
    setInterval(check, RETRY_MS);
    board.addEventListener("focusin", this.#moved);
    board.addEventListener("focusout", this.#moved);
    document.addEventListener("visibilitychange", this.#moved);
    check();
  }

  /** Name of the person, as others see it. */
  get name(): string {
    return this.#name;
  }

  set name(name: string) {
    this.#name = name.trim().slice(0, PERSON_LENGTH_MAX) || this.#name;
    localStorage.setItem("name", this.#name);
    this.#moved();
  }

  /** Connects where the replica of the device is connected, and ends where it is not. */
  #check(): void {
    const { device: { logDB, plug, tabs }, place } = this.#parts;
    const isFollowing = tabs.status.state === "following";
    if (!plug.isIn || !isFollowing && logDB.state !== "live") {
      return this.#socket?.close();
    }
    const now = performance.now();
    if (this.#socket !== undefined || now < this.#triedAt + RETRY_MS) return;
    this.#triedAt = now;
    const url = new URL(
      `presence?board=${encodeURIComponent(place.board)}`,
      location.href,
    );
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url);
    this.#socket = socket;
    socket.onopen = this.#moved;
    socket.onmessage = ({ data }): void => {
      const { id, visit } = JSON.parse(data);
      const checked = visitOf(visit);
      if (checked === undefined) this.#visits.delete(id);
      else this.#visits.set(id, checked);
      this.#show();
    };
    socket.onclose = (): void => {
      this.#socket = undefined;
      this.#visits.clear();
      this.#show();
    };
  }

  /** Tells where this person is, once for all moves of a moment. */
  readonly #moved = (): void => {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (this.#socket?.readyState !== WebSocket.OPEN) return;
      const at = document.hidden ? null : document.activeElement;
      const card = at?.closest<HTMLElement>(".card")?.dataset["card"] ?? null;
      const visit: Visit = {
        device: this.#self,
        name: this.#name,
        card,
        isWriting: card !== null && at!.matches("textarea"),
      };
      this.#socket.send(JSON.stringify(visit));
    }, JOIN_MS);
  };

  #show(): void {
    const people = new Map<string, Visit>();
    const tags = new Map<string, string>();
    for (const visit of this.#visits.values()) {
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
    this.element.hidden = all.length === 0;
    this.element.replaceChildren(
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
        const isBack = [...this.#visits.values()]
          .some((visit) => visit.device === device);
        if (isBack || !this.#known.delete(device)) return;
        voice.say(`${name} has left`);
      }, LEAVE_MS);
    }
  }
}
