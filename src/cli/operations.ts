/**
 * Operations of the command line on a data folder. They run in the server that has
 * the folder open, or on a folder that no server uses.
 *
 * This module needs Deno.
 *
 * @module
 */

import { existsSync, openSync, renameSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import type { NodeHost } from "../nodehost/node_host.ts";
import { RecordCursor } from "../rsm/record_codec.ts";
import type { Log } from "../log/log.ts";
import { RecordKind } from "../log/records.ts";
import { verifySnapshot } from "../snapshot/verifier.ts";
import type { SnapshotHeader, SnapshotInfo } from "../snapshot/store.ts";
import {
  DataFolder,
  ErrDataFolder,
  unwritable,
} from "../sqlite/data_folder.ts";
import {
  FileSink,
  fileSource,
  removeFile,
  syncDirectory,
} from "../sqlite/files.ts";
import { ErrClusterNotFound, ErrUpdateFailed } from "../nodehost/errors.ts";
import { ErrStoreCorrupted, ErrStoreFull } from "../store/errors.ts";

/** Value that JSON can represent. */
export type Json =
  | string
  | number
  | boolean
  | null
  | readonly Json[]
  | { readonly [key: string]: Json };

/** Progress of an operation, in bytes. */
export interface Progress {
  /** Bytes processed so far. */
  readonly done: number;
  /** Total number of bytes; equal to `done` if it is not known. */
  readonly total: number;
}

/** Result of an operation. */
export interface Outcome {
  /** False if the operation found damage. */
  readonly ok: boolean;
  /** Result for programs. */
  readonly data: Json;
  /** Result for people, as lines. */
  readonly text: string;
}

/** Dependencies of an operation. */
export interface Context {
  /** Data folder to operate on. */
  readonly folder: DataFolder;
  /** Host that serves the folder, or a host without replicas. */
  readonly host: NodeHost;
  /** Called after each step. */
  readonly progress: (progress: Progress) => void;
  /** Cancels the operation. */
  readonly signal: AbortSignal;
}

/** Operations on a data folder, by name, with their arguments. */
export interface Operations {
  /** Lists the clusters, logs and snapshots of the folder. */
  readonly info: Record<never, never>;
  /** Writes the state of a cluster to a new file. */
  readonly "snapshot export": {
    readonly cluster: string;
    readonly file: string;
  };
  /** Imports a file as the initial state of a cluster without a log. */
  readonly "snapshot import": {
    readonly cluster: string;
    readonly file: string;
  };
  /** Counts the records of a log. */
  readonly "log stat": { readonly cluster?: string };
  /** Reads and verifies all blocks of the logs, and all snapshots. */
  readonly "log verify": { readonly cluster?: string };
  /** Makes every replica of a cluster skip an entry, and restarts the cluster if it has failed. */
  readonly "log skip": {
    readonly cluster: string;
    readonly index: number;
    readonly reason: string;
  };
  /** Activates a change of behaviour of the machine of a cluster, in the server that runs it. */
  readonly activate: {
    readonly cluster: string;
    readonly change: string;
    readonly force?: boolean;
  };
  /** Writes a backup of the folder to a new file. */
  readonly backup: { readonly file: string };
}

/** Name of an operation and its arguments. */
export type Call = {
  readonly [Name in keyof Operations]: {
    readonly name: Name;
    readonly args: Operations[Name];
  };
}[keyof Operations];

/** Runs an operation on a folder. Errors of the library are thrown unchanged. */
export function run(call: Call, context: Context): Promise<Outcome> {
  switch (call.name) {
    case "info":
      return info(context);
    case "snapshot export":
      return exportSnapshot(context, call.args);
    case "snapshot import":
      return importSnapshot(context, call.args);
    case "log stat":
      return logStat(context, call.args);
    case "log verify":
      return logVerify(context, call.args);
    case "log skip":
      return logSkip(context, call.args);
    case "activate":
      return activate(context, call.args);
    case "backup":
      return takeBackup(context, call.args);
  }
}

const NO_CLUSTERS = "No cluster has a log here";

function done(data: Json, lines: readonly string[], ok = true): Outcome {
  return { ok, data, text: lines.join("\n") };
}

async function clustersOf(
  { folder }: Context,
  cluster: string | undefined,
): Promise<readonly bigint[]> {
  const known = await folder.logDB.clusters();
  if (cluster === undefined) return known;
  const clusterID = BigInt(cluster);
  if (known.includes(clusterID)) return [clusterID];
  throw new ErrDataFolder(
    folder.path,
    `has no log of cluster ${clusterID}; its clusters: ${
      known.length === 0 ? "none" : known.join(", ")
    }`,
  );
}

async function info(context: Context): Promise<Outcome> {
  const { folder, host } = context;
  const lines = [`Data folder ${folder.path}`];
  const clusters: Json[] = [];
  const running = await host.info();
  for (const clusterID of await folder.logDB.clusters()) {
    const copy = await folder.logDB.copy(clusterID);
    copy.release();
    const snapshots = folder.snapshots.list(clusterID);
    const served = running.clusters.find((one) => one.clusterID === clusterID);
    const state = served?.state ?? "not served";
    const cause = served?.error === undefined ? [] : [messageOf(served.error)];
    clusters.push({
      cluster: String(clusterID),
      state,
      ...(cause.length === 0 ? {} : { error: cause[0]! }),
      first: copy.base + 1,
      last: copy.last,
      logBytes: copy.size,
      snapshots: snapshots.map(snapshotData),
    });
    lines.push(
      `Cluster ${clusterID}: log ${copy.base + 1} to ${copy.last}, ${
        bytes(copy.size)
      }, ${state}`,
      ...cause.map((text) => `  failed: ${text}`),
      ...skipHint(clusterID, served?.error),
      ...snapshots.map((snapshot) => `  ${snapshotLine(snapshot)}`),
    );
  }
  if (clusters.length === 0) lines.push(NO_CLUSTERS);
  return done({ path: folder.path, clusters }, lines);
}

/** Command that skips the entry at which a cluster has failed, as lines for its operator; none for any other error. */
export function skipHint(clusterID: bigint, error: unknown): string[] {
  if (!(error instanceof ErrUpdateFailed) || error.index !== error.upTo) {
    return [];
  }
  return [
    `  to skip the entry: sampan log skip ${error.index} --cluster ${clusterID} --reason TEXT`,
  ];
}

function snapshotData(info: SnapshotInfo): Json {
  return {
    index: info.index,
    kind: info.kind,
    node: String(info.nodeID),
    size: info.size,
    imported: info.imported,
  };
}

function snapshotLine({ index, kind, size, nodeID }: SnapshotInfo): string {
  return `snapshot at ${index}, ${kind}, ${bytes(size)}, of replica ${nodeID}`;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Formats a size for people. */
export function bytes(size: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; size >= 1024 && unit < units.length - 1; unit++) size /= 1024;
  return `${unit === 0 ? size : size.toFixed(1)} ${units[unit]}`;
}

/** Writes a stream to a new file atomically: the file appears once all of it is on disk. */
export async function writeNew(
  file: string,
  content: ReadableStream<Uint8Array>,
  signal: AbortSignal,
): Promise<number> {
  const path = resolve(file);
  const partial = `${path}.part`;
  let sink: FileSink | undefined;
  try {
    if (existsSync(path)) {
      throw new ErrDataFolder(path, "exists already: name a new file");
    }
    if (!existsSync(dirname(path))) {
      throw new ErrDataFolder(dirname(path), "does not exist: make it first");
    }
    // Left behind by a process that was killed.
    removeFile(partial);
    sink = new FileSink(partial, new Set());
    await content.pipeTo(sink.writable, { signal });
    renameSync(partial, path);
    syncDirectory(dirname(path));
    return sink.size;
  } catch (error) {
    if (!content.locked) await content.cancel(error).catch(() => {});
    await sink?.discard();
    if (error instanceof ErrStoreFull) {
      throw new ErrStoreFull(`Disk is full: no room for ${path}`, {
        cause: error,
      });
    }
    throw unwritable(path, error);
  }
}

/** Content of a file; reports progress with each chunk. */
export function readFile(
  file: string,
  progress: (progress: Progress) => void,
): ReadableStream<Uint8Array> {
  const path = resolve(file);
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) throw new ErrDataFolder(path, "does not exist");
  if (stat.isDirectory()) throw new ErrDataFolder(path, "is a folder");
  const total = stat.size;
  let read = 0;
  return fileSource(openSync(path, "r")).pipeThrough(
    new TransformStream({
      transform(chunk, controller): void {
        read += chunk.length;
        progress({ done: read, total: Math.max(read, total) });
        controller.enqueue(chunk);
      },
    }),
  );
}

