/**
 * HTTP and WebSocket server of a host's clusters.
 *
 * This module needs Deno.
 *
 * @module
 */

import type { NodeHost } from "../../nodehost/node_host.ts";
import { abortable, onAbort, timeLimit, withResolvers } from "../../async.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import { ErrHookFailed } from "../errors.ts";
import { CloseCode, SERVER_HEADER, socketTransport } from "../transport.ts";
import { Core } from "./core.ts";
import {
  type Check,
  checkNames,
  checkOptions,
  type Checks,
  copyOptions,
  CORE_CHECKS,
  isBoolean,
  isCount,
  isFunction,
  isSignal,
  wrongOption,
} from "./option_checks.ts";
import { methodNotAllowed, share, urlOf } from "./http_responses.ts";
import { handle, ORIGIN_NOT_ALLOWED, type Route } from "./http.ts";
import { RestartingListener } from "./restarting_listener.ts";
import type { CoreOptions } from "./options.ts";
import { nameOf, OriginPolicy } from "./origin_policy.ts";
import type { Counts } from "./telemetry.ts";

/** Options of {@linkcode serve}. */
export interface ServeOptions extends CoreOptions {
  /**
   * Name or address to listen on; `0.0.0.0` or `::` for every address of the
   * machine. An IPv6 address may be written with or without brackets.
   *
   * @default {"127.0.0.1"}
   */
  readonly hostname?: string | undefined;
  /**
   * Port to listen on; 0 for a free one.
   *
   * @default {0}
   */
  readonly port?: number | undefined;
  /**
   * Certificate chain of the server, as PEM text: with it and its key, the server
   * speaks TLS only. A Deno client accepts a certificate of a private authority
   * that is named in `DENO_CERT`.
   */
  readonly cert?: string | undefined;
  /** Private key of the certificate, as PEM text. */
  readonly key?: string | undefined;
  /**
   * Base path of all URLs of the server: with `"/app"`, clients connect to
   * `/app/sync` (or to `/app`), `/app/health` reports its health, and
   * `/app/clusters/{id}/snapshot` exports a cluster. For a server behind a proxy
   * that passes on paths unchanged. `url` and `httpURL` include it.
   *
   * @default {"/"}
   */
  readonly path?: string | undefined;
  /**
   * Origins whose pages may connect, each as `scheme://host` or
   * `scheme://host:port`, such as `https://app.example`; by default those of the
   * same host and port as the server.
   *
   * With DNS rebinding, a page under any name can resolve that name to the server's
   * address. So a server without TLS accepts requests of pages only by its
   * `hostname`, by IP addresses, by loopback names (`localhost`, `*.localhost`) and
   * by the names of these origins; with an `authenticate` hook by any name, unless
   * it listens on a loopback address: there it accepts only loopback names and the
   * names of these origins. Behind a proxy that passes on the `Host` header, set the
   * public origin here.
   */
  readonly origins?: readonly string[] | undefined;
  /** Called with each request that the server does not handle itself, for example to serve the pages of the application. If it throws, or returns anything but a `Response`, the client gets 500 and the fault is logged. */
  readonly fetch?: ((request: Request) => MaybePromise<Response>) | undefined;
  /** Shuts the server down when it aborts. */
  readonly signal?: AbortSignal | undefined;
  /**
   * True if SIGTERM shuts the server down. The process exits once nothing keeps it
   * running: stop the host once `finished` has resolved.
   *
   * @default {true}
   */
  readonly sigterm?: boolean | undefined;
}

/** Running server. */
export interface Server extends AsyncDisposable {
  /** URL that clients connect to: `ws://…/sync`, or `wss://…/sync` with a certificate; a base path comes before `/sync`. */
  readonly url: string;
  /** Base URL of everything else, with a slash at its end: `http://…/`, or `https://…/` with a certificate; it includes the base path. */
  readonly httpURL: string;
  /** Counters since the start; the same are exported to OpenTelemetry. */
  readonly counts: Readonly<Counts>;
  /**
   * Resolves once the server has stopped. A listener that ends by itself, because
   * the process has no file descriptor left, does not stop the server: the event is
   * logged (`listener ended`), and the listener is restarted on the same port, with
   * backoff.
   */
  readonly finished: Promise<void>;
  /** Accepts no new work, waits for appends and requests in progress, closes every connection, and resolves once that is done; idempotent. */
  shutdown(): Promise<void>;
}

