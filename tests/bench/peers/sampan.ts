/**
 * Sampan in the comparison: a server with its log in memory or, if told `sqlite`,
 * on SQLite; and devices that submit edits, as an application does, or, if told
 * `propose`, propose those of a text in a session.
 *
 * This module needs Deno.
 *
 * @module
 */

import {
  ConcurrentKVStateMachine,
  kv,
  type KVAnswer,
  type KVQuery,
  type KVRow,
  MemoryOutbox,
  NodeHost,
  type NodeHostOptions,
  type Replica,
} from "../../../mod.ts";
import {
  DataFolder,
  SqliteKVStateMachine,
  SqliteOutbox,
} from "../../../src/sqlite/mod.ts";
import {
  CloseCode,
  connectSocket,
  RemoteLogDB,
  type Transport,
} from "../../../src/sync/client/mod.ts";
import { serve } from "../../../src/sync/server/mod.ts";
import {
  encodeTransaction,
  TextStateMachine,
  transactionBytesMax,
} from "../../replay/text_machine.ts";
import type { OpenOptions, Patch, Peer, Rows, Text } from "./peer.ts";
import { runProgram } from "./program.ts";

/** Cluster of the rows, and cluster of the text. */
const ROWS = 1n;
const TEXT = 2n;

/** Edits of a text that may be undecided before more are made. */
const AHEAD = 16_384;

const decoder = new TextDecoder();

/** A network that can be switched on. */
class Network {
  #isOn: boolean;

  constructor(isOn: boolean) {
    this.#isOn = isOn;
  }

  switchOn(): void {
    this.#isOn = true;
  }

  readonly connect = (url: string): Transport =>
    this.#isOn ? connectSocket(url) : {
      listen: ({ closed }): void =>
        void setTimeout(() =>
          closed(CloseCode.Normal, "Network is switched off")
        ),
      send(): void {},
      close(): void {},
      bufferedBytes: 0,
    };
}

/** Number of a device, from its name. */
function nodeIDOf(device: string): bigint {
  let id = 0n;
  for (let i = 0; i < device.length; i++) {
    id = id * 31n + BigInt(device.charCodeAt(i));
  }
  return id + 2n;
}

/** Parts of a device, whatever its replica holds. */
interface Device {
  readonly host: NodeHost;
  readonly logDB: RemoteLogDB;
  readonly network: Network;
}

function newDevice({ url, folder, online }: OpenOptions): Device {
  const network = new Network(online);
  const logDB = new RemoteLogDB(url, {
    connect: network.connect,
    // The server is known to speak the protocol.
    fetch: () =>
      Promise.reject(
        new TypeError("fetch() failed: the network is switched off"),
      ),
  });
  const outbox = folder === undefined
    ? new MemoryOutbox()
    : new SqliteOutbox(`${folder}/outbox.db`);
  return { host: new NodeHost({ logDB, outbox }), logDB, network };
}

async function close({ host, logDB }: Device): Promise<void> {
  await host.stop();
  await logDB.close();
}

async function openRows(options: OpenOptions): Promise<Rows> {
  const { device, folder } = options;
  const parts = newDevice(options);
  const config = { clusterID: ROWS, nodeID: nodeIDOf(device) };
  const replica: Replica<KVQuery, KVAnswer> = folder === undefined
    ? await parts.host.startConcurrentCluster(
      () => new ConcurrentKVStateMachine(),
      config,
    )
    : await parts.host.startOnDiskCluster(
      () => new SqliteKVStateMachine(`${folder}/state.db`),
      config,
    );
  let stored: Promise<unknown> = Promise.resolve();
  const textOf = (value: KVAnswer): string | undefined =>
    value instanceof Uint8Array ? decoder.decode(value) : undefined;
  return {
    // Shown at once; what is awaited is the outbox.
    put: (row, value): Promise<unknown> =>
      stored = replica.submit(kv.put(row, value)),
    putAll: (rows): Promise<unknown> =>
      stored = replica.submit(
        kv.batch(rows.map(([row, value]) => kv.put(row, value))),
      ),
    get(row): string | undefined | Promise<string | undefined> {
      const answer = replica.view.lookup(kv.get(row));
      return answer instanceof Promise ? answer.then(textOf) : textOf(answer);
    },
    async entries(): Promise<Iterable<readonly [string, string]>> {
      const rows = await replica.view.lookup(kv.range()) as KVRow[];
      return rows.map(({ key, value }) => [
        decoder.decode(key),
        decoder.decode(value),
      ]);
    },
    onRow(row, listener): void {
      const watch = replica.watch(kv.get(row));
      watch.subscribe(() => listener(textOf(watch.getSnapshot())));
    },
    durable: () => stored,
    connect(): void {
      parts.network.switchOn();
      parts.logDB.reconnect();
    },
    close: () => close(parts),
  };
}

/** One edit as a command. */
function commandOf(patches: readonly Patch[]): Uint8Array {
  const bytes = new Uint8Array(transactionBytesMax(patches));
  return bytes.subarray(0, encodeTransaction(patches, bytes, 0));
}

/** Opens a text that is typed with `submit()`, or in a session with `propose()`. */
async function openText(
  options: OpenOptions,
  proposes: boolean,
): Promise<Text> {
  const parts = newDevice(options);
  const replica = await parts.host.startConcurrentCluster(
    () => new TextStateMachine(),
    { clusterID: TEXT, nodeID: nodeIDOf(options.device) },
  );
  await replica.read("length");
  const session = proposes ? await replica.openSession() : undefined;
  let undecided = 0;
  let room = Promise.withResolvers<void>();
  const decided = (): void => {
    if (--undecided === AHEAD / 2) room.resolve();
  };
  return {
    edit(patches): void | Promise<void> {
      const cmd = commandOf(patches);
      undecided++;
      const result = session !== undefined
        ? replica.propose(cmd, { session })
        : replica.submit(cmd).then((submission) => submission.result);
      void result.then(decided);
      if (undecided < AHEAD) return;
      room = Promise.withResolvers();
      return room.promise;
    },
    length: () => replica.staleRead("length") as number,
    text: () => replica.staleRead("text") as string,
    connect(): void {},
    close: () => close(parts),
  };
}

/** Log and snapshots of a server on SQLite. */
async function storesOf(folder: string): Promise<NodeHostOptions> {
  const { logDB, snapshots } = await DataFolder.open(folder);
  return { logDB, snapshots };
}

/** Sampan, with its options. */
function sampan(options: ReadonlySet<string>): Peer {
  return {
    async serve(folder): Promise<string> {
      const host = new NodeHost(
        options.has("sqlite") ? await storesOf(folder) : {},
      );
      await host.startConcurrentCluster(() => new ConcurrentKVStateMachine(), {
        clusterID: ROWS,
        nodeID: 1n,
        snapshotEntries: 10_000,
      });
      await host.startConcurrentCluster(() => new TextStateMachine(), {
        clusterID: TEXT,
        nodeID: 1n,
        snapshotEntries: 100_000,
      });
      return serve(host, { port: 0 }).url;
    },
    openRows,
    openText: (open) => openText(open, options.has("propose")),
  };
}

if (import.meta.main) runProgram(sampan(new Set(Deno.args)));
