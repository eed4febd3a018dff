/**
 * Demo server: shared boards on an embedded SQLite log, with the page that edits
 * them.
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
import { NodeHost } from "../mod.ts";
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
import {
  type InspectorPermission,
  serve,
  type Server,
} from "../src/sync/server/mod.ts";
import { fingerprintOf } from "../src/typed/mod.ts";
import { board } from "./app/board.ts";
import { clusterOf, WELCOME } from "./app/names.ts";
import { Boards } from "./boards.ts";
import { type EtcdLog, openEtcdLog } from "./etcd_log.ts";
import { demoFiles, servePage } from "./page.ts";
import { Presence } from "./presence.ts";

/** Options of {@linkcode start}. */
export interface StartOptions {
  /** Name or address to listen on. */
  readonly hostname: string;
  /** Port to listen on, 0 for a free one. */
  readonly port: number;
  /** Data folder of the server; created if it is missing. */
  readonly data: string;
  /** URL of an etcd that has the log, as `etcd://host:2379`; the data folder has it by default. */
  readonly log?: string | undefined;
  /** Node id of this server among those on the same log. @default {1} */
  readonly node?: number | undefined;
  /** Origins of the other servers on the same log, which pages move to. */
  readonly peers?: readonly string[] | undefined;
  /** URL at which the other servers on the same log reach this one, to fetch its snapshots. @default {that of the address it listens on} */
  readonly advertise?: string | undefined;
  /** Number of servers that must hold a snapshot before a log on etcd is compacted behind it. @default {2} */
  readonly copies?: number | undefined;
  /** URL of a place on S3 where the servers on etcd share their snapshots, as `s3://bucket/prefix`; by default they fetch them from each other. */
  readonly snapshots?: string | undefined;
  /** Applied entries after which a snapshot is taken. @default {10_000} */
  readonly snapshotEntries?: number | undefined;
  /** Certificate chain, as PEM text: with it the server speaks HTTPS. */
  readonly cert?: string | undefined;
  /** Private key of the certificate, as PEM text. */
  readonly key?: string | undefined;
  /** Stops the server when it aborts. */
  readonly signal?: AbortSignal | undefined;
}

/** Running demo server. */
export interface Started {
  /** Server of the clusters. */
  readonly server: Server;
  /** URL of the page. */
  readonly url: string;
  /** Resolves once everything is stopped and closed. */
  readonly finished: Promise<void>;
}

