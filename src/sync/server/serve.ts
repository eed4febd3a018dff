/**
 * The server on a port.
 *
 * This module needs Deno.
 *
 * @module
 */

import type { NodeHost } from "../../nodehost/node_host.ts";
import { abortable, onAbort } from "../../nodehost/waiting.ts";
import { withResolvers } from "../../promises.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import { ErrHookFailed } from "../errors.ts";
import { CloseCode, SERVER_HEADER, socketTransport } from "../transport.ts";
import { Core } from "./core.ts";
import { handle } from "./http.ts";
import type { CoreOptions } from "./options.ts";
import { Pages } from "./pages.ts";
import type { Counts } from "./telemetry.ts";

/** What a server takes besides the host it serves. */
export interface ServeOptions extends CoreOptions {
  /**
   * The address to listen on.
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
   * The origins whose pages may connect, such as `https://app.example`; by default
   * those of the same host and port as the server. Behind a proxy that hands on
   * the name it was asked by, they have to be told to a server on a loopback
   * address: without them it takes requests only by the names of this machine
   * (`localhost`, `*.localhost`, 127.0.0.0/8, `[::1]`), since a page of any other
   * name gets there once that name leads to 127.0.0.1.
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
  /** Where clients connect to: `ws://…/sync`, or `wss://…/sync` with a certificate. */
  readonly url: string;
  /** Where everything else is: `http://…/`, or `https://…/`. */
  readonly httpURL: string;
  /** What was counted since it began; the same is exported by OpenTelemetry. */
  readonly counts: Readonly<Counts>;
  /** Resolves once it has stopped. */
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
 * @throws Deno.errors.AddrInUse if the port is taken
 * @throws Deno.errors.InvalidData if the certificate or the key is none
 * @throws TypeError if there is one of the two without the other
 */
export function serve(host: NodeHost, options: ServeOptions = {}): Server {
  const { hostname = "127.0.0.1", cert } = options;
  const core = new Core(host, options);
  let listener: Listener;
  try {
    listener = new Listener(core, options);
  } catch (error) {
    core.telemetry.close();
    throw error;
  }
  const { finished, shutdown } = stopping(
    core,
    options,
    () => listener.close(),
  );
  const address = addressOf(hostname, listener.port);
  const s = cert === undefined ? "" : "s";
  core.log({ level: "info", event: "listening", reason: address });
  return {
    url: `ws${s}://${address}/sync`,
    httpURL: `http${s}://${address}/`,
    counts: core.telemetry.counts,
    finished,
    shutdown,
    [Symbol.asyncDispose]: shutdown,
  };
}

/** HTTP listener of one server. */
class Listener {
  readonly #core: Core;
  readonly #options: ServeOptions;
  readonly #pages: Pages;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  readonly #abort = new AbortController();
  /** Requests that are not answered completely. */
  readonly #active = new Set<Promise<void>>();
  #isClosed = false;

  /** A listener at the address in `options`. */
  constructor(core: Core, options: ServeOptions) {
    this.#core = core;
    this.#options = options;
    const { hostname = "127.0.0.1", port = 0, cert, key, origins } = options;
    // By a name that is not in its certificate, no browser asks.
    this.#pages = new Pages(
      origins,
      cert === undefined ? hostname : undefined,
    );
    this.#server = Deno.serve({
      hostname,
      port,
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
      signal: this.#abort.signal,
      onListen(): void {},
      onError: (error): Response => {
        const event = error instanceof ErrHookFailed
          ? `${error.hook} failed`
          : "request failed";
        core.log({ level: "error", event, error });
        return new Response("Server has failed\n", { status: 500 });
      },
    }, (request, info) => this.#respond(request, info));
  }

  /** The port it listens on. */
  get port(): number {
    return this.#server.addr.port;
  }

  #respond(
    request: Request,
    { completed }: Deno.ServeHandlerInfo<Deno.NetAddr>,
  ): MaybePromise<Response> {
    if (this.#isClosed) {
      return new Response("Server stops; come again\n", { status: 503 });
    }
    const active = completed.catch(() => {}).finally(() =>
      this.#active.delete(active)
    );
    this.#active.add(active);
    return respond(this.#core, this.#options, this.#pages, request);
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

function addressOf(hostname: string, port: number): string {
  // What stands for every address of this machine is none to connect to.
  const name = hostname === "0.0.0.0" || hostname === "::"
    ? "localhost"
    : hostname;
  return name.includes(":") ? `[${name}]:${port}` : `${name}:${port}`;
}

function respond(
  core: Core,
  options: ServeOptions,
  pages: Pages,
  request: Request,
): MaybePromise<Response> {
  if (new URL(request.url).pathname === "/sync") {
    return upgrade(core, request, pages);
  }
  const { fetch } = options;
  return handle(core, request, pages) ??
    (fetch === undefined
      ? new Response("Not found\n", { status: 404 })
      : core.hooks.fetch(request, fetch));
}

function upgrade(
  core: Core,
  request: Request,
  pages: Pages,
): Response {
  if (request.headers.get("upgrade")?.toLowerCase() !== "websocket") {
    return new Response("Connect here with a WebSocket\n", {
      status: 426,
      headers: identity(core, request, pages),
    });
  }
  // What is left of a request that was upgraded is not to be read.
  const { url, headers } = request;
  const begun = { url, headers: new Headers(headers) };
  // A browser says of every WebSocket whose it is.
  const origin = headers.get("origin");
  const isAllowed = origin === null || pages.allow(request);
  let upgraded: Deno.WebSocketUpgrade;
  try {
    // The protocol has a heartbeat of its own, which a page can hear.
    upgraded = Deno.upgradeWebSocket(request, { idleTimeout: 0 });
  } catch {
    return new Response("This is no handshake of a WebSocket\n", {
      status: 400,
    });
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

/** Headers by which a client finds out that a Sampan server answers, also a page of another origin that may connect. */
function identity(core: Core, request: Request, pages: Pages): Headers {
  const { first, last } = core.versions;
  const headers = new Headers({
    upgrade: "websocket",
    vary: "origin",
    "cache-control": "no-store",
    [SERVER_HEADER]: `${first}-${last}`,
  });
  const origin = request.headers.get("origin");
  if (origin !== null && pages.allow(request)) {
    headers.set("access-control-allow-origin", origin);
    headers.set("access-control-allow-credentials", "true");
    headers.set("access-control-expose-headers", SERVER_HEADER);
  }
  return headers;
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
