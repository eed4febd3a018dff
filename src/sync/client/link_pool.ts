/**
 * Pool of the links of one client: one link, or more if it has more clusters open
 * than a server serves on one connection.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SYNC_CHANNELS_MAX, SYNC_LINKS_MAX } from "../../limits.ts";
import { Link, type LinkOptions, type LinkState } from "./link.ts";

/** Ranks of link states: the worst has the highest. */
const RANKS: Readonly<Record<LinkState, number>> = {
  "connected": 0,
  "connecting": 1,
  "offline": 2,
  "forbidden": 3,
  "needs-auth": 4,
};

/** Links of one client; the first one always exists. */
export class LinkPool {
  readonly #options: LinkOptions;
  readonly #links: Link[];
  /** Clusters that the server serves on one connection, as far as is known. */
  #perLink = SYNC_CHANNELS_MAX;

  /** Creates a pool whose links have the same options. */
  constructor(options: LinkOptions) {
    this.#options = options;
    this.#links = [new Link(options)];
  }

  /** Link in the worst state, the first of equals. */
  get worst(): Link {
    return this.#links.reduce((worst, link) =>
      RANKS[link.state] > RANKS[worst.state] ? link : worst
    );
  }

  /** Returns a link with room for one more cluster; undefined if all `SYNC_LINKS_MAX` links are full. */
  take(): Link | undefined {
    const roomy = this.#links.find(({ size }) => size < this.#perLink);
    if (roomy !== undefined || this.#links.length >= SYNC_LINKS_MAX) {
      return roomy;
    }
    const link = new Link(this.#options);
    this.#links.push(link);
    return link;
  }

  /** Records that the server serves at most `count` clusters on one connection. */
  learn(count: number): void {
    this.#perLink = Math.max(1, Math.min(this.#perLink, count));
  }

  /** Closes a link without clusters, unless it is the first. */
  left(link: Link): void {
    const at = this.#links.indexOf(link);
    if (at < 1 || link.size > 0) return;
    this.#links.splice(at, 1);
    link.close();
  }

  /** Reconnects each link at once. */
  reconnect(): void {
    for (const link of this.#links) link.reconnect();
  }

  /** Closes all links; idempotent. */
  close(): void {
    for (const link of this.#links) link.close();
  }
}