/** Starts the demo server. */
export async function start(options: StartOptions): Promise<Started> {
  const { hostname, port, data: path, cert, key, signal, log } = options;
  const data = await DataFolder.open(path);
  let host: NodeHost | undefined;
  let control: Control | undefined;
  let etcd: EtcdLog | undefined;
  const close = async (): Promise<void> => {
    await control?.close();
    await host?.stop();
    await etcd?.close();
    await data.close();
  };
  try {
    if (log !== undefined) {
      etcd = await openEtcdLog(log, {
        folder: path,
        store: data.snapshots,
        shared: options.snapshots,
        copies: options.copies,
        server: {
          name: `Server ${options.node ?? 1}`,
          code: () => fingerprintOf(board),
        },
        print,
      });
    }
    const { peers = [] } = options;
    const page = servePage(await demoFiles(undefined, peers));
    host = new NodeHost({
      logDB: etcd?.logDB ?? data.logDB,
      snapshots: etcd?.logDB.snapshots ?? data.snapshots,
      onEvent(event): void {
        if (event.type !== "failed") return;
        reportFailure(event.clusterID, event.failure);
      },
    });
    const boards = new Boards(host, board.create, {
      nodeID: BigInt(options.node ?? 1),
      snapshotEntries: options.snapshotEntries,
    });
    const presence = new Presence();
    signal?.addEventListener("abort", () => presence.close());
    // A failure of its machine is seen when the server starts.
    await boards.open(clusterOf(WELCOME));
    const server = serve(host, {
      hostname,
      port,
      cert,
      key,
      signal,
      ...(peers.length === 0
        ? {}
        : { origins: [...ownOrigins(options), ...peers] }),
      // A page leaves a server that is frozen after two heartbeats.
      ...(etcd === undefined ? {} : { limits: { heartbeatMs: 5_000 } }),
      authorize: async (_principal, clusterID, action) =>
        action !== "upload" && await boards.open(clusterID),
      validate: board.validate,
      // It looks at the command only, so no server has to wait for another one.
      decidesAlone: false,
      // On this machine only: the demo has no accounts.
      ...(isLoopback(hostname)
        ? {
          inspector: {
            name: `Server ${options.node ?? 1}`,
            code: () => fingerprintOf(board),
            authorize: (): InspectorPermission => ({
              clusters: "all",
              commands: true,
              act: true,
            }),
          },
        }
        : {}),
      fetch: (request) => presence.handle(request) ?? page(request),
    });
    if (etcd?.logDB.peers !== undefined) {
      etcd.logDB.announce(advertised(options, server.httpURL));
    }
    // Its operations are for the log in the folder.
    if (etcd === undefined) control = serveControl(host, data);
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

/** URL of a server for the others on the same log. */
function advertised(
  { advertise, hostname }: StartOptions,
  own: string,
): string {
  if (advertise !== undefined) return advertise;
  const url = new URL(own);
  if (hostname === "0.0.0.0" || hostname === "::") {
    url.hostname = lanAddresses()[0] ?? "127.0.0.1";
  }
  return url.href;
}

/** Origins of the pages of a server, by the names and addresses of its machine. */
function ownOrigins({ hostname, port, cert }: StartOptions): string[] {
  const scheme = cert === undefined ? "http" : "https";
  const isWild = hostname === "0.0.0.0" || hostname === "::";
  const names = [
    ...(isWild ? lanAddresses() : [hostname]),
    ...(isWild || isLoopback(hostname) ? ["localhost", "127.0.0.1"] : []),
  ];
  return [...new Set(names)].map((name) => `${scheme}://${name}:${port}`);
}

const USAGE = `Demo server: shared boards and the page that edits them

Usage: deno task start [options]

  --port N           port to listen on, 0 for a free one (default: 8000)
  --hostname NAME    address to listen on (default: 127.0.0.1; 0.0.0.0 for
                     every network of this machine). Over http, only pages
                     that were opened by NAME, by an IP address or by
                     localhost can connect; over https, by any name of the
                     certificate
  --data FOLDER      data folder; created if missing (default: data)
  --log URL          log on etcd, which several servers share, instead of the
                     data folder: etcd://host:2379,host:2379/prefix. Each
                     server has its own snapshots and fetches from the others
                     what it lacks
  --advertise URL    where the other servers reach this one, as
                     http://10.0.0.1:8000 (default: the address that it listens
                     on, or the first one of this machine). With --cert, by a
                     name of the certificate
  --copies N         servers that must hold a snapshot before the log is
                     compacted behind it (default: 2; 1 for a single server)
  --snapshots URL    bucket on S3 in which the servers share their snapshots
                     instead: s3://bucket/prefix?endpoint=https://host
                     &region=NAME. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
                     have the credentials
  --snapshot-entries N
                     commands after which a snapshot is taken (default: 10000)
  --node N           number of this server among those that share a log
                     (default: 1); each needs its own, and its own --data
  --peers URLS       the other servers on the same log, as
                     http://host:port,http://host:port: pages move to one of
                     them when this one is lost. Needs --port
  --cert FILE        certificate chain, as PEM: with it the server speaks https.
                     Phones and other machines keep data over https only
  --key FILE         private key of the certificate, as PEM
  --help             print this help
`;

/** Error of the command line or of the environment: printed as one line, exit status 2. */
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
        log: { type: "string" },
        node: { type: "string", default: "1" },
        peers: { type: "string" },
        advertise: { type: "string" },
        copies: { type: "string", default: "2" },
        snapshots: { type: "string" },
        "snapshot-entries": { type: "string", default: "10000" },
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
  if (values.hostname === "") {
    throw new UsageError('--hostname is "": give an address such as 127.0.0.1');
  }
  if (values.data === "") {
    throw new UsageError('--data is "": give a folder (default: data)');
  }
  const node = countOf("--node", values.node);
  if (values.log !== undefined && !/^etcds?:\/\/./.test(values.log)) {
    throw new UsageError(
      `--log is "${values.log}": give the URL of an etcd, as etcd://127.0.0.1:2379`,
    );
  }
  const copies = countOf("--copies", values.copies);
  const snapshotEntries = countOf(
    "--snapshot-entries",
    values["snapshot-entries"],
  );
  if (values.snapshots !== undefined && values.log === undefined) {
    throw new UsageError(
      `--snapshots is "${values.snapshots}": it is for servers that share a log, give --log, too`,
    );
  }
  if (values.advertise !== undefined) {
    const url = URL.parse(values.advertise);
    if (url === null || !/^https?:$/.test(url.protocol)) {
      throw new UsageError(
        `--advertise is "${values.advertise}": give a URL as http://10.0.0.1:8000`,
      );
    }
  }
  if ((values.cert === undefined) !== (values.key === undefined)) {
    const missing = values.cert === undefined ? "--cert" : "--key";
    throw new UsageError(
      `${missing} is missing: HTTPS needs both --cert and --key`,
    );
  }
  return {
    hostname: values.hostname,
    port,
    data: values.data,
    log: values.log,
    node,
    peers: peersOf(values.peers, port),
    advertise: values.advertise,
    copies,
    snapshots: values.snapshots,
    snapshotEntries,
    cert: fileOf("--cert", values.cert),
    key: fileOf("--key", values.key),
  };
}

function countOf(option: string, text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw new UsageError(`${option} is "${text}": give a number from 1`);
}

function peersOf(text: string | undefined, port: number): string[] {
  if (text === undefined) return [];
  if (port === 0) {
    throw new UsageError(
      `--peers needs a port that the others can name, and --port is ${port}`,
    );
  }
  return text.split(",").map((one) => {
    const url = URL.parse(one);
    if (url !== null && /^https?:$/.test(url.protocol)) return url.origin;
    throw new UsageError(
      `--peers has "${one}": give addresses as http://host:port`,
    );
  });
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

/** Usage error for an error that the user of the command can fix; other errors unchanged. */
function explained(error: unknown, options: StartOptions): unknown {
  const { hostname, port, data } = options;
  if (error instanceof Deno.errors.AddrInUse) {
    return new UsageError(
      `Port ${port} of ${hostname} is in use: stop the other program, or give another --port`,
    );
  }
  if (error instanceof Deno.errors.AddrNotAvailable) {
    return new UsageError(
      `${hostname} is not an address of this machine: give another --hostname`,
    );
  }
  if (/failed to lookup address/.test(messageOf(error))) {
    return new UsageError(
      `Host name ${hostname} cannot be resolved: give another --hostname`,
    );
  }
  if (error instanceof Deno.errors.InvalidData) {
    return new UsageError(`--cert or --key is invalid: ${error.message}`);
  }
  if (error instanceof ErrStoreLocked) {
    return new UsageError(
      `Another process has the data folder ${data} open: stop it, or give another --data`,
    );
  }
  if (
    error instanceof ErrDataFolder || error instanceof ErrStoreVersion ||
    error instanceof ErrStoreCorrupted
  ) return new UsageError(`--data: ${error.message}`);
  if (/^(Log|Endpoint) is /.test(messageOf(error))) {
    return new UsageError(`--log: ${messageOf(error)}`);
  }
  if (/^Snapshots are /.test(messageOf(error))) {
    return new UsageError(`--snapshots: ${messageOf(error)}`);
  }
  // Compared by name: the classes are not loaded without --log.
  if ((error as Error).name === "ErrS3") {
    return new UsageError(`--snapshots: ${messageOf(error)}`);
  }
  const { cause } = error as Error;
  if (cause instanceof Error && cause.name === "ErrPeerSnapshot") {
    return new UsageError(`--log: ${cause.message}`);
  }
  if (/^ErrEtcd|^ErrOtherEtcd$/.test((error as Error).name)) {
    return new UsageError(`--log: ${messageOf(error)}`);
  }
  return error;
}

/** IPv4 addresses of this machine in its networks. */
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

function printAddresses(
  { hostname, cert, port }: StartOptions,
  { url }: Started,
): void {
  print(`A shared board is at ${url}`);
  print(
    "It shows two devices: pull a plug, edit on both, stop the server if you like.",
  );
  print(`A playground of replicas is at ${new URL("playground", url)}`);
  if (isLoopback(hostname)) return;
  const scheme = cert === undefined ? "http" : "https";
  const others = hostname === "0.0.0.0" || hostname === "::"
    ? lanAddresses()
    : [hostname];
  const at = port === 0 ? new URL(url).port : String(port);
  for (const address of others) {
    print(`Other machines find it at ${scheme}://${address}:${at}/`);
  }
  if (cert !== undefined) return;
  print(
    "Over http, the page works there only while it is online: browsers store pages and data for offline use over https or on localhost only. Give --cert and --key.",
  );
}

/** Prints the failure of a cluster, and how to skip the entry that caused it. */
function reportFailure(clusterID: bigint, error: unknown): void {
  print(`Cluster ${clusterID} is down: ${messageOf(error)}`);
  for (const line of skipHint(clusterID, error)) print(line);
}

function print(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${text}\n`));
}

async function main(args: string[]): Promise<number> {
  try {
    const options = argumentsOf(args);
    if (options === undefined) {
      print(USAGE.trimEnd());
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
    printAddresses(options, started);
    await started.finished;
    print("Stopped.");
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
