/**
 * Growth of the key-value machine from 1,000 to 10 million keys, beside a
 * JavaScript `Map`: processor time of an operation in random order, with keys
 * and values of 16 bytes. Writes the figures into `growth.json` and draws them
 * into `growth.svg`.
 *
 * ```sh
 * deno task bench:growth                  # measure and draw
 * deno task bench:growth --processes 1    # with one process each, not three
 * deno task bench:growth --draw           # draw what was measured before
 * ```
 *
 * @module
 */

import { ConcurrentKVStateMachine, kv } from "../../src/kv/mod.ts";
import type { Entry } from "../../src/statemachine/mod.ts";
import { random32 } from "../support/random.ts";
import { drawGrowth, type GrowthPoint } from "./plot.ts";
import { median, processorMs } from "./report.ts";

const BATCH_ENTRIES = 512;
/** Entries prepared at once, outside the measurement. */
const CHUNK_ENTRIES = BATCH_ENTRIES * 100;
/** Least operations of a measurement. */
const OPERATIONS_MIN = 300_000;
/** Most overwrites and lookups of a measurement. */
const OPERATIONS_MAX = 1_000_000;
const KEY_BYTES = 16;
/** Offset of the key in a command of `kv.put()`, behind its kind and its length. */
const KEY_AT = 2;
const VALUE_BYTES = 16;
/** Processes of each measurement, of which the median counts. */
const PROCESSES = 3;

const DATA = new URL("growth.json", import.meta.url);
const PICTURE = new URL("growth.svg", import.meta.url);

const SIZES: readonly number[] = [
  1_000,
  3_000,
  10_000,
  30_000,
  100_000,
  300_000,
  1_000_000,
  3_000_000,
  10_000_000,
];

/** Figures of Dragonboat's key-value machine, a Go map, on the same kind of machine. */
const GO: readonly GrowthPoint[] = [
  { of: "Go map", operation: "overwrite", keys: 10_000, ns: 86 },
  { of: "Go map", operation: "lookup", keys: 10_000, ns: 57 },
  { of: "Go map", operation: "insert", keys: 1_000_000, ns: 807 },
  { of: "Go map", operation: "overwrite", keys: 1_000_000, ns: 416 },
  { of: "Go map", operation: "lookup", keys: 1_000_000, ns: 366 },
];

/** Table of rows that is given the bytes of keys and values, as both machines are. */
interface Table {
  /** Sets some rows, given as commands. */
  put(entries: Entry[]): void;
  /** Reads one row and copies its value. */
  get(key: Uint8Array): void;
}

/** The key-value machine. */
function newSampan(): Table {
  const machine = new ConcurrentKVStateMachine();
  return {
    put: (entries): void => void machine.update(entries),
    get: (key): void => void machine.lookup({ type: "get", key }),
  };
}

/** A `Map` from strings to copies of the values. */
function newMap(): Table {
  const map = new Map<string, Uint8Array>();
  const decoder = new TextDecoder();
  return {
    put(entries): void {
      for (const { cmd } of entries) {
        const key = cmd.subarray(KEY_AT, KEY_AT + KEY_BYTES);
        map.set(decoder.decode(key), cmd.slice(-VALUE_BYTES));
      }
    },
    get: (key): void => void map.get(decoder.decode(key))!.slice(),
  };
}

const TABLES: Readonly<Record<string, () => Table>> = {
  "Sampan": newSampan,
  "JavaScript Map": newMap,
};

function keyOf(i: number): string {
  return `key-${String(i).padStart(KEY_BYTES - 4, "0")}`;
}

