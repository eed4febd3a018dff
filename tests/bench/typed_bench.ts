/**
 * Typed machines beside what an application would use in their place: a `Map`, the
 * ordered map of sorted-btree, plain objects changed with immer or mutative, and a
 * machine written by hand on bytes. Rows are objects everywhere.
 *
 * @module
 */

import { produce } from "immer";
import { create } from "mutative";
import sorted from "sorted-btree";
import type { Entry, IConcurrentStateMachine } from "../../mod.ts";
import { encodeCommand } from "../../src/typed/command.ts";
import {
  type AnyCommand,
  coreOf,
  type TypedMachine,
  WatchedQuery,
} from "../../src/typed/core.ts";
import {
  type CommandContext,
  defineMachine,
  type Schema,
  table,
} from "../../src/typed/mod.ts";
import { BATCH, begun, measureOne, single } from "./apply_bench.ts";
import { type Bench, type Cases, convert } from "./report.ts";

const ROWS = 100_000;
const BATCHES = 40;

/** Calls with immer and mutative, which copy an object of all rows in each. */
const SLOW_CALLS = 10;

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
  queries: {
    card: (state, id: string) => state.cards.get(id),
    some: (state, ids: readonly string[]) =>
      ids.map((id) => state.cards.get(id)),
  },
});

function idOf(i: number): string {
  return `card-${String(i).padStart(8, "0")}`;
}

function encodeMove(args: Move): Uint8Array {
  return encodeCommand({
    name: "move",
    version: 1,
    at: 1_700_000_000_000,
    by: "ann",
    seed: new Uint8Array(16),
    args: { ...args },
  });
}

function encodeJSON(args: Move): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(args));
}

/** Arguments of one-row updates of random rows. Each id is a string of its own, as one that is decoded. */
function movesOf(rows: number, count: number): Move[] {
  let x = 7;
  return Array.from({ length: count }, () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return { id: idOf((x >>> 0) % rows), list: `list ${x & 7}` };
  });
}

/** Typed machine with rows. */
function filled(
  definition: { readonly create: () => TypedMachine },
  rows: number,
): TypedMachine {
  const machine = definition.create();
  for (let i = 0; i < rows; i++) {
    const cmd = encodeMove({ id: idOf(i), list: `list ${i & 7}` });
    machine.update([{ index: i + 1, cmd }]);
  }
  return machine;
}

function rowsOf(rows: number): [string, Card][] {
  return Array.from({ length: rows }, (_, i) => [idOf(i), { ...NEW }]);
}

const { default: SortedBTree } = sorted;

const context = {} as CommandContext;

/** Measures calls of the handler that updates one row, on the state alone. */
async function benchHandler(bench: Bench): Promise<void> {
  const rows = bench.count(ROWS);
  const moves = movesOf(rows, BATCHES * BATCH);
  const report = async (
    what: string,
    run: (move: Move) => void,
    { calls = moves.length, atMost }: { calls?: number; atMost?: number } = {},
  ): Promise<void> => {
    bench.report(
      what,
      convert(
        await bench.rounds(() => {
          for (let i = 0; i < calls; i++) run(moves[i]!);
        }),
        (ms) => ms * 1e6 / calls,
      ),
      "ns",
      atMost === undefined ? {} : { atMost },
    );
  };
  const core = coreOf(cards);
  const state = core.newState();
  const { run } = core.commands.get("move") as AnyCommand;
  const call = (move: Move): void => {
    state.begin();
    run(state.root, move, context);
    state.commit();
  };
  for (let i = 0; i < rows; i++) call({ id: idOf(i), list: "todo" });
  await report("handler call: one row of 100k", call, { atMost: 3_333 });
  const map = new Map(rowsOf(rows));
  await report("… with a Map, without order, versions and hash", (move) => {
    map.set(move.id, { ...map.get(move.id) ?? NEW, list: move.list });
  });
  const tree = new SortedBTree(rowsOf(rows));
  await report("… with sorted-btree, without hash", ({ id, list }) => {
    tree.set(id, { ...tree.get(id) ?? NEW, list });
  });
  let object = { cards: Object.fromEntries(rowsOf(rows)) };
  await report("… with immer on plain objects", ({ id, list }) => {
    object = produce(object, ({ cards }) => {
      (cards[id] as { list: string }).list = list;
    });
  }, { calls: SLOW_CALLS });
  object = { cards: Object.fromEntries(rowsOf(rows)) };
  await report("… with mutative on plain objects", ({ id, list }) => {
    object = create(object, ({ cards }) => {
      (cards[id] as { list: string }).list = list;
    });
  }, { calls: SLOW_CALLS });
}

