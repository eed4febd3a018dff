/**
 * The server on a port.
 *
 * This module needs Deno.
 *
 * @module
 */

import type { NodeHost } from "../../nodehost/node_host.ts";
import { abortable, onAbort, withResolvers } from "../../async.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import { ErrHookFailed } from "../errors.ts";
import { CloseCode, SERVER_HEADER, socketTransport } from "../transport.ts";
import { Core } from "./core.ts";
import {
  type Check,
  checkOptions,
  type Checks,
  copyOptions,
  CORE_CHECKS,
  isBoolean,
  isCount,
  isFunction,
  isSignal,
  refuseUnknown,
  wrongOption,
} from "./option_checks.ts";
import { methodNotAllowed, share, urlOf } from "./http_responses.ts";
import { handle, ORIGIN_NOT_ALLOWED, type Route } from "./http.ts";
import { RestartingListener } from "./restarting_listener.ts";
import type { CoreOptions } from "./options.ts";
import { nameOf, OriginPolicy } from "./origin_policy.ts";
import type { Counts } from "./telemetry.ts";

/** What a server takes besides the host it serves. */
export interface ServeOptions extends CoreOptions {
  /**
   * Name or address to listen on; `0.0.0.0` or `::` for every address of the
   * machine. An IPv6 address may be written with or without brackets.
   *
   * @default {"127.0.0.1"}
   */
  readonly hostname?: string | undefined;
  /**
   * The port to listen on; 0 for one that is free.
   *
   * @default {0}
   */
  readonly port?: number | undefined;
  /**
   * The certificate of the server and those that vouch for it, as PEM text: with
   * it, and its key, the server speaks TLS and nothing else. A Deno client takes
   * one that no public authority vouches for if told by `DENO_CERT`.
   */
  readonly cert?: string | undefined;
  /** The private key of the certificate, as PEM text. */
  readonly key?: string | undefined;
  /**
   * Base path of everything the server answers itself: with `"/app"`, clients
   * connect to `/app/sync` (or to `/app`), `/app/health` reports its health, and
   * `/app/clusters/{id}/snapshot` exports a cluster. For a server behind a proxy
   * that hands on a part of its paths as they are. `url` and `httpURL` have it.
   *
   * @default {"/"}
   */
  readonly path?: string | undefined;
  /**
   * Origins whose pages may connect, each as `scheme://host` or
   * `scheme://host:port`, such as `https://app.example`; by default those of the
   * same host and port as the server.
   *
   * A page of any name gets to a server once that name leads to its address (DNS
   * rebinding). So a server without TLS takes requests of pages only by its
   * `hostname`, by IP addresses, by loopback names (`localhost`, `*.localhost`) and
   * by the names of these origins; with an `authenticate`, by any name, unless it
   * listens on a loopback address. There it takes loopback names alone, besides the
   * names of these origins. Behind a proxy that passes the `Host` header on, name
   * the public origin here.
   */
  readonly origins?: readonly string[] | undefined;
  /** Called with each request that is not the server's own, to answer with the pages of the application, say. If it throws, or answers anything but a `Response`, the client gets 500 and the fault is logged. */
  readonly fetch?: ((request: Request) => MaybePromise<Response>) | undefined;
  /** Shuts the server down. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Whether SIGTERM shuts the server down. The program goes on until nothing is
   * left to do: stop the host once `finished` has resolved.
   *
   * @default {true}
   */
  readonly sigterm?: boolean | undefined;
}

/** A server that runs. */
export interface Server extends AsyncDisposable {
  /** URL that clients connect to: `ws://…/sync`, or `wss://…/sync` with a certificate; the base path, if there is one, before `/sync`. */
  readonly url: string;
  /** URL under which everything else is, with a slash at its end: `http://…/`, or `https://…/`, then the base path if there is one. */
  readonly httpURL: string;
  /** What was counted since it began; the same is exported by OpenTelemetry. */
  readonly counts: Readonly<Counts>;
  /**
   * Resolves once it has stopped. A listener that ends by itself, because the
   * process has no file descriptor left, does not stop the server: that is logged
   * (`listener ended`), and it listens again on the same port, with backoff.
   */
  readonly finished: Promise<void>;
  /** Takes nothing new, lets what is under way end, ends every connection, and resolves once that is done; idempotent (U40). */
  shutdown(): Promise<void>;
}

/**
 * Serves the clusters that are started on a host, to pages and to other hosts:
 * over WebSockets at `/sync`, `GET /health` for whoever watches it, and
 * `/clusters/{id}/snapshot` to export (`GET`) and import (`PUT`) a cluster.
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
 *       ? { id: "somebody" }
 *       : undefined,
 * });
 * const response = await fetch(new URL("health", server.httpURL));
 * console.log(await response.json()); // { status: "ok", connections: 0 }
 * ```
 *
 * Several servers may serve one host, say one for the pages inside and one, with
 * TLS and `authenticate`, for all the world: each has its own bounds.
 *
 * @throws TypeError if an option cannot be used: it names the option, the value, and what to write
 * @throws Deno.errors.AddrInUse if the port is taken
 * @throws Deno.errors.InvalidData if the certificate or the key is none
 */
