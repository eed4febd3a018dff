/**
 * Page with a machine that works for 50 µs at each command, in its own thread or in a
 * worker: this module is that of both.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type IStateMachine, NodeHost, type Replica } from "../../mod.ts";
import type { Result } from "../../src/statemachine/mod.ts";
import { serveMachine, workerMachine } from "../../src/worker/mod.ts";

/** Time that an update takes, in milliseconds. */
const UPDATE_MS = 0.05;

/** Interval at which the page looks how late it is, in milliseconds: the shortest that all browsers keep. */
const PROBE_MS = 4;

/** Machine that counts, and takes its time. */
class SlowCounter implements IStateMachine<null, bigint> {
  #count = 0n;

  update(): Result {
    const end = performance.now() + UPDATE_MS;
    while (performance.now() < end);
    return { value: ++this.#count };
  }

  lookup(): bigint {
    return this.#count;
  }

  async saveSnapshot(w: WritableStream<Uint8Array>): Promise<void> {
    const writer = w.getWriter();
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, this.#count);
    // Several chunks.
    for (const byte of bytes) await writer.write(new Uint8Array([byte]));
    await writer.close();
  }

  async recoverFromSnapshot(r: ReadableStream<Uint8Array>): Promise<void> {
    const bytes: number[] = [];
    const reader = r.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      bytes.push(...value);
    }
    this.#count = new DataView(Uint8Array.from(bytes).buffer).getBigUint64(0);
  }

  close(): void {}
}

if (globalThis.document === undefined) serveMachine(() => new SlowCounter());

let host: NodeHost | undefined;

async function start(isInWorker: boolean): Promise<Replica<null, bigint>> {
  const create = isInWorker
    ? await workerMachine<IStateMachine<null, bigint>>(import.meta.url)
    : () => new SlowCounter();
  host = new NodeHost();
  return await host.startCluster(create, { clusterID: 1n, nodeID: 1n });
}

/** Applies commands, takes a snapshot, starts again from it, and resolves with what the machine has counted. */
export async function count(commands: number): Promise<string> {
  const replica = await start(true);
  const cmd = new Uint8Array([1]);
  await Promise.all(
    Array.from({ length: commands }, () => replica.propose(cmd)),
  );
  await replica.requestSnapshot();
  const create = await workerMachine<IStateMachine<null, bigint>>(
    import.meta.url,
  );
  await host!.stopCluster(1n);
  const again = await host!.startCluster(create, {
    clusterID: 1n,
    nodeID: 1n,
  });
  await again.propose(cmd);
  const found = await again.read(null);
  await host!.stop();
  return `${found}`;
}

/** Figures of a run. */
export interface Run {
  /** Longest delay of a timer of the page, in milliseconds. */
  readonly longestMs: number;
  /** Duration of the run, in milliseconds. */
  readonly durationMs: number;
}

/** Measures how late a timer is; the returned function ends that, and returns the longest delay in milliseconds. */
function probe(): () => number {
  let last = performance.now();
  let longestMs = 0;
  let isRunning = true;
  const turn = (): void => {
    const now = performance.now();
    longestMs = Math.max(longestMs, now - last - PROBE_MS);
    last = now;
    if (isRunning) setTimeout(turn, PROBE_MS);
  };
  setTimeout(turn, PROBE_MS);
  return () => {
    isRunning = false;
    return longestMs;
  };
}

/** Longest delay of a timer while the page does nothing, in milliseconds. */
export async function rest(durationMs: number): Promise<number> {
  const longest = probe();
  await new Promise((resolve) => setTimeout(resolve, durationMs));
  return longest();
}

/** Proposes commands, as many at a time, and resolves with the longest task of the page. */
export async function run(
  isInWorker: boolean,
  commands: number,
  atOnce: number,
): Promise<Run> {
  const replica = await start(isInWorker);
  const cmd = new Uint8Array([1]);
  const longest = probe();
  const begin = performance.now();
  for (let i = 0; i < commands; i += atOnce) {
    await Promise.all(
      Array.from({ length: atOnce }, () => replica.propose(cmd)),
    );
  }
  const durationMs = performance.now() - begin;
  const longestMs = longest();
  await host!.stop();
  return { longestMs, durationMs };
}