/** Measures what a version of the state costs: a fork, the context of a snapshot, and the first change after it. */
async function benchVersions(bench: Bench): Promise<void> {
  const rows = bench.count(ROWS);
  const count = bench.count(1_000);
  const report = async (
    what: string,
    run: (i: number) => unknown,
    { calls = count, atMost }: { calls?: number; atMost?: number } = {},
  ): Promise<void> => {
    bench.report(
      what,
      convert(
        await bench.rounds(() => {
          for (let i = 0; i < calls; i++) run(i);
        }),
        (ms) => ms * 1e6 / calls,
      ),
      "ns",
      atMost === undefined ? {} : { atMost },
    );
  };
  const machine = filled(cards, rows);
  const moves = movesOf(rows, count);
  const cmds = moves.map(encodeMove);
  const atMost = 10_000;
  await report("fork of 100k rows", () => machine.fork(), { atMost });
  await report(
    "prepareSnapshot() of 100k rows",
    () => machine.prepareSnapshot(),
    { atMost },
  );
  await report("fork of 100k rows, and an update of it", (i) => {
    (machine.fork() as TypedMachine).update([{ index: 1, cmd: cmds[i]! }]);
  });
  const tree = new SortedBTree(rowsOf(rows));
  await report("… with sorted-btree", (i) => {
    const { id, list } = moves[i]!;
    const copy = tree.clone();
    copy.set(id, { ...copy.get(id)!, list });
  });
  const map = new Map(rowsOf(rows));
  await report("… with a Map, which is copied", (i) => {
    const { id, list } = moves[i]!;
    const copy = new Map(map);
    copy.set(id, { ...copy.get(id)!, list });
  }, { calls: Math.min(SLOW_CALLS, count) });
}

/** Measures a watch of rows that did not change, after a commit that changed another one. */
async function benchWatch(bench: Bench): Promise<void> {
  const rows = bench.count(ROWS);
  const count = bench.count(1_000);
  const report = async (
    what: string,
    machine: TypedMachine,
    query: { readonly name: string; readonly args: readonly unknown[] },
  ): Promise<void> => {
    bench.report(
      what,
      convert(
        await bench.rounds(() => {
          for (let i = 0; i < count; i++) {
            machine.update([{ index: rows + 1, cmd }]);
            machine.lookup(query);
          }
        }),
        (ms) => ms * 1e6 / count,
      ),
      "ns",
    );
  };
  const cmd = encodeMove({ id: idOf(rows), list: "other" });
  const nothing = { name: "card", args: [idOf(rows)] };
  const machine = filled(cards, rows);
  await report("update, and one row read", machine, nothing);
  const ids = Array.from({ length: 100 }, (_, i) => idOf(i * 7));
  await report(
    "… and a watch of 100 other rows, not asked again",
    machine,
    new WatchedQuery("some", [ids]),
  );
  await report("… and the query of it, asked again", machine, {
    name: "some",
    args: [ids],
  });
}

/** The same machine written by hand: JSON commands, and objects in a Map. */
class CardsByHand implements IConcurrentStateMachine {
  readonly #rows = new Map<string, Card>();
  readonly #decoder = new TextDecoder();

  update(entries: Entry[]): Entry[] {
    for (const entry of entries) {
      const { id, list } = JSON.parse(this.#decoder.decode(entry.cmd)) as Move;
      this.#rows.set(id, { ...this.#rows.get(id) ?? NEW, list });
      entry.result = { value: 0n };
    }
    return entries;
  }
  lookup(): undefined {}
  prepareSnapshot(): unknown {
    return [...this.#rows];
  }
  saveSnapshot(): void {}
  recoverFromSnapshot(): void {}
  close(): void {}
}

/** Measures a command from the bytes of the log to its result, typed and written by hand. */
async function benchApply(bench: Bench): Promise<void> {
  const rows = BATCH * Math.ceil(bench.count(ROWS) / BATCH);
  const moves = movesOf(rows, BATCH * BATCHES);
  for (
    const [what, encode, create] of [
      ["apply: typed, one row of 100k", encodeMove, cards.create],
      [
        "… by hand: JSON and a Map, without order, versions, hash and rollback",
        encodeJSON,
        () => new CardsByHand(),
      ],
    ] as const
  ) {
    const fill = single((i) => encode({ id: idOf(i), list: "todo" }), rows);
    const cmds = moves.map(encode);
    const machine = { type: 2, create } as const;
    bench.report(
      what,
      await measureOne(
        bench,
        machine,
        [begun, ...fill],
        (after) => single((i) => cmds[i]!, cmds.length, after),
      ),
      "ns/entry",
    );
  }
}

/** Cases of the typed machine. */
export const cases: Cases = {
  "typed/handler": { processes: 3, run: benchHandler },
  "typed/versions": { run: benchVersions },
  "typed/watch": { run: benchWatch },
  "typed/apply": { processes: 3, run: benchApply },
};
