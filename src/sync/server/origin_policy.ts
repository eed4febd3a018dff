/**
 * Web origins and host names by which a server may be used.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { describe } from "../../describe.ts";
import { wrongOption } from "./option_checks.ts";

/**
 * Decides which web pages may use a server: those of the configured origins, by
 * default those of its own host and port.
 *
 * With DNS rebinding, a page under any name can resolve that name to the server's
 * address, and is then of the same host and port. A server without credentials that
 * are bound to a name therefore accepts requests by IP address, by its own
 * `hostname`, and by the names of the configured origins. On a loopback address it
 * accepts them by loopback names only.
 */
export class OriginPolicy {
  readonly #origins: ReadonlySet<string> | undefined;
  /** Accepted host names besides those that cannot be rebound; undefined for any name. */
  readonly #names: ReadonlySet<string> | undefined;
  readonly #isLocal: boolean;

  /**
   * Creates the policy for the origins, if they are given. `hostname` is the name
   * the server listens on, undefined if names need no check, as with TLS;
   * `isAuthenticated` is true if the server requires credentials.
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

  /** True if a request is not from a page, or from a page that may use the server. */
  allow(request: Request): boolean {
    const target = new URL(request.url);
    // HTTP/2 requests have no Host header.
    const host = request.headers.get("host") ?? target.host;
    const origin = request.headers.get("origin");
    if (origin === null) {
      // Not a page, so `authenticate` decides alone; or a page whose browser takes
      // the request for one to its own host.
      return this.#accepts(host);
    }
    const page = originOf(origin);
    if (page === undefined) return false;
    if (this.#origins !== undefined) return this.#origins.has(page);
    const { protocol } = new URL(page);
    // A proxy may terminate TLS, so the page's scheme counts. A page without TLS may
    // not use a server with TLS: anyone on the network may have served it.
    return URL.parse(`${protocol}//${host}`)?.origin === page &&
      this.#accepts(host) &&
      (target.protocol !== "https:" || protocol === "https:");
  }

  /** True if a host name cannot be rebound, or is one of the accepted names. */
  #accepts(host: string): boolean {
    if (this.#names === undefined) return true;
    const name = nameIn(`http://${host}`);
    if (name === undefined) return false;
    return isLoopback(name) || this.#names.has(name) ||
      (!this.#isLocal && isAddress(name));
  }
}

/** Schemes that no page is loaded from. */
const PAGELESS = ["ws:", "wss:", "ftp:", "file:", "data:", "blob:"];

/** Origin in the form that browsers send, from one in any spelling; undefined if the text is not an origin. */
export function originOf(text: string): string | undefined {
  // `URL.parse()` alone accepts other spellings, and more than an origin.
  if (!/^[a-z][a-z0-9+.-]*:\/\/[^/?#\\@*\s]+\/?$/i.test(text)) return undefined;
  const url = URL.parse(text);
  if (url === null || url.host === "" || PAGELESS.includes(url.protocol)) {
    return undefined;
  }
  // The platform's origin for a scheme it does not know is "null".
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

/** Host name or address in the form of URLs, IPv6 addresses in brackets; undefined if the text is neither. */
export function nameOf(hostname: string): string | undefined {
  const bare = /^\[.*\]$/.test(hostname) ? hostname.slice(1, -1) : hostname;
  const name = bare.includes(":") ? `[${bare}]` : bare;
  if (/[\s/?#@\\]/.test(name)) return undefined;
  return nameIn(`http://${name}`);
}

/** True if a host name in the form of URLs is an IP address. */
function isAddress(name: string): boolean {
  return name.startsWith("[") || /^\d+(\.\d+){3}$/.test(name);
}

/** True if a host name in the form of URLs resolves to the loopback interface on every machine. */
function isLoopback(name: string): boolean {
  return name === "[::1]" || /^127(\.\d+){3}$/.test(name) ||
    /^(.+\.)?localhost\.?$/.test(name);
}
