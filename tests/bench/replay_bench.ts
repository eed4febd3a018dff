/**
 * Throughput of a replayed editing history: on the text machine alone, and
 * through a session on three replicas.
 *
 * @module
 */

import { commandChunks, transactions } from "../replay/commands.ts";
import { recorded } from "../replay/recorded.ts";
import { replay } from "../replay/replay.ts";
import { TextStateMachine } from "../replay/text_machine.ts";
import { loadTrace, recordTyping, type Trace } from "../replay/trace.ts";

/**
 * Rounds of each measurement; the fastest counts, as it has the least
 * interference.
 */
const ROUNDS = 5;

/** Entries of one update of the machine alone: the maximum of a host. */
const BATCH = 1024;

const encoder = new TextEncoder();
const numbers = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

function row(what: string, figure: string, beside = ""): void {
  const line = `${what.padEnd(46)}${figure.padStart(18)}  ${beside}`;
  Deno.stdout.writeSync(encoder.encode(`${line.trimEnd()}\n`));
}

/** Nanoseconds an edit takes on the machine alone, in batches. */
function machineAlone(trace: Trace): number {
  const batches = [...commandChunks(transactions(trace), BATCH)];
  let fastest = Infinity;
  for (let round = 0; round < ROUNDS; round++) {
    const machine = new TextStateMachine();
    let index = 0;
    let elapsed = 0;
    for (const cmds of batches) {
      // The host prepares entries before the call, so they are not part of the
      // measurement.
      const entries = cmds.map((cmd) => ({
        index: ++index,
        cmd,
        result: undefined,
      }));
      const start = performance.now();
      machine.update(entries);
      elapsed += performance.now() - start;
    }
    if (machine.lookup("text") !== trace.endContent) {
      throw new Error(
        `Machine differs from the recorded text of ${trace.name}`,
      );
    }
    fastest = Math.min(fastest, elapsed * 1e6 / index);
  }
  return fastest;
}

/**
 * Edits a second on three replicas, the restart and the late join included: in
 * the first round, in which the code is still being compiled, and in the fastest.
 */
async function threeReplicas(trace: Trace): Promise<[number, number]> {
  const rates: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const { edits, seconds, same } = await replay(trace);
    if (!same) {
      throw new Error(`Replicas differ after a replay of ${trace.name}`);
    }
    rates.push(edits / seconds);
  }
  return [rates[0] as number, Math.max(...rates)];
}

/**
 * Measures with the recorded paper or, if that is missing, with the README
 * being typed.
 */
export async function replayBench(): Promise<void> {
  const { url, ignore } = recorded("automerge-paper");
  const trace = ignore
    ? recordTyping(
      await Deno.readTextFile(new URL("../../README.md", import.meta.url)),
      { name: "README.md being typed" },
    )
    : await loadTrace(url);
  row(`Replay of ${trace.name}`, `${numbers.format(trace.txns.length)} edits`);
  // Before the machine alone, which would compile the code of the first round.
  const [first, fastest] = await threeReplicas(trace);
  row("  text machine alone", `${machineAlone(trace).toFixed(0)} ns/edit`);
  row(
    "  three replicas, one session, first round",
    `${numbers.format(first)} edits/s`,
    "two replicas: Yjs 32,700, Loro 17,300, Automerge 377",
  );
  row("  the same, fastest round", `${numbers.format(fastest)} edits/s`);
}

if (import.meta.main) await replayBench();
