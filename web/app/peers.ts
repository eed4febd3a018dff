/**
 * Other servers on the log of this page's server, as the page names them.
 *
 * This module runs in a browser.
 *
 * @module
 */

/** Addresses of the other servers on the same log. */
export function peerURLs(): string[] {
  const names = document.querySelector<HTMLMetaElement>("meta[name=servers]");
  return names?.content.split(" ") ?? [];
}
