/**
 * A recorded paper, typed on one replica and read on another, through a server
 * and WebSockets: Sampan beside Yjs, each with a server of its own in a process
 * of its own, in one run.
 *
 * @module
 */

import * as decoding from "lib0/decoding";
import * as encoding from "lib0/encoding";
import { readSyncMessage, writeSyncStep1, writeUpdate } from "y-protocols/sync";
import { Doc } from "yjs";
import { NodeHost, type Replica } from "../../mod.ts";
import { RemoteLogDB } from "../../src/sync/client/mod.ts";
import { commandChunks, transactions } from "../replay/commands.ts";
import { recorded } from "../replay/recorded.ts";
import { type Patch, TextStateMachine } from "../replay/text_machine.ts";
import { loadTrace } from "../replay/trace.ts";
import { report } from "./report.ts";

/** Number of edits made per turn of the event loop, on both sides. */
const SLICE = 512;
/**
 * Maximum number of edits in flight, on both sides; further edits wait, unlike
 * a typist.
 */
const AHEAD = 16_384;

type Edits = readonly (readonly Patch[])[];

/** The server of one side, until disposed of. */
async function relay(
  kind: "sampan" | "yjs",
): Promise<{ url: string } & AsyncDisposable> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--allow-all",
      new URL("relays.ts", import.meta.url).pathname,
      kind,
    ],
    stdout: "piped",
  }).spawn();
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let url = "";
  while (!url.includes("\n")) {
    const { value, done } = await lines.read();
    if (done) throw new Error(`The server of ${kind} did not start`);
    url += value;
  }
  return {
    url: url.trim(),
    async [Symbol.asyncDispose](): Promise<void> {
      child.kill("SIGKILL");
      await lines.cancel();
      await child.status;
    },
  };
}

function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}

/** Seconds from the first edit on one replica until the other has the last one. */
async function withSampan(edits: Edits, text: string): Promise<number> {
  await using server = await relay("sampan");
  await using one = await join(server.url, 2n);
  await using two = await join(server.url, 3n);
  const session = await one.replica.openSession();
  const commands = [...commandChunks(edits, SLICE)];
  const from = performance.now();
  let open = 0;
  let last: Promise<unknown> | undefined;
  for (const chunk of commands) {
    for (const cmd of chunk) {
      open++;
      last = one.replica.propose(cmd, { session }).then(() => open--);
    }
    do await turn(); while (open > AHEAD);
  }
  await last;
  const { appliedIndex } = one.replica;
  while (two.replica.appliedIndex < appliedIndex) await turn();
  const seconds = (performance.now() - from) / 1000;
  for (const { replica } of [one, two]) {
    if (replica.staleRead("text") !== text) {
      throw new Error(
        `Replica of cluster ${replica.clusterID} differs from the recorded text`,
      );
    }
  }
  return seconds;
}

async function join(
  url: string,
  nodeID: bigint,
): Promise<{ replica: Replica } & AsyncDisposable> {
  const logDB = new RemoteLogDB(url);
  const host = new NodeHost({ logDB });
  const replica = await host.startConcurrentCluster(
    () => new TextStateMachine(),
    { clusterID: 1n, nodeID },
  );
  await replica.read("length");
  return {
    replica,
    async [Symbol.asyncDispose](): Promise<void> {
      await host.stop();
      await logDB.close();
    },
  };
}

/**
 * Equivalent of Yjs' own WebSocket provider: a document that sends each update
 * as it is made.
 */
async function peer(url: string): Promise<{ doc: Doc; socket: WebSocket }> {
  const doc = new Doc();
  const socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  const { promise, resolve } = Promise.withResolvers<void>();
  socket.onopen = (): void => {
    const encoder = encoding.createEncoder();
    writeSyncStep1(encoder, doc);
    socket.send(encoding.toUint8Array(encoder) as Uint8Array<ArrayBuffer>);
    resolve();
  };
  socket.onmessage = ({ data }): void => {
    const encoder = encoding.createEncoder();
    const decoder = decoding.createDecoder(new Uint8Array(data));
    readSyncMessage(decoder, encoder, doc, socket);
    if (encoding.length(encoder) > 0) {
      socket.send(encoding.toUint8Array(encoder) as Uint8Array<ArrayBuffer>);
    }
  };
  doc.on("update", (update: Uint8Array, origin: unknown) => {
    if (origin === socket) return;
    const encoder = encoding.createEncoder();
    writeUpdate(encoder, update);
    socket.send(encoding.toUint8Array(encoder) as Uint8Array<ArrayBuffer>);
  });
  await promise;
  return { doc, socket };
}

async function withYjs(edits: Edits, text: string): Promise<number> {
  await using server = await relay("yjs");
  const one = await peer(server.url);
  const two = await peer(server.url);
  const [here, there] = [one.doc.getText("text"), two.doc.getText("text")];
  let made = 0;
  let seen = 0;
  two.doc.on("update", () => seen++);
  const from = performance.now();
  for (const patches of edits) {
    one.doc.transact(() => {
      for (const [position, deleted, inserted] of patches) {
        if (deleted > 0) here.delete(position, deleted);
        if (inserted !== "") here.insert(position, inserted);
      }
    });
    if (++made % SLICE === 0) { do await turn(); while (made - seen > AHEAD); }
  }
  while (there.length !== text.length || there.toString() !== text) {
    await turn();
  }
  const seconds = (performance.now() - from) / 1000;
  for (const { socket } of [one, two]) {
    const { promise, resolve } = Promise.withResolvers<void>();
    socket.onclose = (): void => resolve();
    socket.close();
    await promise;
  }
  return seconds;
}

/** Measures with the recorded paper; skipped if that is missing. */
export async function yjsBench(): Promise<void> {
  const { url, ignore, note } = recorded("automerge-paper");
  if (ignore) {
    // deno-lint-ignore no-console
    console.log(`Comparison with Yjs is skipped${note}`);
    return;
  }
  const trace = await loadTrace(url);
  const edits = transactions(trace);
  const text = trace.endContent;
  const seconds = { sampan: Infinity, yjs: Infinity };
  for (let round = 0; round < 3; round++) {
    seconds.yjs = Math.min(seconds.yjs, await withYjs(edits, text));
    seconds.sampan = Math.min(seconds.sampan, await withSampan(edits, text));
  }
  const rate = (kind: "sampan" | "yjs"): number => edits.length / seconds[kind];
  report(
    "the paper through server and WebSocket, Yjs",
    rate("yjs"),
    "edits/s",
    {
      of: "its own server, same run",
    },
  );
  report("… Sampan", rate("sampan"), "edits/s", { of: "" });
  report("… Sampan against Yjs", rate("sampan") / rate("yjs"), "×", {
    atLeast: 5,
    of: "aim",
  });
}

if (import.meta.main) await yjsBench();