/** Snapshot of the newest state that is available, with its size, 0 if that is not known. */
function newestSnapshot(
  { folder, host }: Context,
  clusterID: bigint,
): { content: ReadableStream<Uint8Array>; size: number } {
  const replica = host.replica(clusterID);
  if (replica !== undefined && replica.error === undefined) {
    return { content: replica.exportSnapshot(), size: 0 };
  }
  const [newest] = folder.snapshots.list(clusterID)
    .filter(({ kind }) => kind === "full");
  if (newest === undefined) {
    throw new ErrDataFolder(
      folder.path,
      `has no full snapshot of cluster ${clusterID}: run this command while its server runs, which can export one`,
    );
  }
  return { content: folder.snapshots.open(newest), size: newest.size };
}

async function exportSnapshot(
  context: Context,
  { cluster, file }: Operations["snapshot export"],
): Promise<Outcome> {
  const clusterID = BigInt(cluster);
  const { content, size } = newestSnapshot(context, clusterID);
  const verified = verifying(
    content,
    (written) =>
      context.progress({ done: written, total: Math.max(size, written) }),
  );
  const written = await writeNew(file, verified.content, context.signal);
  const header = await verified.header;
  return done(
    { file: resolve(file), size: written, ...headerData(header) },
    [`${resolve(file)}: ${headerLine(header)}, ${bytes(written)}`],
  );
}

