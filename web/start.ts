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
import { ConcurrentKVStateMachine, ErrUpdateFailed, NodeHost } from "../mod.ts";
import { type Control, serveControl } from "../src/cli/control.ts";
import {
  DataFolder,
  ErrDataFolder,
  ErrStoreCorrupted,
  ErrStoreLocked,
  ErrStoreVersion,
} from "../src/sqlite/mod.ts";
import { skipHint } from "../src/cli/operations.ts";
import { messageOf } from "../src/describe.ts";
import { serve, type Server } from "../src/sync/server/mod.ts";
import { refusalOf } from "./app/list.ts";
import { demoFiles, servePage } from "./page.ts";

/** What the server is started with. */
export interface StartOptions {
  /** Where it listens. */
  readonly hostname: string;
  /** The port, 0 for any that is free. */
  readonly port: number;
  /** The folder in which it keeps everything; made if it is not there. */
  readonly data: string;
  /** Certificate chain, as PEM text: with it the server speaks https. */
  readonly cert?: string | undefined;
  /** Private key of the certificate, as PEM text. */
  readonly key?: string | undefined;
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

/** Starts the server and the page. */
export async function start(options: StartOptions): Promise<Started> {
  const { hostname, port, data: path, cert, key, signal } = options;
  const data = await DataFolder.open(path);
  let host: NodeHost | undefined;
  let control: Control | undefined;
  const close = async (): Promise<void> => {
    await control?.close();
    await host?.stop();
    await data.close();
  };
  try {
    const page = servePage(await demoFiles());
    host = new NodeHost({
      logDB: data.logDB,
      snapshots: data.snapshots,
      onEvent(event): void {
        if (event.type === "failed") complain(event.clusterID, event.failure);
      },
    });
    try {
      await host.startConcurrentCluster(() => new ConcurrentKVStateMachine(), {
        clusterID: 1n,
        nodeID: 1n,
        snapshotEntries: 10_000,
        compactionOverhead: 10_000,
        hashEntries: 64,
      });
    } catch (error) {
      // The server comes up all the same: `/health` and every page say that the
      // list is down, and why.
      if (!(error instanceof ErrUpdateFailed)) throw error;
    }
    const server = serve(host, {
      hostname,
      port,
      cert,
      key,
      signal,
      validate: (_principal, cmd) => refusalOf(cmd),
      fetch: page,
    });
    control = serveControl(host, data);
    return {
      server,
      url: server.httpURL,
      finished: server.finished.then(close),
    };
  } catch (error) {
    await close();
    throw error;
  }
}

const USAGE = `A server that puts edits in order, and a page that makes them

Usage: deno task start [options]

  --port N           port to listen on, 0 for a free one (default: 8000)
  --hostname NAME    address to listen on (default: 127.0.0.1; 0.0.0.0 for
                     every network of this machine). Over http, only pages
                     that were opened by NAME, by an IP address or by
                     localhost can connect; over https, by any name of the
                     certificate
  --data FOLDER      where everything is kept; made if missing (default: data)
  --cert FILE        certificate chain, as PEM: with it the server speaks https.
                     Phones and other machines keep data over https only
  --key FILE         private key of the certificate, as PEM
  --help             print this
`;

/** A way of starting that cannot work: told in one line, exit status 2. */
class UsageError extends Error {}

function argumentsOf(args: string[]): StartOptions | undefined {
  let values;
  try {
    ({ values } = parseArgs({
      args,
      options: {
        hostname: { type: "string", default: "127.0.0.1" },
        port: { type: "string", default: "8000" },
        data: { type: "string", default: "data" },
        cert: { type: "string" },
        key: { type: "string" },
        help: { type: "boolean", short: "h", default: false },
      },
    }));
  } catch (error) {
    throw new UsageError((error as Error).message.split(/\.\s/)[0]);
  }
  if (values.help) return undefined;
  const port = Number(values.port);
  if (!/^\d{1,5}$/.test(values.port) || port > 65_535) {
    throw new UsageError(
      `--port is "${values.port}": give a number, 0 to 65535`,
    );
  }
  if (values.hostname === "") throw new UsageError("--hostname is empty");
  if (values.data === "") throw new UsageError("--data is empty");
  if ((values.cert === undefined) !== (values.key === undefined)) {
    throw new UsageError("--cert and --key go together: give both, or neither");
  }
  return {
    hostname: values.hostname,
    port,
    data: values.data,
    cert: fileOf("--cert", values.cert),
    key: fileOf("--key", values.key),
  };
}

function fileOf(option: string, path: string | undefined): string | undefined {
  if (path === undefined) return undefined;
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    throw new UsageError(
      `${option}: ${path} cannot be read: ${(error as Error).message}`,
    );
  }
}

