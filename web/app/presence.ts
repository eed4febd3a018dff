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
import type { Device } from "./device.ts";
import { h } from "./dom.ts";
import type { Place } from "./names.ts";
import type { People, PeopleParts } from "./people.ts";
import { PERSON_LENGTH_MAX, type Visit } from "./visit.ts";

/** Milliseconds until another attempt to connect. */
const RETRY_MS = 5_000;

/** Milliseconds for which moves of the focus are joined. */
const JOIN_MS = 150;

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
export interface PresenceParts extends PeopleParts {
  /** Place that the page shows. */
  readonly place: Place;
  /** Device of the page, whose plug is the plug of this, too. */
  readonly device: Pick<Device, "plug" | "logDB" | "tabs">;
  /** Part of the page with the cards. */
  readonly board: HTMLElement;
}

/** Presence at a board. */
export class Presence {
  /** Badges of the people who are here. */
  readonly element = h("ul", {
    className: "people",
    ariaLabel: "Also here",
    hidden: true,
  });
  readonly #parts: PresenceParts;
  readonly #self: string;
  /** Visits of other pages as they were received, by the number that the server has given them. */
  readonly #visits = new Map<number, unknown>();
  #people: People | undefined;
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
      if (visit === null || visit === undefined) this.#visits.delete(id);
      else this.#visits.set(id, visit);
      // Never rejects: what is not loaded is not shown.
      void this.#show();
    };
    socket.onclose = (): void => {
      this.#socket = undefined;
      this.#visits.clear();
      // Never rejects, as above.
      void this.#show();
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

  /** Shows the others; what does it is loaded when the first one comes. */
  async #show(): Promise<void> {
    try {
      if (this.#people === undefined) {
        if (this.#visits.size === 0) return;
        const { People } = await import("./people.ts");
        this.#people ??= new People(this.#parts, this.#self, this.element);
      }
      this.#people.show([...this.#visits.values()]);
    } catch {
      // Not on this device yet, and the network is gone: so are they.
    }
  }
}
