/**
 * Which pages may talk to a server.
 *
 * This module is browser compatible.
 *
 * @module
 */

/**
 * Which pages may talk to a server: those it was told of, by default those of its
 * own host and port.
 *
 * A page of any name gets to a server on this machine once that name leads to
 * 127.0.0.1, and then is of the same host and port. So by such a name a server
 * that only this machine reaches is not to be asked, unless it was told of it.
 */
export class Pages {
  readonly #origins: readonly string[] | undefined;
  readonly #isLocal: boolean;

  /** The pages from `origins` if there are any; the server listens on `hostname`, if it is known. */
  constructor(
    origins: readonly string[] | undefined,
    hostname: string | undefined,
  ) {
    this.#origins = origins;
    const name = hostname?.includes(":") ? `[${hostname}]` : hostname;
    // As a URL has it: there are other ways to write it.
    this.#isLocal = name !== undefined &&
      isLoopback(URL.parse(`http://${name}`)?.hostname ?? name);
  }

  /** Whether a page, if it is one that asks, may do so. */
  allow(request: Request): boolean {
    const asked = new URL(request.url);
    // The header, where there is one: HTTP/2 has none.
    const host = request.headers.get("host") ?? asked.host;
    const origin = request.headers.get("origin");
    if (origin === null) {
      // No page asks, and `authenticate` judges it alone; or one that asks its own
      // host, as it believes.
      return !this.#isLocal || this.#knows(host);
    }
    if (this.#origins !== undefined) return this.#origins.includes(origin);
    const page = URL.parse(origin);
    // A proxy in front may speak TLS without this server knowing; that one without
    // it is none of a server's with it, whoever has put its page there.
    return page?.host === host && (!this.#isLocal || this.#knows(host)) &&
      (asked.protocol !== "https:" || page.protocol === "https:");
  }

  /** Whether it is asked by a name of this machine, or of a page it was told of. */
  #knows(host: string): boolean {
    const name = URL.parse(`http://${host}`)?.hostname;
    if (name === undefined) return false;
    return isLoopback(name) ||
      this.#origins?.some((origin) => URL.parse(origin)?.hostname === name) ===
        true;
  }
}

/** Whether a name, as a URL has it, leads to this machine whoever is asked. */
function isLoopback(name: string): boolean {
  return name === "[::1]" || /^127(\.\d+){3}$/.test(name) ||
    /^(.+\.)?localhost\.?$/.test(name);
}
