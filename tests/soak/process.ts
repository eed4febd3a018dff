/**
 * Process of a soak in Deno, which stores everything in SQLite and files: the
 * server, or a device. It writes its lines to its standard output, and ends when
 * its standard input does.
 *
 * This module needs Deno.
 *
 * @module
 */

import { ErrUnknownOutcome, NodeHost } from "../../mod.ts";
import type { Log, LogDB } from "../../src/ports/mod.ts";
import {
  FileSnapshotStore,
  SqliteBlockStore,
  SqliteKVStateMachine,
  SqliteLogDB,
  SqliteOutbox,
} from "../../src/sqlite/mod.ts";
import { RemoteLogDB } from "../../src/sync/client/mod.ts";
import { serve } from "../../src/sync/server/mod.ts";
import { random } from "../support/random.ts";
import type { Line, Request } from "./record.ts";
import {
  type ClientSettings,
  onEvent,
  Station,
  type StationSettings,
} from "./station.ts";

/** Options of the server. */
export interface ServerSettings extends StationSettings {
  readonly port: number;
  /** Origins whose pages may connect. */
  readonly origins: readonly string[];
  /** Entries past which a client that is behind fetches a snapshot. */
  readonly farEntries: number;
  /** Share of appends that are reported as of unknown outcome though they are committed. */
  readonly forgotten: number;
}

/** Options of a process: of the server, or of a device. */
export type ProcessSettings =
  & { readonly directory: string }
  & (
    | { readonly server: ServerSettings }
    | { readonly device: ClientSettings }
  );

/** Longest time between two snapshots on request, in milliseconds. */
const SNAPSHOT_MS = 1_000;

/** Log that reports some committed appends as of unknown outcome. */
function forgetful(logDB: LogDB, share: number, next: () => number): LogDB {
  const open = async (clusterID: bigint, nodeID: bigint): Promise<Log> => {
    const log = await logDB.open(clusterID, nodeID);
    return new Proxy(log, {
      get(target, name): unknown {
        if (name === "append") {
          return async (...args: Parameters<Log["append"]>) => {
            const index = await log.append(...args);
            if (next() < share) throw new ErrUnknownOutcome("Forgotten");
            return index;
          };
        }
        const member: unknown = Reflect.get(target, name, target);
        return typeof member === "function" ? member.bind(target) : member;
      },
    });
  };
  return {
    open,
    close: () => logDB.close(),
    [Symbol.asyncDispose]: () => logDB.close(),
  };
}

/** Writes a line to the pipe, which outlives this process. */
function write(line: Line): void {
  const bytes = new TextEncoder().encode(`${JSON.stringify(line)}\n`);
  for (let at = 0; at < bytes.length;) {
    at += Deno.stdout.writeSync(bytes.subarray(at));
  }
}

async function startServer(
  directory: string,
  settings: ServerSettings,
): Promise<Station> {
  const { port, origins, farEntries, forgotten, seed } = settings;
  const next = random(seed);
  const logDB = new SqliteLogDB(`${directory}/log.db`);
  const host = new NodeHost({
    logDB: forgotten === 0 ? logDB : forgetful(logDB, forgotten, next),
    snapshots: new FileSnapshotStore(`${directory}/snapshots`),
    outbox: new SqliteOutbox(`${directory}/outbox.db`),
    onEvent: onEvent(write),
  });
  const station = new Station({
    settings,
    host,
    machine: (cluster) =>
      new SqliteKVStateMachine(`${directory}/state-${cluster}.db`),
    reconnect(): void {},
    write,
  });
  await station.start();
  serve(host, { port, origins: [...origins], limits: { farEntries } });
  // An operator takes snapshots and compacts the log now and then.
  const operate = async (): Promise<never> => {
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, next() * SNAPSHOT_MS));
      for (const replica of station.replicas) {
        await replica.requestSnapshot();
        await replica.requestCompaction();
      }
    }
  };
  operate().catch((error) =>
    write({ type: "violation", text: `Snapshot on request: ${error.stack}` })
  );
  return station;
}

async function startDevice(
  directory: string,
  settings: ClientSettings,
): Promise<Station> {
  const { url, hasCopy } = settings;
  const logDB = new RemoteLogDB(url, {
    copy: hasCopy
      ? () => new SqliteBlockStore(`${directory}/copy.db`)
      : undefined,
  });
  const host = new NodeHost({
    logDB,
    snapshots: new FileSnapshotStore(`${directory}/snapshots`),
    outbox: new SqliteOutbox(`${directory}/outbox.db`),
    onEvent: onEvent(write),
  });
  const station = new Station({
    settings,
    host,
    machine: (cluster) =>
      new SqliteKVStateMachine(`${directory}/state-${cluster}.db`),
    reconnect: () => logDB.reconnect(),
    write,
  });
  await station.start();
  return station;
}

if (import.meta.main) {
  const settings = JSON.parse(Deno.args[0]!) as ProcessSettings;
  const { directory } = settings;
  const starting = "server" in settings
    ? startServer(directory, settings.server)
    : startDevice(directory, settings.device);
  starting.then((station) => station.work()).catch((error) => {
    write({ type: "violation", text: `Start: ${error.stack}` });
  });
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of Deno.stdin.readable) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      const request = JSON.parse(line) as Request;
      starting.then((station) => station.answer(request)).catch(() => {});
    }
  }
  Deno.exit();
}
