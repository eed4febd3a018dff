/**
 * Program of a server or a client of one product: takes requests as lines of
 * JSON from its standard input and answers on its standard output. What is
 * measured is measured here, in the process of the application.
 *
 * This module runs in Deno and in Node.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import type { OpenOptions, Patch, Peer, Rows, Text } from "./peer.ts";

/** Request to a program. */
export interface Request {
  readonly id: number;
  readonly name: string;
  readonly args: readonly unknown[];
}

/** Answer of a program. */
export interface Answer {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: string;
}

/** Edits per turn of the event loop while a text is typed. */
const SLICE = 512;

/** Rows of one import. */
const IMPORT_ROWS = 1_000;

function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Name of a row. */
export function rowName(i: number): string {
  return `row-${String(i).padStart(8, "0")}`;
}

/** Value of 16 characters of a row that is imported. */
function importedValue(i: number): string {
  return `value-${String(i).padStart(10, "0")}`;
}

/** Digest of all rows, whatever order a product has them in. */
async function digestOf(rows: Rows): Promise<string> {
  const lines: string[] = [];
  for (const [row, value] of await rows.entries()) {
    lines.push(`${row}=${value}`);
  }
  lines.sort();
  let hash = 0x811c9dc5;
  for (const line of lines) {
    for (let i = 0; i < line.length; i++) {
      hash = Math.imul(hash ^ line.charCodeAt(i), 0x01000193);
    }
  }
  return `${lines.length}:${(hash >>> 0).toString(16)}`;
}

/** Resident memory of this process, in MiB. */
function residentMiB(): number {
  const status = readFileSync("/proc/self/status", "utf8");
  return Number(/VmRSS:\s+(\d+)/.exec(status)![1]) / 1024;
}

/** Resolves once a row has a value that satisfies `isMet`. */
async function untilRow(
  rows: Rows,
  row: string,
  isMet: (value: string | undefined) => boolean,
): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  rows.onRow(row, (value) => {
    if (isMet(value)) resolve();
  });
  if (isMet(await rows.get(row))) resolve();
  await promise;
}

/** Requests of the driver, by name. */
class Program {
  readonly #peer: Peer;
  #rows!: Rows;
  #text!: Text;
  #seen: Promise<number[]> = Promise.resolve([]);

  constructor(peer: Peer) {
    this.#peer = peer;
  }

  /** Milliseconds on the clock of this process. */
  clock(): number {
    return performance.now();
  }

  serve(folder: string): Promise<string> {
    return this.#peer.serve(folder);
  }

  async openRows(options: OpenOptions): Promise<void> {
    this.#rows = await this.#peer.openRows(options);
  }

  async connect(): Promise<void> {
    await this.#rows.connect();
  }

  async close(): Promise<void> {
    await this.#rows?.close();
    await this.#text?.close();
  }

  digest(): Promise<string> {
    return digestOf(this.#rows);
  }

  /** Imports rows, and last a row that marks the end. */
  async fill(count: number): Promise<void> {
    const rows = this.#rows;
    for (let from = 0; from < count; from += IMPORT_ROWS) {
      const length = Math.min(IMPORT_ROWS, count - from);
      const chunk = Array.from(
        { length },
        (_, i) => [rowName(from + i), importedValue(from + i)] as const,
      );
      if (rows.putAll !== undefined) await rows.putAll(chunk);
      else for (const [row, value] of chunk) await rows.put(row, value);
      await turn();
    }
    await rows.put("end", "end");
    await rows.durable?.();
  }

  /** Resolves once the view has a row with this value. */
  until(row: string, value: string): Promise<void> {
    return untilRow(this.#rows, row, (shown) => shown === value);
  }

  /** W1: makes edits all over some rows, and last one that marks the end. */
  async edit(count: number, rows: number, device: string): Promise<void> {
    for (let i = 0; i < count; i++) {
      const row = rowName((i * 7919) % rows);
      await this.#rows.put(row, `${device} ${String(i).padStart(10, "0")}`);
    }
    await this.#rows.put(`end ${device}`, "end");
  }

  /** W2: notes when each value of a row is first shown. */
  follow(row: string, count: number): void {
    const times: number[] = [];
    const { promise, resolve } = Promise.withResolvers<number[]>();
    this.#seen = promise;
    this.#rows.onRow(row, (value) => {
      const now = performance.now();
      for (let n = times.length; n <= Number(value ?? -1); n++) times.push(now);
      if (times.length >= count) resolve(times);
    });
  }

