/**
 * The service worker: keeps the page itself, so that it also opens with no
 * network. What the page shows, it has from its own replica.
 *
 * This module runs in a browser.
 *
 * @module
 */

/** What of the scope of a service worker is used here; the types of pages do not have it. */
interface Scope {
  readonly location: Location;
  readonly clients: { claim(): Promise<void> };
  skipWaiting(): Promise<void>;
  addEventListener<T extends Event>(
    type: string,
    listener: (event: T) => void,
  ): void;
}

interface Extendable extends Event {
  waitUntil(promise: Promise<unknown>): void;
}

interface Fetching extends Event {
  readonly request: Request;
  respondWith(response: Promise<Response>): void;
}

const scope = globalThis as unknown as Scope;
const CACHE = "sampan-app";
const SHELL = ["./", "app.js"];

scope.addEventListener<Extendable>("install", (event) => {
  event.waitUntil(
    caches.open(CACHE).then((cache) => cache.addAll(SHELL))
      .then(() => scope.skipWaiting()),
  );
});

scope.addEventListener<Extendable>("activate", (event) => {
  event.waitUntil(scope.clients.claim());
});

scope.addEventListener<Fetching>("fetch", (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  const isShell = request.method === "GET" &&
    origin === scope.location.origin &&
    (pathname === "/" || pathname === "/app.js");
  if (isShell) event.respondWith(fresh(request));
});

/** From the network, so that a new version is seen; without one, what was kept. */
async function fresh(request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request);
    if (response.ok) await cache.put(request, response.clone());
    return response;
  } catch (error) {
    const kept = await cache.match(request, { ignoreSearch: true });
    if (kept === undefined) throw error;
    return kept;
  }
}
