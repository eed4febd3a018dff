/**
 * Connections of one client: one, or as many as its clusters take, since a server
 * serves a bounded number of clusters on each.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SYNC_CHANNELS_MAX, SYNC_LINKS_MAX } from "../../limits.ts";
import { Link, type LinkOptions, type LinkState } from "./link.ts";

/** States of links, the worst with the highest rank. */
const RANKS: Readonly<Record<LinkState, number>> = {
  "connected": 0,
  "connecting": 1,
  "offline": 2,
  "forbidden": 3,
  "needs-auth": 4,
};

/** Links of one client, the first of which is always there. */
export class Links {
  readonly #options: LinkOptions;
  readonly #links: Link[];
  /** Clusters a server is known to serve on one connection. */
  #perLink = SYNC_CHANNELS_MAX;

  /** Links with the same options. */
  constructor(options: LinkOptions) {
    this.#options = options;
    this.#links = [new Link(options)];
  }

  /** The link that is farthest from being connected, the first of equals. */
  get worst(): Link {
    return this.#links.reduce((worst, link) =>
      RANKS[link.state] > RANKS[worst.state] ? link : worst
    );
  }

  /** A link with room for one more cluster; undefined if there are as many links, all of them full, as there may be. */
  take(): Link | undefined {
    const roomy = this.#links.find(({ size }) => size < this.#perLink);
    if (roomy !== undefined || this.#links.length >= SYNC_LINKS_MAX) {
      return roomy;
    }
    const link = new Link(this.#options);
    this.#links.push(link);
    return link;
  }

  /** Notes that the server serves no more clusters on a connection than `count`. */
  learn(count: number): void {
    this.#perLink = Math.max(1, Math.min(this.#perLink, count));
  }

  /** Ends a link that carries no cluster any more, unless it is the first. */
  left(link: Link): void {
    const at = this.#links.indexOf(link);
    if (at < 1 || link.size > 0) return;
    this.#links.splice(at, 1);
    link.close();
  }

  /** Tries to connect at once, on each link. */
  reconnect(): void {
    for (const link of this.#links) link.reconnect();
  }

  /** Ends all connections and the trying; idempotent. */
  close(): void {
    for (const link of this.#links) link.close();
  }
}
