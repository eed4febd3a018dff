/**
 * Program that serves cluster 1 on etcd until it is killed, with the settings in its
 * first argument.
 *
 * @module
 */

import {
  kv,
  KVStateMachine,
  MemorySnapshotStore,
  NodeHost,
} from "../../mod.ts";
import { EtcdLogDB } from "../../src/etcd/mod.ts";
import { S3SnapshotStore } from "../../src/s3/mod.ts";
import { FileSnapshotStore } from "../../src/sqlite/mod.ts";
import { serve } from "../../src/sync/server/mod.ts";

/** Settings of the program. */
export interface ServerSettings {
  readonly endpoints: readonly string[];
  readonly nodeID: number;
  readonly port: number;
  /** Number of entries after which a snapshot is taken; none by default. */
  readonly snapshotEntries?: number;
  /** Changes of behaviour that the code knows, of a program with a typed machine. */
  readonly changes?: readonly string[];
  /** Folder of its snapshots, which the other servers fetch; by default it has a store in memory. */
  readonly folder?: string;
  /** S3 service in which the servers share their snapshots. */
  readonly s3?: { readonly endpoint: string; readonly bucket: string };
}

if (import.meta.main) {
  const { endpoints, nodeID, port, snapshotEntries = 0, folder, s3 } = JSON
    .parse(Deno.args[0]!) as ServerSettings;
  const store = folder === undefined
    ? undefined
    : new FileSnapshotStore(folder);
  const logDB = new EtcdLogDB({
    endpoints,
    ...(store !== undefined ? { peers: { store } } : s3 !== undefined
      ? {
        snapshots: new S3SnapshotStore({
          ...s3,
          accessKeyId: "S3RVER",
          secretAccessKey: "S3RVER",
        }),
      }
      : snapshotEntries > 0
      ? { snapshots: new MemorySnapshotStore() }
      : {}),
  });
  const host = new NodeHost({ logDB });
  const replica = await host.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: BigInt(nodeID),
    hashEntries: 16,
    snapshotEntries,
  });
  const server = serve(host, {
    port,
    limits: { heartbeatMs: 1_000 },
    async fetch(request): Promise<Response> {
      if (request.url.endsWith("/duty")) {
        return Response.json(await logDB.snapshots!.isOnDuty!());
      }
      if (request.url.endsWith("/snapshots")) {
        const list = await store!.list(1n);
        return Response.json(list.map(({ index }) => index));
      }
      if (!request.url.endsWith("/state")) {
        return new Response(null, { status: 404 });
      }
      const count = await replica.read(kv.count());
      const { hash, index } = await replica.getHash();
      return Response.json({ count, hash: `${hash} at ${index}` });
    },
  });
  if (store !== undefined) logDB.announce(server.httpURL);
  // deno-lint-ignore no-console
  console.log(server.url);
}
