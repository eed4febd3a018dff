/**
 * Server on a real port, for tests over sockets.
 *
 * @module
 */

import { KVStateMachine, NodeHost } from "../../mod.ts";
import { serve, type ServeOptions, type Server } from "../../src/sync/mod.ts";
import type { ServerLogRecord } from "../../src/sync/server/options.ts";
import { socketTransport } from "../../src/sync/transport.ts";
import { newLogDB } from "../support/log_tests.ts";
import { RawClient, realTime } from "./server_support.ts";

/** Server with one cluster and its dependencies. */
export interface Running {
  host: NodeHost;
  server: Server;
  log: ServerLogRecord[];
  connect(headers?: Record<string, string>, server?: Server): RawClient;
  stop(): Promise<void>;
}

/** WebSocket options of Deno. */
export function withHeaders(headers: Record<string, string>): string[] {
  return { headers } as unknown as string[];
}

/** Starts a server on a free port. */
export async function run(options: ServeOptions = {}): Promise<Running> {
  const logDB = newLogDB();
  const host = new NodeHost({ logDB });
  await host.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: 1n,
  });
  const log: ServerLogRecord[] = [];
  const server = serve(host, { log: (record) => log.push(record), ...options });
  return {
    host,
    server,
    log,
    connect: (headers = {}, { url } = server) =>
      new RawClient(
        socketTransport(new WebSocket(url, withHeaders(headers))),
        realTime,
      ),
    stop: async () => {
      await server.shutdown();
      await host.stop();
      await logDB.close();
    },
  };
}
