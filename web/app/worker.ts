/**
 * Service worker of the demo: caches the page's files, so that it opens without
 * a network. The page's data is in its replica.
 *
 * This module runs in a browser.
 *
 * @module
 */

/** Part of a service worker's global scope; the type library of pages lacks it. */
interface Scope {
  readonly location: Location;
  readonly clients: { claim(): Promise<void> };
  readonly registration: { readonly active: unknown };
  skipWaiting(): Promise<void>;
  addEventListener<T extends Event>(
    type: string,
    listener: (event: T) => void,
  ): void;
}

interface Extendable extends Event {
  waitUntil(promise: Promise<unknown>): void;
}

interface Fetching extends Extendable {
  readonly request: Request;
  respondWith(response: Promise<Response>): void;
}

const scope = globalThis as unknown as Scope;
const CACHE = "sampan-app";
const PAGE = "./";
/**
 * Scripts, whose names change with their content: the server puts them here. The
 * page loads the first one at once, and the others when it needs them.
 */
const SCRIPTS = "app.js".split(" ");

scope.addEventListener<Extendable>("install", (event) => {
  event.waitUntil(install().then(() => scope.skipWaiting()));
});

async function install(): Promise<void> {
  const cache = await caches.open(CACHE);
  await cache.addAll([PAGE, SCRIPTS[0]!]);
  // A device that has an older version has all of it: it gets all of the newer one,
  // too, as there may be no network at its next visit.
  if (scope.registration.active !== null) await keepRest();
}

scope.addEventListener<Extendable>("activate", (event) => {
  event.waitUntil(removeOld().then(() => scope.clients.claim()));
});

// The only message of the page: that its visit has lasted a while.
scope.addEventListener<Extendable>("message", (event) => {
  event.waitUntil(keepRest());
});

function isScript(url: string): boolean {
  const { pathname } = new URL(url);
  return SCRIPTS.some((script) => pathname.endsWith(`/${script}`));
}

/** Removes the scripts of older versions. */
async function removeOld(): Promise<void> {
  const cache = await caches.open(CACHE);
  for (const request of await cache.keys()) {
    const { pathname } = new URL(request.url);
    if (pathname.endsWith(".js") && !isScript(request.url)) {
      await cache.delete(request);
    }
  }
}

scope.addEventListener<Fetching>("fetch", (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  if (request.method !== "GET" || origin !== scope.location.origin) return;
  if (pathname === new URL(PAGE, scope.location.href).pathname) {
    event.respondWith(fresh(request));
    // A first visit transfers only what it needs, until it has lasted a while.
    event.waitUntil(keepRest());
  } else if (isScript(request.url)) event.respondWith(kept(request));
});

/** From the network, so that a new version is seen; without one, what was cached. */
async function fresh(request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request);
    // One page for all boards.
    if (response.ok) await cache.put(PAGE, response.clone());
    return response;
  } catch (error) {
    const found = await cache.match(PAGE);
    if (found === undefined) throw error;
    return found;
  }
}

/** From the cache, as its content never changes; else from the network, and then into the cache. */
async function kept(request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  const found = await cache.match(request);
  if (found !== undefined) return found;
  const response = await fetch(request);
  if (response.ok) await cache.put(request, response.clone());
  return response;
}

/** Fetches the scripts that the page may need later. */
async function keepRest(): Promise<void> {
  const cache = await caches.open(CACHE);
  for (const script of SCRIPTS) {
    if (await cache.match(script) !== undefined) continue;
    // Without a network, the next visit tries again.
    await cache.add(script).catch(() => {});
  }
}