/**
 * Serves the clusters of a host to pages and to other hosts: over WebSockets at
 * `/sync`, with `GET /health` for monitoring, and `/clusters/{id}/snapshot` to
 * export (`GET`) and import (`PUT`) a cluster.
 *
 * ```ts
 * import { KVStateMachine, NodeHost } from "../../../mod.ts";
 * import { serve } from "../mod.ts";
 *
 * await using host = new NodeHost();
 * await host.startCluster(() => new KVStateMachine(), {
 *   clusterID: 1n,
 *   nodeID: 1n,
 * });
 * await using server = serve(host, {
 *   authenticate: (request) =>
 *     request.headers.get("authorization") === "Bearer a secret"
 *       ? { id: "ann" }
 *       : undefined,
 * });
 * const response = await fetch(new URL("health", server.httpURL));
 * console.log(await response.json()); // { status: "ok", connections: 0 }
 * ```
 *
 * Several servers may serve one host, for example one for an internal network and
 * one for the public with TLS and `authenticate`: each has its own limits.
 *
 * @throws TypeError if an option is invalid: the message has the option, the value, and what to write instead
 * @throws Deno.errors.AddrInUse if the port is in use
 * @throws Deno.errors.InvalidData if the certificate or the key is invalid
 */
export function serve(host: NodeHost, given: ServeOptions = {}): Server {
  checkOptions(given, SERVE_CHECKS);
  checkNames(given, SERVE_CHECKS);
  const options = copyOptions(given, SERVE_CHECKS);
  const { cert, key } = options;
  if ((cert === undefined) !== (key === undefined)) {
    const [is, isNot] = cert === undefined ? ["key", "cert"] : ["cert", "key"];
    throw new TypeError(
      `Option ${is} is set and ${isNot} is not; TLS requires both, as PEM text`,
    );
  }
  const core = new Core(host, options);
  let listener: Listener;
  try {
    listener = new Listener(core, options);
  } catch (error) {
    core.close();
    throw error;
  }
  const { finished, shutdown } = stopping(
    core,
    options,
    () => listener.close(),
  );
  const { address, base } = listener;
  core.telemetry.attributes = {
    "server.address": listener.name,
    "server.port": listener.port,
  };
  const s = cert === undefined ? "" : "s";
  core.log.write({ level: "info", event: "listening", reason: address });
  return {
    url: `ws${s}://${address}${base}/sync`,
    httpURL: `http${s}://${address}${base}/`,
    counts: core.telemetry.counts,
    finished,
    shutdown,
    [Symbol.asyncDispose]: shutdown,
  };
}

const isPEM: Check = (name, value) => {
  if (typeof value === "string" && value !== "") return;
  // The value may be a secret, so the message does not show it.
  throw new TypeError(`Option ${name} is not PEM text; write it as a string`);
};

/** Checks of {@linkcode ServeOptions}. */
const SERVE_CHECKS: Checks<ServeOptions> = {
  ...CORE_CHECKS,
  hostname: (name, value) => {
    if (typeof value === "string" && nameOf(value) !== undefined) return;
    throw wrongOption(
      name,
      value,
      'write a host name or an IP address alone, such as "127.0.0.1"; the port has an option of its own',
    );
  },
  port: isCount(0, 65_535),
  cert: isPEM,
  key: isPEM,
  path: (name, value) => {
    if (typeof value === "string" && baseOf(value) !== undefined) return;
    throw wrongOption(
      name,
      value,
      'write a path that begins with a slash, such as "/app", percent-encoded as in a URL, without a query',
    );
  },
  // The constructor checks each origin.
  origins: (_name, value) =>
    void new OriginPolicy(value as string[], undefined),
  fetch: isFunction,
  signal: isSignal,
  sigterm: isBoolean,
};