/** Verifies a snapshot that is streamed, and counts its bytes. */
export function verifying(
  source: ReadableStream<Uint8Array>,
  count: (bytes: number) => void,
): { content: ReadableStream<Uint8Array>; header: Promise<SnapshotHeader> } {
  const { transform, header } = verifySnapshot();
  let size = 0;
  const content = source.pipeThrough(transform).pipeThrough(
    new TransformStream({
      transform(chunk, controller): void {
        count(size += chunk.length);
        controller.enqueue(chunk);
      },
    }),
  );
  return { content, header };
}

/** Header of a snapshot for programs. */
export function headerData(header: SnapshotHeader): Record<string, Json> {
  return {
    cluster: String(header.clusterID),
    node: String(header.nodeID),
    index: header.index,
    kind: header.kind,
    compression: header.compression,
  };
}

/** Header of a snapshot for people. */
export function headerLine({ clusterID, index, kind }: SnapshotHeader): string {
  return `${kind} snapshot of cluster ${clusterID} at ${index}`;
}

/** Verifies a snapshot file. */
export async function verifyFile(
  file: string,
  progress: (progress: Progress) => void,
  signal: AbortSignal,
): Promise<Outcome> {
  const { transform, header, totals } = verifySnapshot();
  let size = 0;
  await readFile(file, progress).pipeThrough(transform).pipeTo(
    new WritableStream({ write: (chunk): void => void (size += chunk.length) }),
    { signal },
  );
  const known = await header;
  const { files } = await totals;
  return done(
    { file: resolve(file), size, files, ...headerData(known) },
    [`${resolve(file)}: ${headerLine(known)}, ${bytes(size)}, good`],
  );
}

async function importSnapshot(
  { host, progress, signal }: Context,
  { cluster, file }: Operations["snapshot import"],
): Promise<Outcome> {
  const clusterID = BigInt(cluster);
  const content = readFile(file, progress).pipeThrough(
    new TransformStream(),
    { signal },
  );
  await host.importSnapshot(clusterID, content);
  return done(
    { cluster, file: resolve(file) },
    [`Cluster ${clusterID} starts from ${resolve(file)}`],
  );
}

