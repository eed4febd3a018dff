/**
 * History of a typed machine that follows from nothing but this code, with its
 * outcomes.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { encodeShown } from "../../src/bytes.ts";
import { encodeCommand } from "../../src/typed/command.ts";
import { defineMachine, table } from "../../src/typed/mod.ts";
import { codeOf, valueOf } from "../../src/typed/result.ts";
import { type Random, seeded } from "../support/random.ts";
import { anything } from "./schemas.ts";
import { recover, snapshotOf } from "./snapshots.ts";

/** Row of every kind of plain data. */
interface Item {
  readonly text: string;
  readonly number: number;
  readonly big: bigint;
  readonly bytes: Uint8Array;
  readonly tags: readonly string[];
  readonly more: Readonly<Record<string, unknown>>;
}

/** Arguments of a command. */
interface Draw {
  readonly key: string;
  readonly text: string;
  readonly number: number;
}

const machine = defineMachine({
  name: "engines",
  version: 1,
  state: () => ({
    items: table({
      indexes: {
        byText: (item: Item) => [item.text, item.number],
        byTag: (item: Item) => item.tags[0],
      },
    }),
    order: [] as readonly string[],
    sum: 0,
  }),
  commands: {
    put: {
      args: anything<Draw>(),
      run: (state, { key, text, number }, ctx) => {
        const before = state.items.get(key);
        if (before !== undefined && before.number > number) {
          return ctx.reject("older");
        }
        const chance = ctx.random();
        state.sum += number * chance;
        state.items.set(key, {
          text,
          number: number / 3,
          big: BigInt(Math.round(number % 1000)) * (2n ** 40n),
          bytes: encodeShown(text),
          tags: [...text].filter((_, i) => i % 2 === 0),
          more: {
            z: before?.more ?? null,
            [key]: 1,
            "10": chance,
            a: ctx.id(),
          },
        });
        // Nothing deeper than a few levels.
        const { more } = state.items.get(key)!;
        if (JSON.stringify(more).length > 400) {
          state.items.set(key, { ...state.items.get(key)!, more: {} });
        }
        return state.items.size;
      },
    },
    drop: {
      args: anything<Draw>(),
      run: (state, { key }) => state.items.delete(key),
    },
    sort: {
      args: anything<Draw>(),
      run: (state, { text }) => {
        const rows = [...state.items.values()];
        rows.sort((one, other) =>
          one.number - other.number ||
          Number(one.text > other.text) - Number(one.text < other.text)
        );
        state.order = rows.map((row) => row.text.toUpperCase()).slice(0, 20);
        return state.items.byText(text).map(({ number }) => number);
      },
    },
    crash: {
      args: anything<Draw>(),
      run: (state, { key, number }): unknown => {
        state.items.delete(key);
        state.sum = -1;
        switch (Math.abs(Math.floor(number)) % 4) {
          case 0:
            return (null as unknown as { text: string }).text;
          case 1:
            return BigInt("no number");
          case 2:
            return { f: machine };
          default:
            throw new RangeError(`Crash at ${key}`);
        }
      },
    },
  },
  queries: {},
});

const NAMES = ["put", "put", "put", "put", "drop", "sort", "crash"];
const TEXTS = ["", "ab", "éa", "\u{1F600}b", "straße", "İi", "10", "\u0000x"];

function drawOf(random: Random): Draw {
  const numbers = [0, -0, 1, 0.1, -2.5, 1e21, 5e-324, 2 ** 31];
  return {
    key: `${random.below(30)}`,
    text: `${TEXTS[random.below(8)]}${TEXTS[random.below(8)]}`,
    number: random.below(2) === 0
      ? numbers[random.below(8)]!
      : random.below(2 ** 30) / 7,
  };
}

/** Outcomes of the first commands of the history: hash of the state, and result. */
export async function outcomesOf(count: number): Promise<string[]> {
  const random = seeded(11);
  const outcomes: string[] = [];
  let replica = machine.create();
  for (let index = 1; index <= count; index++) {
    const seed = Uint8Array.from({ length: 16 }, () => random.below(256));
    const cmd = encodeCommand({
      name: NAMES[random.below(NAMES.length)]!,
      version: 1,
      at: index,
      by: random.below(2) === 0 ? null : "ann",
      seed,
      args: drawOf(random) as never,
    });
    const entry = { index, cmd, result: { value: 0n } };
    replica.update([entry]);
    const { result } = entry;
    const shown = codeOf(result) ?? JSON.stringify(valueOf(result));
    outcomes.push(`${replica.getHash().toString(36)} ${shown}`);
    // Recovered replicas go on alike.
    if (index % 50 === 0) {
      replica = await recover(machine.create(), await snapshotOf(replica));
    }
  }
  return outcomes;
}