/** An error that the person who started the server can mend, in words for them; others as they are. */
function explained(error: unknown, options: StartOptions): unknown {
  const { hostname, port, data } = options;
  if (error instanceof Deno.errors.AddrInUse) {
    return new UsageError(
      `Port ${port} of ${hostname} is in use: end the other program, or give another --port`,
    );
  }
  if (error instanceof Deno.errors.AddrNotAvailable) {
    return new UsageError(
      `${hostname} is not an address of this machine: give another --hostname`,
    );
  }
  if (/failed to lookup address/.test(messageOf(error))) {
    return new UsageError(
      `${hostname} is not a name this machine knows: give another --hostname`,
    );
  }
  if (error instanceof Deno.errors.InvalidData) {
    return new UsageError(`--cert or --key cannot be used: ${error.message}`);
  }
  if (error instanceof ErrStoreLocked) {
    return new UsageError(
      `Another process has the data folder ${data}: end it, or give another --data`,
    );
  }
  if (
    error instanceof ErrDataFolder || error instanceof ErrStoreVersion ||
    error instanceof ErrStoreCorrupted
  ) return new UsageError(`--data: ${error.message}`);
  return error;
}

/** Addresses of this machine that other machines may know, if it listens on all. */
function lanAddresses(): string[] {
  return Deno.networkInterfaces()
    .filter(({ family, address }) =>
      family === "IPv4" && !address.startsWith("127.")
    )
    .map(({ address }) => address);
}

function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname.endsWith(".localhost") ||
    hostname.startsWith("127.") || /^\[?::1\]?$/.test(hostname);
}

function greet({ hostname, cert, port }: StartOptions, { url }: Started): void {
  say(`A shared list is at ${url}`);
  say("Open it in two browsers; stop the server, or pull the plug, and edit.");
  if (isLoopback(hostname)) return;
  const scheme = cert === undefined ? "http" : "https";
  const others = hostname === "0.0.0.0" || hostname === "::"
    ? lanAddresses()
    : [hostname];
  const at = port === 0 ? new URL(url).port : String(port);
  for (const address of others) {
    say(`Other machines find it at ${scheme}://${address}:${at}/`);
  }
  if (cert !== undefined) return;
  say(
    "There it keeps nothing on the device: browsers offer locks and offline pages only over https, or on localhost. Give --cert and --key.",
  );
}

/** Tells the operator that a cluster is down, and why. */
function complain(clusterID: bigint, error: unknown): void {
  say(`Cluster ${clusterID} is down: ${messageOf(error)}`);
  for (const line of skipHint(clusterID, error)) say(line);
}

function say(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${text}\n`));
}

async function main(args: string[]): Promise<number> {
  try {
    const options = argumentsOf(args);
    if (options === undefined) {
      say(USAGE.trimEnd());
      return 0;
    }
    const stopping = new AbortController();
    const signals = Deno.build.os === "windows"
      ? ["SIGINT"] as const
      : ["SIGINT", "SIGTERM"] as const;
    for (const signal of signals) {
      Deno.addSignalListener(signal, () => stopping.abort());
    }
    const { signal } = stopping;
    const started = await start({ ...options, signal })
      .catch((error) => {
        throw explained(error, options);
      });
    greet(options, started);
    await started.finished;
    say("Stopped.");
    return 0;
  } catch (error) {
    const isUsage = error instanceof UsageError;
    const text = error instanceof Error ? error.message : String(error);
    Deno.stderr.writeSync(
      new TextEncoder().encode(
        `start: ${text}${
          isUsage && /^Un(known|expected)/.test(text) ? ". Try --help" : ""
        }\n`,
      ),
    );
    return isUsage ? 2 : 1;
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
