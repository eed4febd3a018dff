import { assertEquals } from "@std/assert";
import {
  ConcurrentKVStateMachine,
  kv,
  KVStateMachine,
} from "../../src/kv/mod.ts";
import type { Entry, Result } from "../../src/statemachine/mod.ts";
import { concat } from "../support/bytes.ts";
import {
  type Machine,
  never,
  noFiles,
  random,
  recover,
  save,
  sink,
} from "./util.ts";

/** Seeds that are always tried, and one that is new each time. */
const seeds = [1, 2, 3, 4, Math.floor(Math.random() * 2 ** 31)];

type Part =
  | { op: "put"; key: string; value: string }
  | { op: "delete"; key: string }
  | { op: "swap"; key: string; expected: string | undefined; value: string };

/** Reference model of a machine: Latin-1 strings in a plain Map. */
class Model {
  rows = new Map<string, string>();

  apply(parts: Part[]): Result {
    for (const part of parts) {
      if (part.op !== "swap") continue;
      const present = this.rows.get(part.key);
      if (present === part.expected) continue;
      return present === undefined
        ? { value: 0n }
        : { value: 0n, data: latin(present) };
    }
    let changed = false;
    for (const part of parts) {
      if (part.op === "delete") changed = this.rows.delete(part.key) || changed;
      else {
        changed ||= this.rows.get(part.key) !== part.value;
        this.rows.set(part.key, part.value);
      }
    }
    return { value: changed ? 1n : 0n };
  }

  range(
    start: string | undefined,
    end: string | undefined,
    limit: number,
    reverse: boolean,
  ): [string, string][] {
    const rows = [...this.rows].filter(([key]) =>
      (start === undefined || key >= start) && (end === undefined || key < end)
    ).sort(([a], [b]) => a < b ? -1 : 1);
    return (reverse ? rows.reverse() : rows).slice(0, limit);
  }
}

/** The bytes of a string, a byte a character. */
function latin(text: string): Uint8Array {
  return Uint8Array.from(text, (c) => c.charCodeAt(0));
}

function ofLatin(bytes: Uint8Array): string {
  return Array.from(bytes, (b) => String.fromCharCode(b)).join("");
}

function encode(part: Part): Uint8Array {
  const key = latin(part.key);
  switch (part.op) {
    case "put":
      return kv.put(key, latin(part.value));
    case "delete":
      return kv.delete(key);
    case "swap":
      return kv.compareAndSwap(
        key,
        part.expected === undefined ? undefined : latin(part.expected),
        latin(part.value),
      );
  }
}

/** Makes random keys, values and parts. */
class Generator {
  readonly next: (n: number) => number;
  readonly #keys: number;
  /** Percentage of parts that delete; it varies in waves, so that the state shrinks. */
  deletes = 20;

  constructor(seed: number) {
    this.next = random(seed);
    this.#keys = [50, 800, 6000][seed % 3]!;
  }

