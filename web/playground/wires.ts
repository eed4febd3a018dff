/**
 * The links between log and replicas, with the messages on them.
 *
 * @module
 */

import { create } from "./elements.ts";
import type { Packet } from "./network.ts";
import type { World } from "./world.ts";

/** Height of a message, in pixels. */
const PACKET_PX = 24;

/** True if a message is drawn. */
function isDrawn({ kind, direction }: Packet): boolean {
  return kind === "hash" ? direction === "up" : kind !== "control";
}

/** Messages of a world. */
export class Wires {
  readonly #wires: readonly HTMLElement[];
  readonly #drawn = new Map<Packet, HTMLElement>();
  readonly #stills = matchMedia("(prefers-reduced-motion: reduce)");

  /** Draws into an element with one child for each replica. */
  constructor(element: HTMLElement) {
    this.#wires = [...element.children] as HTMLElement[];
  }

  /** Draws the messages of a world at a simulated time, in milliseconds. */
  update(world: World, now: number): void {
    const live = new Set<Packet>();
    world.replicas.forEach(({ link, name }, i) => {
      const wire = this.#wires[i]!;
      wire.className = `wire ${name.toLowerCase()}${
        link.isCut ? " cut" : link.isSlow ? " slow" : ""
      }`;
      const height = wire.clientHeight - PACKET_PX;
      for (const packet of link.packets) {
        if (!isDrawn(packet)) continue;
        live.add(packet);
        this.#place(packet, wire, height, now);
      }
    });
    for (const [packet, element] of this.#drawn) {
      if (live.has(packet)) continue;
      element.remove();
      this.#drawn.delete(packet);
    }
  }

  #place(
    packet: Packet,
    wire: HTMLElement,
    height: number,
    now: number,
  ): void {
    const { kind, direction, label, sentAt, arrivesAt, lostAt } = packet;
    let element = this.#drawn.get(packet);
    if (element === undefined) {
      element = create(
        "div",
        `packet ${direction} ${kind}`,
        kind === "hash" ? "" : label,
      );
      this.#drawn.set(packet, element);
      wire.append(element);
    }
    element.classList.toggle("lost", lostAt !== undefined);
    const at = lostAt ?? now;
    const part = this.#stills.matches
      ? 0.5
      : Math.min(1, Math.max(0, (at - sentAt) / (arrivesAt - sentAt)));
    const y = (direction === "down" ? part : 1 - part) * height;
    element.style.transform = `translateY(${y.toFixed(1)}px)`;
  }
}
