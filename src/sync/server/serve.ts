/**
 * The server on a port.
 *
 * This module needs Deno.
 *
 * @module
 */

import type { NodeHost } from "../../nodehost/node_host.ts";
import { onAbort } from "../../nodehost/waiting.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import { CloseCode, socketTransport } from "../transport.ts";
import { Core } from "./core.ts";
import { handle, isAllowedOrigin } from "./http.ts";
import type { CoreOptions } from "./options.ts";
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
  /** The origins whose pages may connect, such as `https://app.example`; by default those of the same host and port as the server. */
  readonly origins?: readonly string[] | undefined;
  /** Answers what is not asked of the server itself, say with the pages of the app. */
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
  /** Where clients connect to: `ws://…/sync`. */
  readonly url: string;
  /** Where everything else is: `http://…/`. */
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
 * @throws Deno.errors.AddrInUse if the port is taken
 */
export function serve(host: NodeHost, options: ServeOptions = {}): Server {
  const core = new Core(host, options);
  const { hostname = "127.0.0.1", port = 0 } = options;
  const over = new AbortController();
  const listener = Deno.serve({
    hostname,
    port,
    signal: over.signal,
    onListen(): void {},
    onError: (error): Response => {
      core.log({ level: "error", event: "request failed", error });
      return new Response("Server has failed\n", { status: 500 });
    },
  }, (request) => respond(core, options, request));
  const { finished, shutdown } = stopping(core, options, async () => {
    // It waits for requests under way, but not for ever.
    const cancel = core.env.setTimer(
      () => over.abort(),
      core.limits.shutdownMs,
    );
    await listener.shutdown();
    cancel();
  });
  const address = addressOf(hostname, listener.addr.port);
  core.log({ level: "info", event: "listening", reason: address });
  return {
    url: `ws://${address}/sync`,
    httpURL: `http://${address}/`,
    counts: core.telemetry.counts,
    finished,
    shutdown,
    [Symbol.asyncDispose]: shutdown,
  };
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
  request: Request,
): MaybePromise<Response> {
  const { origins } = options;
  if (new URL(request.url).pathname === "/sync") {
    return upgrade(core, request, origins);
  }
  return handle(core, request, origins) ?? options.fetch?.(request) ??
    new Response("Not found\n", { status: 404 });
}

function upgrade(
  core: Core,
  request: Request,
  origins: readonly string[] | undefined,
): Response {
  if (request.headers.get("upgrade")?.toLowerCase() !== "websocket") {
    return new Response("Connect here with a WebSocket\n", {
      status: 426,
      headers: { upgrade: "websocket" },
    });
  }
  // What is left of a request that was upgraded is not to be read.
  const { url, headers } = request;
  const begun = { url, headers: new Headers(headers) };
  const isAllowed = isAllowedOrigin(request, origins);
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
    const origin = headers.get("origin");
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
  const { promise: finished, resolve, reject } = Promise.withResolvers<void>();
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
