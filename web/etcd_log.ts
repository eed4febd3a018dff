/**
 * Log of the demo server on etcd, which several servers share.
 *
 * This module needs Deno.
 *
 * @module
 */

import type { EtcdIdentity, EtcdLogDB, EtcdServer } from "../src/etcd/mod.ts";
import type { SnapshotStore } from "../src/ports/mod.ts";

/** Interval at which the identity of the etcd is noted, in milliseconds: a server that is killed knows it at the next start. */
const NOTE_MS = 2_000;

/** Log on etcd, with what the server's folder knows about it. */
export interface EtcdLog {
  /** Logs of the boards. */
  readonly logDB: EtcdLogDB;
  /** Notes the identity of the etcd in the folder a last time, and closes the logs. */
  close(): Promise<void>;
}

/** Options of {@linkcode openEtcdLog}. */
export interface EtcdLogSettings {
  /** Data folder, which says which etcd it was the last time. */
  readonly folder: string;
  /** Store of this server's snapshots, which the other ones fetch. */
  readonly store: SnapshotStore;
  /** URL of the place on S3 where the servers share their snapshots instead. */
  readonly shared?: string | undefined;
  /** Number of servers that must hold a snapshot before a log is compacted behind it. */
  readonly copies?: number | undefined;
  /** Server, as the other ones see it. */
  readonly server: EtcdServer;
  /** Prints a line about the exchange of snapshots. */
  readonly print: (line: string) => void;
}

/** Opens the logs on the etcd at a URL, with snapshots that the servers fetch from each other. */
export async function openEtcdLog(
  url: string,
  { folder, store, shared, copies, server, print }: EtcdLogSettings,
): Promise<EtcdLog> {
  // Not in the graph of modules: a server without etcd does not load its client.
  const path = new URL("../src/etcd/mod.ts", import.meta.url).href;
  const { EtcdLogDB, parseEtcdURL } = await import(
    path
  ) as typeof import("../src/etcd/mod.ts");
  const s3 = shared === undefined ? undefined : await openS3(shared);
  const file = `${folder}/etcd.json`;
  const logDB = new EtcdLogDB({
    ...parseEtcdURL(url),
    known: await readIdentity(file),
    ...(s3 === undefined
      ? { peers: { store, copies, onFault: ({ message }) => print(message) } }
      : { snapshots: s3 }),
    server,
  });
  let noted: number | undefined;
  let noting = Promise.resolve();
  const note = (): Promise<void> =>
    noting = noting.catch(() => {}).then(async () => {
      const { identity } = logDB;
      if (identity === undefined || identity.revision === noted) return;
      await writeIdentity(file, identity);
      noted = identity.revision;
    });
  const timer = setInterval(() => {
    for (const one of logDB.peers?.fetching ?? []) {
      const { clusterID, index, received, size, from } = one;
      const place = from === undefined ? "" : ` from ${from}`;
      print(
        `Fetching the snapshot of cluster ${clusterID} at ${index}${place}: ${received} of ${size} bytes`,
      );
    }
    note().catch(() => {
      // Tried again, and reported by close().
    });
  }, NOTE_MS);
  return {
    logDB,
    async close(): Promise<void> {
      clearInterval(timer);
      await note();
      await logDB.close();
      await s3?.close();
    },
  };
}

/** Opens the snapshots on S3 at a URL, with the credentials in the environment. */
async function openS3(url: string): Promise<SnapshotStore> {
  // Not in the graph of modules, as above.
  const path = new URL("../src/s3/mod.ts", import.meta.url).href;
  const { parseS3URL, S3SnapshotStore } = await import(
    path
  ) as typeof import("../src/s3/mod.ts");
  const place = parseS3URL(url);
  const variable = (name: string): string => {
    const value = Deno.env.get(name);
    if (value) return value;
    throw new TypeError(
      `Snapshots are at "${url}" and ${name} is not set: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY`,
    );
  };
  return new S3SnapshotStore({
    ...place,
    region: place.region ?? (Deno.env.get("AWS_REGION") || undefined),
    accessKeyId: variable("AWS_ACCESS_KEY_ID"),
    secretAccessKey: variable("AWS_SECRET_ACCESS_KEY"),
    sessionToken: Deno.env.get("AWS_SESSION_TOKEN") || undefined,
  });
}

async function writeIdentity(
  file: string,
  { clusterID, historyID, revision }: EtcdIdentity,
): Promise<void> {
  const text = { clusterID: `${clusterID}`, historyID: `${historyID}` };
  const temporary = `${file}.new`;
  await Deno.writeTextFile(temporary, JSON.stringify({ ...text, revision }));
  await Deno.rename(temporary, file);
}

async function readIdentity(file: string): Promise<EtcdIdentity | undefined> {
  let text: string;
  try {
    text = await Deno.readTextFile(file);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  const { clusterID, historyID, revision } = JSON.parse(text) as {
    clusterID: string;
    historyID: string;
    revision: number;
  };
  return {
    clusterID: BigInt(clusterID),
    historyID: BigInt(historyID),
    revision,
  };
}
