/**
 * The main job: a server that puts edits in order, on an embedded SQLite log,
 * and the page that makes them.
 *
 * ```sh
 * deno task start --port 8000 --data ./data
 * ```
 *
 * This module needs Deno.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { ConcurrentKVStateMachine, NodeHost } from "../mod.ts";
import { FileSnapshotStore, SqliteLogDB } from "../src/sqlite/mod.ts";
import { serve, type Server } from "../src/sync/server/mod.ts";
import { refusalOf } from "./app/list.ts";
import { bundle, ROOT, stopBundler } from "./bundle.ts";

/** What the server is started with. */
export interface StartOptions {
  /** Where it listens. */
  readonly hostname: string;
  /** The port, 0 for any that is free. */
  readonly port: number;
  /** The folder in which it keeps everything; made if it is not there. */
  readonly data: string;
  /** Ends it. */
  readonly signal?: AbortSignal | undefined;
}

/** A server that is up. */
export interface Started {
  /** The server. */
  readonly server: Server;
  /** Where the page is. */
  readonly url: string;
  /** Settles once all is stopped and closed. */
  readonly finished: Promise<void>;
}

/** The files of the page, by their paths. */
async function pageFiles(): Promise<ReadonlyMap<string, Response>> {
  const app = new URL("web/app/", ROOT);
  const script = async (name: string): Promise<Response> => {
    const text = `import "./web/app/${name}.ts";`;
    const { code } = await bundle({ name, text });
    return new Response(code as Uint8Array<ArrayBuffer>, {
      headers: { "content-type": "text/javascript; charset=utf-8" },
    });
  };
  try {
    return new Map([
      [
        "/",
        new Response(await Deno.readTextFile(new URL("index.html", app)), {
          headers: {
            "content-type": "text/html; charset=utf-8",
            "content-security-policy":
              "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:",
          },
        }),
      ],
      ["/app.js", await script("app")],
      ["/worker.js", await script("worker")],
    ]);
  } finally {
    await stopBundler();
  }
}

/** Starts the server and the page. */
export async function start(options: StartOptions): Promise<Started> {
  const { hostname, port, data, signal } = options;
  await Deno.mkdir(data, { recursive: true });
  const files = await pageFiles();
  const logDB = new SqliteLogDB(`${data}/log.db`);
  const snapshots = new FileSnapshotStore(`${data}/snapshots`);
  const host = new NodeHost({ logDB, snapshots });
  const close = async (): Promise<void> => {
    await host.stop();
    await snapshots.close();
    await logDB.close();
  };
  try {
    await host.startConcurrentCluster(() => new ConcurrentKVStateMachine(), {
      clusterID: 1n,
      nodeID: 1n,
      snapshotEntries: 10_000,
      compactionOverhead: 10_000,
      hashEntries: 64,
    });
    const server = serve(host, {
      hostname,
      port,
      signal,
      validate: (_principal, cmd) => refusalOf(cmd),
      fetch: (request: Request): Response =>
        files.get(new URL(request.url).pathname)?.clone() ??
          new Response("There is nothing here\n", { status: 404 }),
    });
    return {
      server,
      url: new URL("/", server.url.replace("ws", "http")).href,
      finished: server.finished.then(close),
    };
  } catch (error) {
    await close();
    throw error;
  }
}

function say(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${text}\n`));
}

if (import.meta.main) {
  const { values } = parseArgs({
    args: Deno.args,
    options: {
      hostname: { type: "string", default: "127.0.0.1" },
      port: { type: "string", default: "8000" },
      data: { type: "string", default: "data" },
    },
  });
  const stopping = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(signal, () => stopping.abort());
  }
  const { url, finished } = await start({
    hostname: values.hostname,
    port: Number(values.port),
    data: values.data,
    signal: stopping.signal,
  });
  say(`A list that everybody keeps is at ${url}`);
  say("Open it in two browsers; stop the server, or pull the plug, and edit.");
  await finished;
  say("Stopped.");
  Deno.exit(0);
}
