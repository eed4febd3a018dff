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
/** Script of the page, whose name changes with its content: the server puts it here. */
const SCRIPT = "app.js";

scope.addEventListener<Extendable>("install", (event) => {
  event.waitUntil(install().then(() => scope.skipWaiting()));
});

async function install(): Promise<void> {
  const cache = await caches.open(CACHE);
  await cache.addAll([PAGE, SCRIPT]);
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

/** Name of a file in a URL. */
function nameOf(url: string): string {
  return new URL(url).pathname.replace(/.*[/]/, "");
}

/** True for the script of a page, and for those that it loads when it needs them. Other versions have other names. */
function isScript(url: string): boolean {
  return /^(app|sampan)-.*[.]js$/.test(nameOf(url));
}

/**
 * Names of all scripts of the page: each has those of others that it loads when it
 * needs them. Those that are not in the cache are fetched, if that is wanted.
 */
async function scriptsOf(
  cache: Cache,
  fetching: boolean,
): Promise<ReadonlySet<string>> {
  const names = new Set([SCRIPT]);
  for (const name of names) {
    let found = await cache.match(name);
    if (found === undefined && fetching) {
      // Without a network, the next visit tries again.
      await cache.add(name).catch(() => {});
      found = await cache.match(name);
    }
    const others = (await found?.text())?.match(
      /sampan-[a-z-]+-[0-9a-f]+[.]js/g,
    );
    for (const other of others ?? []) names.add(other);
  }
  return names;
}

/** Removes the scripts of older versions. */
async function removeOld(): Promise<void> {
  const cache = await caches.open(CACHE);
  const names = await scriptsOf(cache, false);
  for (const request of await cache.keys()) {
    if (isScript(request.url) && !names.has(nameOf(request.url))) {
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
  await scriptsOf(await caches.open(CACHE), true);
}