const KINDS: ReadonlyMap<number, string> = new Map(
  Object.entries(RecordKind).map(([name, kind]) => [kind as number, name]),
);

async function logStat(
  context: Context,
  { cluster }: Operations["log stat"],
): Promise<Outcome> {
  const lines: string[] = [];
  const clusters: Json[] = [];
  const ids = await clustersOf(context, cluster);
  const amount = { done: 0, total: 0 };
  for (const clusterID of ids) {
    const counted = await countRecords(context, clusterID, amount);
    clusters.push(counted);
    lines.push(
      `Cluster ${clusterID}: ${counted.records} records from ${counted.first} to ${counted.last}, ${
        bytes(counted.bytes)
      }`,
      ...Object.entries(counted.kinds).map(([kind, { records, bytes: size }]) =>
        `  ${kind}: ${records}, ${bytes(size)}`
      ),
    );
  }
  if (lines.length === 0) lines.push(NO_CLUSTERS);
  return done({ clusters }, lines);
}

interface KindCount {
  readonly [key: string]: Json;
  readonly records: number;
  readonly bytes: number;
}

async function countRecords(
  { folder, host, progress, signal }: Context,
  clusterID: bigint,
  amount: { done: number; total: number },
): Promise<{
  readonly cluster: string;
  readonly first: number;
  readonly last: number;
  readonly records: number;
  readonly bytes: number;
  readonly kinds: Readonly<Record<string, KindCount>>;
}> {
  const copy = await folder.logDB.copy(clusterID);
  amount.total += copy.size;
  const kinds: Record<string, { records: number; bytes: number }> = {};
  let records = 0;
  let size = 0;
  const cursor = new RecordCursor();
  const { base: first, last } = copy;
  let log: Log | undefined;
  try {
    log = await folder.logDB.open(clusterID, host.env.random64());
    const reader = await log.read(first, { signal });
    while (first + records < last) {
      const batch = await reader.next();
      let start = 0;
      for (const end of batch.records.ends) {
        if (first + records === last) break;
        cursor.read(batch.records.bytes, start, end);
        const kind = kinds[KINDS.get(cursor.kind)!] ??= {
          records: 0,
          bytes: 0,
        };
        kind.records++;
        kind.bytes += end - start;
        size += end - start;
        records++;
        start = end;
      }
      amount.done += start;
      progress({
        done: amount.done,
        total: Math.max(amount.done, amount.total),
      });
      await host.env.turn();
    }
  } finally {
    copy.release();
    await log?.close();
  }
  return {
    cluster: String(clusterID),
    first: first + 1,
    last,
    records,
    bytes: size,
    kinds,
  };
}

async function logVerify(
  context: Context,
  { cluster }: Operations["log verify"],
): Promise<Outcome> {
  const { folder, progress, signal } = context;
  const problems: { part: string; problem: string }[] = [];
  const amount = { done: 0, total: 0 };
  const lines: string[] = [];
  const step = (size: number): void => {
    amount.done += size;
    progress({ done: amount.done, total: Math.max(amount.done, amount.total) });
  };
  for (const clusterID of await clustersOf(context, cluster)) {
    const before = problems.length;
    const snapshots = folder.snapshots.list(clusterID);
    amount.total += snapshots.reduce((sum, { size }) => sum + size, 0);
    try {
      const copy = await folder.logDB.copy(clusterID);
      amount.total += copy.size;
      for await (const blocks of copy.blocks) {
        signal.throwIfAborted();
        for (const block of blocks) step(block.bytes.length);
        await context.host.env.turn();
      }
      await countRecords({ ...context, progress: () => {} }, clusterID, {
        done: 0,
        total: 0,
      });
    } catch (error) {
      problems.push(problemOf(`log of cluster ${clusterID}`, error));
    }
    for (const snapshot of snapshots) {
      try {
        const { content } = verifying(
          folder.snapshots.open(snapshot),
          () => {},
        );
        await content.pipeTo(
          new WritableStream({ write: (chunk): void => step(chunk.length) }),
          { signal },
        );
      } catch (error) {
        if (isSuperseded(snapshot, snapshots, folder)) continue;
        problems.push(problemOf(
          `snapshot ${snapshot.id} of cluster ${clusterID}`,
          error,
        ));
      }
    }
    const good = problems.length === before;
    lines.push(
      `Cluster ${clusterID}: log and ${snapshots.length} snapshots ${
        good ? "are good" : "have damage"
      }`,
    );
  }
  if (lines.length === 0) lines.push(NO_CLUSTERS);
  lines.push(...problems.map(({ part, problem }) => `${part}: ${problem}`));
  return done({ problems }, lines, problems.length === 0);
}