  key(): string {
    const n = this.next(this.#keys);
    // Of different lengths, prefixes of each other, with bytes above 127.
    if (n % 97 === 0) return "p".repeat(n / 97 % 200);
    return String.fromCharCode(n * 7 % 256, n * 13 % 256) + `k${n}`;
  }

  value(): string {
    const { next } = this;
    const size = next(50) === 0 ? next(9000) : next(30);
    return String.fromCharCode(next(256)).repeat(size);
  }

  part(model: Model): Part {
    const { next } = this;
    const key = this.key();
    if (next(100) < this.deletes) return { op: "delete", key };
    const value = this.value();
    if (next(4) > 0) return { op: "put", key, value };
    const present = next(3) > 0 ? model.rows.get(key) : this.value();
    return { op: "swap", key, expected: present, value };
  }

  command(model: Model): Part[] {
    if (this.next(10) > 0) return [this.part(model)];
    return Array.from({ length: this.next(8) }, () => this.part(model));
  }
}

function checkQueries(
  machine: Machine,
  model: Model,
  g: Generator,
  message: string,
): void {
  const key = g.key();
  const value = model.rows.get(key);
  assertEquals(
    machine.lookup(kv.get(latin(key))),
    value === undefined ? undefined : latin(value),
    message,
  );
  assertEquals(machine.lookup(kv.count()), model.rows.size, message);
  const start = g.next(4) ? g.key() : undefined;
  const end = g.next(4) ? g.key() : undefined;
  const limit = g.next(4) ? g.next(40) : undefined;
  const reverse = g.next(2) === 0;
  const rows = machine.lookup(kv.range({
    start: start === undefined ? undefined : latin(start),
    end: end === undefined ? undefined : latin(end),
    limit,
    reverse,
  }));
  assertEquals(
    rows.map(({ key, value }) => [ofLatin(key), ofLatin(value)]),
    model.range(start, end, limit ?? Infinity, reverse),
    message,
  );
}

/** Earlier snapshot or fork, with its expected content. */
interface Capture {
  context?: unknown;
  fork?: Machine;
  bytes: Uint8Array;
  hash: bigint;
}

async function checkCapture(
  capture: Capture,
  concurrent: ConcurrentKVStateMachine,
  message: string,
): Promise<void> {
  if (capture.fork) {
    assertEquals(capture.fork.getHash(), capture.hash, message);
    assertEquals(await save(capture.fork), capture.bytes, message);
  } else {
    const [w, chunks] = sink();
    await concurrent.saveSnapshot(capture.context, w, noFiles, never);
    assertEquals(concat(chunks), capture.bytes, message);
  }
}

/** Runs the same random commands on a model, both machines and a fork, and compares. */
async function run(seed: number): Promise<void> {
  const g = new Generator(seed);
  let model = new Model();
  let regular = new KVStateMachine();
  let concurrent = new ConcurrentKVStateMachine();
  let forked = new ConcurrentKVStateMachine().clone();
  let capture: Capture | undefined;
  for (let round = 0; round < 60; round++) {
    const message = `seed ${seed}, round ${round}`;
    g.deletes = round % 20 < 12 ? 15 : 85;
    const entries: Entry[] = [];
    const twins: Entry[] = [];
    const expected: Result[] = [];
    for (let index = 1; index <= 200; index++) {
      const parts = g.command(model);
      const cmd = parts.length === 1 ? encode(parts[0]!) : kv.batch(
        parts.map(encode),
      );
      expected.push(model.apply(parts));
      assertEquals(regular.update(cmd), expected.at(-1), message);
      entries.push({ index, cmd });
      twins.push({ index, cmd });
    }
    // Cut in any way (C7).
    for (let at = 0; at < entries.length;) {
      const batch = entries.slice(at, at += 1 + g.next(100));
      assertEquals(concurrent.update(batch), batch, message);
    }
    forked.update(twins);
    assertEquals(entries.map(({ result }) => result), expected, message);
    assertEquals(twins.map(({ result }) => result), expected, message);
    const hash = regular.getHash();
    assertEquals(concurrent.getHash(), hash, message);
    assertEquals(forked.getHash(), hash, message);
    for (const machine of [regular, concurrent, forked]) {
      checkQueries(machine, model, g, message);
    }
    if (round % 3 > 0) continue;
    const bytes = await save(regular);
    assertEquals(await save(concurrent), bytes, message);
    assertEquals(await save(forked), bytes, message);
    if (capture) await checkCapture(capture, concurrent, message);
    capture = { bytes, hash };
    if (g.next(2)) capture.fork = (g.next(2) ? regular : forked).clone();
    else capture.context = concurrent.prepareSnapshot();
    if (g.next(4) === 0) forked = concurrent.clone();
    if (g.next(4) === 0) regular = regular.clone();
    if (g.next(4) === 0 && capture.fork) {
      concurrent = await recover([bytes]) as ConcurrentKVStateMachine;
    }
  }
  model = new Model();
  for (const { key } of regular.lookup(kv.range())) {
    regular.update(kv.delete(key));
    concurrent.update([{ index: 1, cmd: kv.delete(key) }]);
  }
  for (const machine of [regular, concurrent]) {
    checkQueries(machine, model, g, `seed ${seed}, emptied`);
    assertEquals(machine.getHash(), 0n);
  }
}

for (const seed of seeds) {
  const name = seeds.indexOf(seed) < 4 ? `seed ${seed}` : "a new seed";
  Deno.test(`R12 the machines do as a sorted Map does, ${name}`, async () => {
    await run(seed);
  });
}
