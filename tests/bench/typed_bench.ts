/**
 * Throughput of a typed machine alone, beside the same machine written by hand on
 * bytes over a `Map`.
 *
 * @module
 */

import type { Entry } from "../../src/statemachine/mod.ts";
import { encodeCommand } from "../../src/typed/command.ts";
import { defineMachine, type Schema, table } from "../../src/typed/mod.ts";
import { decodePlain, encodePlain } from "../../src/typed/plain.ts";
import { type Bench, type Cases, convert } from "./report.ts";

const ROWS = 100_000;
const BATCHES = 40;
const BATCH_ENTRIES = 512;

/** Row of the table. */
interface Card {
  readonly text: string;
  readonly list: string;
  readonly done: boolean;
}

/** Arguments of the command. */
interface Move {
  readonly id: string;
  readonly list: string;
}

const move: Schema<Move> = {
  "~standard": {
    version: 1,
    vendor: "bench",
    validate: (value) => ({ value: value as Move }),
  },
};

const NEW: Card = { text: "a card with a text", list: "todo", done: false };

const cards = defineMachine({
  name: "cards",
  version: 1,
  state: () => ({ cards: table<Card>() }),
  commands: {
    move: {
      args: move,
      run: (state, { id, list }) => {
        state.cards.set(id, { ...state.cards.get(id) ?? NEW, list });
      },
    },
  },
  queries: {},
});

function idOf(i: number): string {
  return `card-${String(i).padStart(8, "0")}`;
}

/** Batches of one-row updates of random rows. */
function batchesOf(
  rows: number,
  encode: (args: Move) => Uint8Array,
): Entry[][] {
  let x = 7;
  return Array.from(
    { length: BATCHES },
    (_, batch) =>
      Array.from({ length: BATCH_ENTRIES }, (_, i) => {
        x ^= x << 13;
        x ^= x >>> 17;
        x ^= x << 5;
        const args = { id: idOf((x >>> 0) % rows), list: `list ${x & 7}` };
        return { index: batch * BATCH_ENTRIES + i + 1, cmd: encode(args) };
      }),
  );
}

function encodeMove(args: Move): Uint8Array {
  const seed = new Uint8Array(16);
  return encodeCommand({
    name: "move",
    version: 1,
    at: 1_700_000_000_000,
    by: "ann",
    seed,
    args: { ...args },
  });
}

/** Measures one-row updates of a typed machine, and what a version of it costs. */
async function benchUpdates(bench: Bench): Promise<void> {
  const rows = bench.count(ROWS);
  const machine = cards.create();
  for (let i = 0; i < rows; i++) {
    const cmd = encodeMove({ id: idOf(i), list: "todo" });
    machine.update([{ index: i + 1, cmd }]);
  }
  const batches = batchesOf(rows, encodeMove);
  const perEntry = (ms: number): number => ms * 1e6 / (BATCHES * BATCH_ENTRIES);
  bench.report(
    "typed machine alone: update of one row of 100k",
    convert(
      await bench.rounds(() => {
        for (const batch of batches) machine.update(batch);
      }),
      perEntry,
    ),
    "ns",
    { atMost: 3_333 },
  );
  const byHand = new Map<string, Uint8Array>();
  for (let i = 0; i < rows; i++) byHand.set(idOf(i), encodePlain(NEW));
  const handBatches = batchesOf(rows, (args) => encodePlain(args));
  bench.report(
    "… by hand on bytes, in a Map without hash, versions or rollback",
    convert(
      await bench.rounds(() => {
        for (const batch of handBatches) {
          for (const { cmd } of batch) {
            const { id, list } = decodePlain(cmd) as unknown as Move;
            const card = decodePlain(byHand.get(id)!) as unknown as Card;
            byHand.set(id, encodePlain({ ...card, list }));
          }
        }
      }),
      perEntry,
    ),
    "ns",
  );
  const forks = bench.count(1_000);
  bench.report(
    "… fork of 100k rows",
    convert(
      await bench.rounds(() => {
        for (let i = 0; i < forks; i++) machine.fork();
      }),
      (ms) => ms * 1e6 / forks,
    ),
    "ns",
    { atMost: 10_000 },
  );
}

/** Cases of the typed machine. */
export const cases: Cases = {
  "typed/update": { processes: 3, run: benchUpdates },
};