/** Base path without a slash at its end; undefined if the text is not a path. */
function baseOf(path: string): string | undefined {
  const base = path.replace(/\/$/, "");
  if (base === "") return path === "/" ? "" : undefined;
  // Paths of requests are normalized and percent-encoded: others never match.
  const url = URL.parse(`http://localhost${base}`);
  return /^(?:\/[^/?#\\]+)+$/.test(base) && url?.pathname === base
    ? base
    : undefined;
}

/** HTTP listener of one server, which routes its requests. */
class Listener {
  /** Name or address of the listener in the form of URLs. */
  readonly name: string;
  /** Base path of the server, without a slash at its end. */
  readonly base: string;
  readonly #core: Core;
  readonly #options: ServeOptions;
  readonly #origins: OriginPolicy;
  readonly #server: RestartingListener;
  readonly #abort = new AbortController();
  /** Requests in progress. */
  readonly #active = new Set<Promise<void>>();
  #isClosed = false;

  /** Starts a listener at the address in `options`. */
  constructor(core: Core, options: ServeOptions) {
    this.#core = core;
    this.#options = options;
    const { hostname = "127.0.0.1", port = 0, cert, key, origins } = options;
    this.name = nameOf(hostname)!;
    this.base = baseOf(options.path ?? "/")!;
    // With TLS, a browser accepts only names that are in the certificate.
    this.#origins = new OriginPolicy(
      origins,
      cert === undefined ? hostname : undefined,
      options.authenticate !== undefined,
    );
    const listen = (port: number): Deno.HttpServer<Deno.NetAddr> =>
      Deno.serve({
        hostname: this.name.replace(/^\[|\]$/g, ""),
        port,
        ...(cert === undefined ? {} : { cert }),
        ...(key === undefined ? {} : { key }),
        signal: this.#abort.signal,
        onListen(): void {},
        onError: (error): Response => {
          const event = error instanceof ErrHookFailed
            ? `${error.hook} failed`
            : "request failed";
          core.log.write({ level: "error", event, error });
          return new Response("Server has failed\n", { status: 500 });
        },
      }, (request, info) => this.#respond(request, info));
    this.#server = new RestartingListener({
      env: core.env,
      listen,
      port,
      ended: (error) =>
        core.log.write({ level: "error", event: "listener ended", error }),
      resumed: () =>
        core.log.write({ level: "info", event: "listening again" }),
    });
    core.isListening = (): boolean => this.#server.isListening;
    core.memory = (): { rss: number; heap: number } => {
      const { rss, heapUsed } = Deno.memoryUsage();
      return { rss, heap: heapUsed };
    };
  }

  /** Port of the listener. */
  get port(): number {
    return this.#server.port;
  }

  /** Host and port to connect to. */
  get address(): string {
    // Clients cannot connect to the wildcard address.
    const isAny = this.name === "0.0.0.0" || this.name === "[::]";
    return `${isAny ? "localhost" : this.name}:${this.port}`;
  }

  #respond(
    request: Request,
    { completed, remoteAddr }: Deno.ServeHandlerInfo<Deno.NetAddr>,
  ): MaybePromise<Response> {
    if (this.#isClosed) {
      return new Response("Server is stopping; try again later\n", {
        status: 503,
      });
    }
    const active = completed.catch(() => {}).finally(() =>
      this.#active.delete(active)
    );
    this.#active.add(active);
    const url = urlOf(request);
    if (url === undefined) {
      return malformed(
        this.#core,
        "Request target or Host header is malformed",
      );
    }
    const pathname = this.#relative(url.pathname);
    const route = { pathname, address: remoteAddr.hostname };
    return respond(
      this.#core,
      this.#options,
      this.#origins,
      request,
      route,
    );
  }

  /** Path without the base path; `/` for a path outside of it. The base path itself stands for `/sync`. */
  #relative(pathname: string): string {
    const { base } = this;
    if (base === "") return pathname;
    if (pathname === base || pathname === `${base}/`) return "/sync";
    return pathname.startsWith(`${base}/`) ? pathname.slice(base.length) : "/";
  }

  /** Stops listening once the requests in progress are answered; after `shutdownMs` they are aborted. */
  async close(): Promise<void> {
    const { env, limits: { shutdownMs } } = this.#core;
    const { signal, release } = timeLimit(
      env,
      shutdownMs,
      `${this.#active.size} requests were not answered`,
    );
    try {
      while (this.#active.size > 0) {
        await abortable(Promise.race(this.#active), signal);
      }
    } catch {
      // Aborting after `shutdown()` would throw an uncaught error.
      this.#server.stop();
      this.#abort.abort();
    }
    this.#isClosed = true;
    const ended = this.#abort.signal.aborted
      ? this.#server.finished
      : this.#server.shutdown();
    // A connection that has sent half of a request can delay the shutdown.
    await abortable(ended, signal).catch(() => this.#server.unref());
    release();
  }
}

/** Response to a malformed request. It is counted but not logged: any client can cause any number of them. */
function malformed(core: Core, reason: string): Response {
  core.telemetry.counts.malformed++;
  return new Response(`${reason}\n`, { status: 400 });
}

function respond(
  core: Core,
  options: ServeOptions,
  origins: OriginPolicy,
  request: Request,
  route: Route,
): MaybePromise<Response> {
  if (route.pathname === "/sync") return sync(core, request, origins, route);
  const { fetch } = options;
  return handle(core, request, origins, route) ??
    (fetch === undefined
      ? new Response("Not found\n", { status: 404 })
      : core.hooks.fetch(request, fetch));
}

function sync(
  core: Core,
  request: Request,
  origins: OriginPolicy,
  route: Route,
): Response {
  const isUpgrade = request.headers.get("upgrade")?.toLowerCase().split(",")
    .some((protocol) => protocol.trim() === "websocket");
  if (isUpgrade) return upgrade(core, request, origins, route);
  const response = request.method === "GET" || request.method === "HEAD"
    ? notUpgraded(core, request, origins)
    : methodNotAllowed(request, ["GET", "HEAD"]);
  return share(response, request, origins);
}

/** Response that tells a client which cannot connect that this is a Sampan server. */
function notUpgraded(
  core: Core,
  request: Request,
  origins: OriginPolicy,
): Response {
  if (!origins.allow(request)) {
    return new Response(`${ORIGIN_NOT_ALLOWED}\n`, { status: 403 });
  }
  const { first, last } = core.versions;
  return new Response("Connect here with a WebSocket\n", {
    status: 426,
    headers: { upgrade: "websocket", [SERVER_HEADER]: `${first}-${last}` },
  });
}

function upgrade(
  core: Core,
  request: Request,
  origins: OriginPolicy,
  { address }: Route,
): Response {
  // A request must not be used after its upgrade.
  const { url, headers } = request;
  const begun = { url, headers: new Headers(headers), address };
  // Every WebSocket of a browser has an Origin header.
  const origin = headers.get("origin");
  const isAllowed = origin === null || origins.allow(request);
  let upgraded: Deno.WebSocketUpgrade;
  try {
    // The protocol has its own heartbeat, which pages can observe.
    upgraded = Deno.upgradeWebSocket(request, { idleTimeout: 0 });
  } catch {
    return malformed(core, "Handshake of the WebSocket is malformed");
  }
  const { socket, response } = upgraded;
  const transport = socketTransport(socket);
  if (isAllowed) core.accept(transport, begun);
  else {
    // A browser hides from its page why a handshake was rejected.
    core.refuse(
      transport,
      CloseCode.Forbidden,
      `Pages of ${origin} are not allowed: see the option origins of this server`,
    );
  }
  return response;
}

/** Shutdown of a server, by a call, a signal or SIGTERM. */
function stopping(
  core: Core,
  { signal, sigterm = true }: ServeOptions,
  endListener: () => Promise<void>,
): Pick<Server, "finished" | "shutdown"> {
  const { promise: finished, resolve, reject } = withResolvers<void>();
  let isStopping = false;
  const shutdown = (): Promise<void> => {
    if (!isStopping) {
      isStopping = true;
      stop().then(resolve, reject);
    }
    return finished;
  };
  const onSignal = (): void => void shutdown();
  const stop = async (): Promise<void> => {
    if (sigterm) Deno.removeSignalListener("SIGTERM", onSignal);
    ignore();
    await core.stop();
    await endListener();
  };
  if (sigterm) Deno.addSignalListener("SIGTERM", onSignal);
  let ignore = (): void => {};
  ignore = onAbort(signal, onSignal);
  return { finished, shutdown };
}
