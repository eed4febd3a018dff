/**
 * Throughput of a replayed editing history: on the text machine alone, and
 * through a session on three replicas.
 *
 * @module
 */

import type { Entry } from "../../mod.ts";
import { commandChunks, transactions } from "../replay/commands.ts";
import { recorded } from "../replay/recorded.ts";
import { replay } from "../replay/replay.ts";
import { TextStateMachine } from "../replay/text_machine.ts";
import { loadTrace, recordTyping, type Trace } from "../replay/trace.ts";
import { type Bench, type Cases, convert } from "./report.ts";

/** Entries of one update of the machine alone: the maximum of a host. */
const BATCH = 1024;

/** The recorded paper or, if that is missing or too much, the README being typed. */
async function load(bench: Bench): Promise<Trace> {
  const { url, ignore } = recorded("automerge-paper");
  if (!ignore && bench.count(2) > 1) return await loadTrace(url);
  return recordTyping(
    await Deno.readTextFile(new URL("../../README.md", import.meta.url)),
    { name: "README.md being typed" },
  );
}

/** Measures an edit on the machine alone, in batches. */
async function benchAlone(bench: Bench): Promise<void> {
  const trace = await load(bench);
  const batches = [...commandChunks(transactions(trace), BATCH)];
  let machine = new TextStateMachine();
  let entries: Entry[][] = [];
  const ms = await bench.rounds(() => {
    for (const batch of entries) machine.update(batch);
    if (machine.lookup("text") !== trace.endContent) {
      throw new Error(
        `Machine differs from the recorded text of ${trace.name}`,
      );
    }
  }, () => {
    machine = new TextStateMachine();
    let index = 0;
    // The host prepares entries before the call, so they are not part of the
    // measurement.
    entries = batches.map((cmds) =>
      cmds.map((cmd) => ({ index: ++index, cmd, result: undefined }))
    );
  });
  bench.report(
    `replay of ${trace.name}, text machine alone`,
    convert(ms, (round) => round * 1e6 / trace.txns.length),
    "ns/edit",
  );
}

/** Edits a second on three replicas, the restart and the late join included. */
async function replayOnce(trace: Trace): Promise<number> {
  const { edits, seconds, same } = await replay(trace);
  if (!same) throw new Error(`Replicas differ after a replay of ${trace.name}`);
  return edits / seconds / 1000;
}

/** Measures the first replay of a process, in which the code is still compiled. */
async function benchCold(bench: Bench): Promise<void> {
  const trace = await load(bench);
  bench.report(
    `replay of ${trace.name} on three replicas, first of a process`,
    await replayOnce(trace),
    "k edits/s",
    { atLeast: 500 },
  );
}

/** Measures replays after the first one. */
async function benchWarm(bench: Bench): Promise<void> {
  const trace = await load(bench);
  const rates: number[] = [];
  await replayOnce(trace);
  for (let round = 0; round < bench.count(5); round++) {
    rates.push(await replayOnce(trace));
  }
  bench.report(
    `replay of ${trace.name} on three replicas, later ones`,
    { wall: rates, processor: [] },
    "k edits/s",
  );
}

/** Cases of the replay. */
export const cases: Cases = {
  "replay/machine": { run: benchAlone },
  "replay/cold": { processes: 5, run: benchCold },
  "replay/warm": { run: benchWarm },
};
