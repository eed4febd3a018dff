/**
 * Decides which pages may talk to a server, and by which names it may be asked.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { describe } from "../../describe.ts";
import { wrongOption } from "./option_checks.ts";

/**
 * OriginPolicy that may talk to a server: those of the given origins, by default those
 * of its own host and port.
 *
 * A page of any name reaches a server once its name leads to the server's address
 * (DNS rebinding), and then is of the same host and port. So a server that asks
 * for no credentials which are bound to a name takes requests only by addresses,
 * which lead nowhere else, by its own `hostname`, and by the names of the given
 * origins. On a loopback address it takes them only by loopback names.
 */
export class OriginPolicy {
  readonly #origins: ReadonlySet<string> | undefined;
  /** Names it may be asked by, besides those that no page can take; undefined for any. */
  readonly #names: ReadonlySet<string> | undefined;
  readonly #isLocal: boolean;

  /**
   * The pages from `origins`, if there are any. `hostname` is where the server
   * listens, undefined if names need no check, as with TLS; `isAuthenticated` is
   * true if the server asks for credentials.
   *
   * @throws TypeError if a text is not an origin
   */
  constructor(
    origins: readonly string[] | undefined,
    hostname: string | undefined,
    isAuthenticated = true,
  ) {
    const known = origins === undefined ? undefined : originsOf(origins);
    this.#origins = known && new Set(known);
    const name = hostname === undefined ? undefined : nameOf(hostname);
    this.#isLocal = name !== undefined && isLoopback(name);
    if (name === undefined || (isAuthenticated && !this.#isLocal)) return;
    this.#names = new Set([
      name,
      ...(known ?? []).map((origin) => nameIn(origin)!),
    ]);
  }

  /** True if the page that asks, if it is one, may do so. */
  allow(request: Request): boolean {
    const asked = new URL(request.url);
    // The header, where there is one: HTTP/2 has none.
    const host = request.headers.get("host") ?? asked.host;
    const origin = request.headers.get("origin");
    if (origin === null) {
      // Not a page, and `authenticate` decides alone; or one that asks its own host,
      // as it believes.
      return this.#knows(host);
    }
    const page = originOf(origin);
    if (page === undefined) return false;
    if (this.#origins !== undefined) return this.#origins.has(page);
    const { protocol } = new URL(page);
    // A proxy in front may speak TLS without this server knowing. A page without TLS
    // is not of a server with TLS: anyone on the network may have put it there.
    return URL.parse(`${protocol}//${host}`)?.origin === page &&
      this.#knows(host) &&
      (asked.protocol !== "https:" || protocol === "https:");
  }

  /** True if no page can have made this name lead here, or the server was told of it. */
  #knows(host: string): boolean {
    if (this.#names === undefined) return true;
    const name = nameIn(`http://${host}`);
    if (name === undefined) return false;
    return isLoopback(name) || this.#names.has(name) ||
      (!this.#isLocal && isAddress(name));
  }
}

/** Schemes of URLs that no page is of. */
const PAGELESS = ["ws:", "wss:", "ftp:", "file:", "data:", "blob:"];

/** An origin as browsers send it, from what a person may write for it; undefined if the text is not an origin. */
export function originOf(text: string): string | undefined {
  // Without it, a URL takes other spellings and more than an origin.
  if (!/^[a-z][a-z0-9+.-]*:\/\/[^/?#\\@*\s]+\/?$/i.test(text)) return undefined;
  const url = URL.parse(text);
  if (url === null || url.host === "" || PAGELESS.includes(url.protocol)) {
    return undefined;
  }
  // That of a scheme which the platform does not know is "null".
  return url.origin === "null"
    ? `${url.protocol}//${url.host}`.toLowerCase()
    : url.origin;
}

function originsOf(origins: readonly string[]): readonly string[] {
  const remedy = 'write an array such as ["https://app.example"]';
  if (!Array.isArray(origins)) throw wrongOption("origins", origins, remedy);
  return origins.map((origin: unknown) => {
    const known = typeof origin === "string" ? originOf(origin) : undefined;
    if (known !== undefined) return known;
    throw new TypeError(
      `Option origins has ${
        describe(origin)
      }, which is not an origin; write each as scheme://host or scheme://host:port, without a path or a wildcard, such as "https://app.example"`,
    );
  });
}

function nameIn(url: string): string | undefined {
  return URL.parse(url)?.hostname.toLowerCase();
}

/** A host name or address as URLs have it, IPv6 addresses in brackets; undefined if the text is neither. */
export function nameOf(hostname: string): string | undefined {
  const bare = /^\[.*\]$/.test(hostname) ? hostname.slice(1, -1) : hostname;
  const name = bare.includes(":") ? `[${bare}]` : bare;
  if (/[\s/?#@\\]/.test(name)) return undefined;
  return nameIn(`http://${name}`);
}

/** True if a name, as a URL has it, is an IP address. */
function isAddress(name: string): boolean {
  return name.startsWith("[") || /^\d+(\.\d+){3}$/.test(name);
}

/** True if a name, as a URL has it, leads to this machine, on any machine. */
function isLoopback(name: string): boolean {
  return name === "[::1]" || /^127(\.\d+){3}$/.test(name) ||
    /^(.+\.)?localhost\.?$/.test(name);
}