export function serve(host: NodeHost, given: ServeOptions = {}): Server {
  checkOptions(given, SERVE_CHECKS);
  refuseUnknown(given, SERVE_CHECKS);
  const options = copyOptions(given, SERVE_CHECKS);
  const { cert, key } = options;
  if ((cert === undefined) !== (key === undefined)) {
    const [is, isNot] = cert === undefined ? ["key", "cert"] : ["cert", "key"];
    throw new TypeError(
      `Option ${is} is set and ${isNot} is not; TLS takes both, as PEM text`,
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
  // Its value may be a secret.
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
  // Each of them is looked at by `OriginPolicy`.
  origins: (_name, value) =>
    void new OriginPolicy(value as string[], undefined),
  fetch: isFunction,
  signal: isSignal,
  sigterm: isBoolean,
};

/** A base path without a slash at its end; undefined if it is no path. */
function baseOf(path: string): string | undefined {
  const base = path.replace(/\/$/, "");
  if (base === "") return path === "/" ? "" : undefined;
  // The URL of a request has neither `.` nor `..`, and nothing unencoded.
  const url = URL.parse(`http://localhost${base}`);
  return /^(?:\/[^/?#\\]+)+$/.test(base) && url?.pathname === base
    ? base
    : undefined;
}

/** HTTP listener of one server. */
class Listener {
  /** Name or address it listens on, as a URL has it. */
  readonly name: string;
  /** Base path, without a slash at its end. */
  readonly base: string;
  readonly #core: Core;
  readonly #options: ServeOptions;
  readonly #origins: OriginPolicy;
  readonly #server: RestartingListener;
  readonly #abort = new AbortController();
  /** Requests that are not answered completely. */
  readonly #active = new Set<Promise<void>>();
  #isClosed = false;

  /** A listener at the address in `options`. */
  constructor(core: Core, options: ServeOptions) {
    this.#core = core;
    this.#options = options;
    const { hostname = "127.0.0.1", port = 0, cert, key, origins } = options;
    this.name = nameOf(hostname)!;
    this.base = baseOf(options.path ?? "/")!;
    // By a name that is not in its certificate, no browser asks.
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
  }

  /** The port it listens on. */
  get port(): number {
    return this.#server.port;
  }

  /** Address to connect to, with the port. */
  get address(): string {
    // The wildcard address is not one to connect to.
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

  /** A path without the base path, or with nothing that the server has. The base path itself is that of sync, too. */
  #relative(pathname: string): string {
    const { base } = this;
    if (base === "") return pathname;
    if (pathname === base || pathname === `${base}/`) return "/sync";
    return pathname.startsWith(`${base}/`) ? pathname.slice(base.length) : "/";
  }

  /** Stops listening once the requests under way are answered, or after `shutdownMs`: then they are cut off. */
  async close(): Promise<void> {
    const { env, limits: { shutdownMs } } = this.#core;
    const late = new AbortController();
    const cancel = env.setTimer(
      () => late.abort(new Error("Requests take too long")),
      shutdownMs,
    );
    try {
      while (this.#active.size > 0) {
        await abortable(Promise.race(this.#active), late.signal);
      }
    } catch {
      // After `shutdown()`, an abort would throw where no one catches it.
      this.#server.stop();
      this.#abort.abort();
    }
    this.#isClosed = true;
    const ended = this.#abort.signal.aborted
      ? this.#server.finished
      : this.#server.shutdown();
    // A connection that has sent half of a request can hold it up.
    await abortable(ended, late.signal).catch(() => this.#server.unref());
    cancel();
  }
}

/** Answer to a request that is malformed. It is counted, and not logged: anyone can send any number of them. */
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

/** Answer by which a client finds out that a Sampan server is here, though it cannot connect. */
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
  // What is left of a request that was upgraded is not to be read.
  const { url, headers } = request;
  const begun = { url, headers: new Headers(headers), address };
  // A browser names the origin of every WebSocket.
  const origin = headers.get("origin");
  const isAllowed = origin === null || origins.allow(request);
  let upgraded: Deno.WebSocketUpgrade;
  try {
    // The protocol has a heartbeat of its own, which a page can hear.
    upgraded = Deno.upgradeWebSocket(request, { idleTimeout: 0 });
  } catch {
    return malformed(core, "Handshake of the WebSocket is malformed");
  }
  const { socket, response } = upgraded;
  const transport = socketTransport(socket);
  if (isAllowed) core.accept(transport, begun);
  else {
    // A browser tells its page nothing of a handshake that was refused.
    core.refuse(
      transport,
      CloseCode.Forbidden,
      `Pages of ${origin} are not allowed: see the option origins of this server`,
    );
  }
  return response;
}

/** What ends a server, whoever asks for it. */
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