/** Numbers below `keys` in random order. */
function shuffled(keys: number, next: () => number): Uint32Array {
  const order = new Uint32Array(keys);
  for (let i = 0; i < keys; i++) order[i] = i;
  for (let i = keys - 1; i > 0; i--) {
    const j = next() % (i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

/** Batches that set these rows. */
function batchesOf(order: Uint32Array, random: () => number): Entry[][] {
  const batches: Entry[][] = [];
  const value = new Uint8Array(VALUE_BYTES);
  for (let at = 0; at < order.length; at += BATCH_ENTRIES) {
    const batch = Array.from(order.subarray(at, at + BATCH_ENTRIES), (i) => {
      new DataView(value.buffer).setUint32(0, random());
      return { index: 1, cmd: kv.put(keyOf(i), value), result: undefined };
    });
    batches.push(batch);
  }
  return batches;
}

/** Processor time of setting these rows, in milliseconds. */
function putMs(table: Table, order: Uint32Array, random: () => number): number {
  let ms = 0;
  for (let at = 0; at < order.length; at += CHUNK_ENTRIES) {
    const batches = batchesOf(order.subarray(at, at + CHUNK_ENTRIES), random);
    const from = processorMs();
    for (const batch of batches) table.put(batch);
    ms += processorMs() - from;
  }
  return ms;
}

/** Processor time of reading these rows, in milliseconds. */
function getMs(table: Table, order: Uint32Array): number {
  const encoder = new TextEncoder();
  let ms = 0;
  for (let at = 0; at < order.length; at += CHUNK_ENTRIES) {
    const keys = Array.from(
      order.subarray(at, at + CHUNK_ENTRIES),
      (i) => encoder.encode(keyOf(i)),
    );
    const from = processorMs();
    for (const key of keys) table.get(key);
    ms += processorMs() - from;
  }
  return ms;
}

/** Measures one size in this process, after smaller tables to compile the code. */
export function measure(
  of: string,
  keys: number,
  operationsMin: number = OPERATIONS_MIN,
): GrowthPoint[] {
  const random = random32(keys);
  const create = TABLES[of]!;
  const warm = Math.min(keys, 20_000);
  for (let done = 0; done < operationsMin; done += warm) {
    const table = create();
    putMs(table, shuffled(warm, random), random);
    getMs(table, shuffled(warm, random));
  }
  let table = create();
  let inserted = 0;
  let ms = 0;
  do {
    table = create();
    ms += putMs(table, shuffled(keys, random), random);
    inserted += keys;
  } while (inserted < operationsMin);
  const insert = ms * 1e6 / inserted;
  const operations = Math.min(
    Math.max(keys, operationsMin),
    OPERATIONS_MAX,
  );
  const order = Uint32Array.from(
    { length: operations },
    () => random() % keys,
  );
  const overwrite = putMs(table, order, random) * 1e6 / operations;
  const lookup = getMs(table, order) * 1e6 / operations;
  return [
    { of, operation: "insert", keys, ns: insert },
    { of, operation: "overwrite", keys, ns: overwrite },
    { of, operation: "lookup", keys, ns: lookup },
  ];
}

/** Measures one size in processes of its own, and takes the medians. */
async function measureApart(
  of: string,
  keys: number,
  processes: number,
): Promise<GrowthPoint[]> {
  const runs: GrowthPoint[][] = [];
  for (let i = 0; i < processes; i++) {
    const { stdout, success } = await new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--allow-all",
        // Ten million strings and arrays need more than the default.
        "--v8-flags=--max-old-space-size=12000",
        import.meta.url,
        of,
        String(keys),
      ],
      stderr: "inherit",
    }).output();
    if (!success) throw new Error(`${of} failed with ${keys} keys`);
    runs.push(JSON.parse(new TextDecoder().decode(stdout)) as GrowthPoint[]);
  }
  return runs[0]!.map((point, i) => ({
    ...point,
    ns: Math.round(median(runs.map((run) => run[i]!.ns))),
  }));
}

function say(text: string): void {
  // deno-lint-ignore no-console
  console.log(text);
}

async function measureAll(processes: number): Promise<GrowthPoint[]> {
  const points: GrowthPoint[] = [...GO];
  for (const keys of SIZES) {
    for (const of of Object.keys(TABLES)) {
      const measured = await measureApart(of, keys, processes);
      for (const { operation, ns } of measured) {
        say(`${of}, ${keys.toLocaleString("en")} keys, ${operation}: ${ns} ns`);
      }
      points.push(...measured);
    }
  }
  return points;
}

async function main(args: readonly string[]): Promise<void> {
  const [first, second] = args;
  if (Object.hasOwn(TABLES, first ?? "")) {
    return say(JSON.stringify(measure(first!, Number(second))));
  }
  if (first !== "--draw") {
    const processes = first === "--processes" ? Number(second) : PROCESSES;
    const points = await measureAll(processes);
    const lines = points.map((point) => JSON.stringify(point));
    await Deno.writeTextFile(DATA, `[\n  ${lines.join(",\n  ")}\n]\n`);
  }
  const points = JSON.parse(await Deno.readTextFile(DATA)) as GrowthPoint[];
  await Deno.writeTextFile(PICTURE, drawGrowth(points));
}

if (import.meta.main) await main(Deno.args);