/** True if a listed snapshot was removed since, because there is a newer one. */
function isSuperseded(
  { id, index, clusterID }: SnapshotInfo,
  listed: readonly SnapshotInfo[],
  { snapshots }: DataFolder,
): boolean {
  const known = new Set(listed.map(({ id }) => id));
  const present = snapshots.list(clusterID);
  return present.every((one) => one.id !== id) &&
    present.some((one) => one.index > index && !known.has(one.id));
}

/** Damage for the report; throws any other error. */
function problemOf(
  part: string,
  error: unknown,
): { part: string; problem: string } {
  const name = (error as { name?: unknown } | null)?.name;
  const isDamage = error instanceof ErrStoreCorrupted ||
    error instanceof RangeError || name === "ErrSnapshotCorrupted" ||
    name === "ErrSnapshotNotFound" ||
    name === "ErrSnapshotVersion";
  if (!isDamage) throw error;
  return { part, problem: (error as Error).message };
}

async function logSkip(
  context: Context,
  { cluster, index, reason }: Operations["log skip"],
): Promise<Outcome> {
  const { host } = context;
  const [clusterID] = await clustersOf(context, cluster);
  const skipped = await host.skipEntry(clusterID!, index, reason);
  const lines = [
    `Entry ${index} of cluster ${cluster} is skipped by every replica: ${skipped.reason}`,
  ];
  const { clusters } = await host.info();
  const served = clusters.find((one) => one.clusterID === clusterID);
  if (served?.state === "failed") {
    await host.restartCluster(clusterID!);
    lines.push(`Cluster ${cluster} is started again`);
  }
  return done(
    { cluster, index, reason: skipped.reason, restarted: lines.length > 1 },
    lines,
  );
}

async function activate(
  { host }: Context,
  { cluster, change, force = false }: Operations["activate"],
): Promise<Outcome> {
  const clusterID = BigInt(cluster);
  // The change is known to the code of the running machine only.
  const replica = host.replica(clusterID);
  if (replica === undefined) throw new ErrClusterNotFound(clusterID);
  await replica.activateChange(change, { force });
  return done({ cluster, change }, [
    `Change ${change} of cluster ${cluster} is active`,
  ]);
}

async function takeBackup(
  { folder, progress, signal, host }: Context,
  { file }: Operations["backup"],
): Promise<Outcome> {
  const content = folder.backup({ onProgress: progress, env: host.env });
  const size = await writeNew(file, content, signal);
  return done(
    { file: resolve(file), size },
    [`${resolve(file)}: backup of ${folder.path}, ${bytes(size)}`],
  );
}

/** Creates a data folder from a backup. */
export async function restore(
  path: string,
  file: string,
  progress: (progress: Progress) => void,
  signal: AbortSignal,
): Promise<Outcome> {
  const { clusters, snapshots, size } = await DataFolder.restore(
    path,
    readFile(file, progress),
    { signal },
  );
  return done(
    {
      path: resolve(path),
      size,
      snapshots,
      clusters: clusters.map(({ clusterID, last }) => ({
        cluster: String(clusterID),
        last,
      })),
    },
    [
      `${resolve(path)}: ${bytes(size)} restored`,
      ...clusters.map(({ clusterID, last }) =>
        `Cluster ${clusterID}: log up to ${last}`
      ),
    ],
  );
}