  /** W2: the times that `follow()` noted, once it has all. */
  followed(): Promise<number[]> {
    return this.#seen;
  }

  /** W2: changes a row again and again; resolves to the times of the edits. */
  async change(row: string, count: number, gapMs: number): Promise<number[]> {
    const times: number[] = [];
    for (let n = 0; n < count; n++) {
      times.push(performance.now());
      await this.#rows.put(row, String(n));
      await wait(gapMs);
    }
    return times;
  }

  /** W3, W7: opens a replica; resolves to the time until a row is read, in milliseconds. */
  async openAndRead(options: OpenOptions, row: number): Promise<number> {
    const from = performance.now();
    await this.openRows(options);
    const value = importedValue(row);
    await untilRow(this.#rows, rowName(row), (shown) => shown === value);
    return performance.now() - from;
  }

  resident(): number {
    return residentMiB();
  }

  async openText(options: OpenOptions): Promise<boolean> {
    if (this.#peer.openText === undefined) return false;
    this.#text = await this.#peer.openText(options);
    return true;
  }

  /** W4: types the edits of a file. */
  async type(file: string): Promise<void> {
    const edits = JSON.parse(readFileSync(file, "utf8")) as Patch[][];
    for (let i = 0; i < edits.length; i++) {
      const ahead = this.#text.edit(edits[i]!);
      if (ahead instanceof Promise) await ahead;
      if (i % SLICE === SLICE - 1) await turn();
    }
  }

  /** W4: resolves once the text is the one of a file. */
  async untilText(file: string): Promise<void> {
    const text = readFileSync(file, "utf8");
    while (
      await this.#text.length() !== text.length ||
      await this.#text.text() !== text
    ) {
      await wait(1);
    }
  }

  /** W5: time of each edit until the own view shows it, in microseconds. */
  async ownView(count: number, rows: number): Promise<number[]> {
    const took: number[] = [];
    for (let i = 0; i < count; i++) {
      const row = rowName((i * 7919) % rows);
      const value = `own ${String(i).padStart(10, "0")}`;
      const from = performance.now();
      const made = this.#rows.put(row, value);
      let shown = this.#rows.get(row);
      if (shown instanceof Promise) shown = await shown;
      if (shown !== value) {
        await untilRow(this.#rows, row, (now) => now === value);
      }
      took.push((performance.now() - from) * 1000);
      await made;
      if (i % 16 === 15) await turn();
    }
    return took;
  }

  /** W5: edits a second until all are durable on the device, where the product is. */
  async queue(count: number, rows: number): Promise<number> {
    const from = performance.now();
    const made: unknown[] = [];
    for (let i = 0; i < count; i++) {
      const row = rowName((i * 7919) % rows);
      made.push(this.#rows.put(row, `queue ${String(i).padStart(8, "0")}`));
      if (i % SLICE === SLICE - 1) await turn();
    }
    await Promise.all(made);
    await this.#rows.durable?.();
    return count / (performance.now() - from) * 1000;
  }
}

/** Serves the requests of the driver until the standard input ends. */
export function runProgram(peer: Peer): void {
  const program = new Program(peer) as unknown as Record<
    string,
    (...args: readonly unknown[]) => unknown
  >;
  const answer = (message: Answer): void => {
    process.stdout.write(`${JSON.stringify(message)}\n`);
  };
  const serve = async ({ id, name, args }: Request): Promise<void> => {
    try {
      answer({ id, value: await program[name]!(...args) });
    } catch (error) {
      answer({ id, error: String((error as Error).stack ?? error) });
    }
  };
  const lines = createInterface({ input: process.stdin });
  lines.on("line", (text) => void serve(JSON.parse(text) as Request));
  lines.on("close", () => process.exit(0));
}
