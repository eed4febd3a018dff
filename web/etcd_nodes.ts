/**
 * Command lines of etcd nodes on loopback, for the cluster to play with and for tests.
 *
 * This module needs Deno.
 *
 * @module
 */

import { freePorts } from "./free_ports.ts";

/** Ports of a node. */
export interface NodePorts {
  /** Port for clients. */
  readonly client: number;
  /** Port for the other nodes. */
  readonly peer: number;
  /** Port at which the other nodes reach it, if that is another one. */
  readonly advertised?: number;
}

/** Draws free ports of loopback for some nodes. */
export function freeNodePorts(count: number): NodePorts[] {
  const ports = freePorts(2 * count);
  return ports.slice(0, count).map((client, i) => ({
    client,
    peer: ports[count + i]!,
  }));
}

/** Arguments of node `i` of an etcd cluster that keeps its data below a folder; `base` is the URL of a client's port without the port. */
export function nodeArguments(
  ports: readonly NodePorts[],
  i: number,
  folder: string,
  base = "http://127.0.0.1",
): string[] {
  const peer = (port: number): string => `http://127.0.0.1:${port}`;
  const { client, peer: own } = ports[i]!;
  const urls = ports.map((one) => peer(one.advertised ?? one.peer));
  const cluster = urls.map((url, at) => `n${at}=${url}`);
  return [
    `--name=n${i}`,
    `--data-dir=${folder}/n${i}`,
    `--listen-client-urls=${base}:${client}`,
    `--advertise-client-urls=${base}:${client}`,
    `--listen-peer-urls=${peer(own)}`,
    `--initial-advertise-peer-urls=${urls[i]}`,
    `--initial-cluster=${cluster.join(",")}`,
    `--initial-cluster-token=${folder}`,
    "--pre-vote=true",
    // The logs compact the history themselves.
    "--auto-compaction-retention=0",
    "--quota-backend-bytes=8000000000",
    "--snapshot-count=20000",
    "--log-level=error",
    "--logger=zap",
  ];
}
