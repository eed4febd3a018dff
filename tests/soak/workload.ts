/**
 * Load on the replicas of one process of a soak: proposals in a session and
 * outside, submissions, reads and watches, all written down.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  ErrSystemBusy,
  ErrUnknownOutcome,
  kv,
  type KVAnswer,
  type KVQuery,
  type KVRow,
  KVStateMachine,
  type Replica,
  type Result,
  type Session,
  type Submission,
} from "../../mod.ts";
import { ErrConnectionLost } from "../../src/sync/client/mod.ts";
import { type Random, seeded } from "../support/random.ts";
import {
  nameIn,
  type Operation,
  registerOf,
  REGISTERS,
  type ReplicaReport,
  SERIES,
  type Series,
  SERIES_END,
  valueOf,
  type Way,
  type Write,
} from "./record.ts";

/** Number of registers of a cluster. */
const REGISTERS_MAX = 6;

/** Number of session proposals in flight, and of pending submissions past which no more are made. */
const IN_FLIGHT = 6;
const PENDING_MAX = 40;

/** Longest pause between two operations of a loop, in milliseconds. */
const PAUSE_MS = 10;

/** Longest padding of a value, of most and of a few, in bytes. */
const PADDING = 600;
const LARGE_PADDING = 60_000;

/** Time after which a caller gives up waiting, of those that do, in milliseconds. */
const PATIENCE_MS = 60;

/** Client of a soak on one cluster. */
export interface WorkloadOptions {
  readonly replica: Replica<KVQuery, KVAnswer>;
  readonly cluster: number;
  /** Name of the client, the same in each of its lives. */
  readonly client: string;
  /** Number of the life. */
  readonly life: number;
  readonly seed: number;
  /** True if the replica starts on a state that has all commands which its outbox knows as decided. */
  readonly keepsState: boolean;
  readonly write: Write;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function textOf(bytes: unknown): string | undefined {
  return bytes === undefined
    ? undefined
    : new TextDecoder().decode(bytes as Uint8Array);
}

/** Load on one replica. */
export class Workload {
  readonly #replica: Replica<KVQuery, KVAnswer>;
  readonly #cluster: number;
  readonly #write: Write;
  readonly #random: Random;
  /** Beginning of the names of its operations. */
  readonly #name: string;
  /** Keys of the series of its submissions, and of the proposals of this life. */
  readonly #submissions: string;
  readonly #proposals: string;
  /** Values that registers had lately. */
  readonly #seen = new Map<string, string>();
  #names = 0;
  /** Last number that was submitted, and the last one that is durable. */
  #submitted = 0;
  #durable = 0;
  /** Commands that the outbox is storing, in the order of the calls; another list after each change. */
  #storing: readonly Uint8Array[] = [];
  #views = 0;
  #isStopped = false;
  #loops: Promise<unknown> = Promise.resolve();
  readonly #stop = new AbortController();

  private constructor(options: WorkloadOptions) {
    const { replica, cluster, client, life, seed, write } = options;
    this.#replica = replica;
    this.#cluster = cluster;
    this.#write = write;
    this.#random = seeded(seed);
    this.#name = `${client}:${cluster}.${life}`;
    this.#submissions = `${SERIES}${client}`;
    this.#proposals = `${SERIES}${client}.${life}`;
  }

  /** Starts the load on a replica that is running. */
  static async start(options: WorkloadOptions): Promise<Workload> {
    const workload = new Workload(options);
    if (!options.keepsState) await workload.#catchUp();
    await workload.#begin();
    return workload;
  }

  /** Resolves once the state has all that the server has committed. */
  async #catchUp(): Promise<void> {
    for (;;) {
      try {
        await this.#replica.read(kv.get(this.#submissions));
        return;
      } catch (error) {
        if (
          !(error instanceof ErrSystemBusy ||
            error instanceof ErrConnectionLost)
        ) throw error;
        await sleep(1);
      }
    }
  }

  async #begin(): Promise<void> {
    const pending = this.#replica.pending();
    const submitted = await this.#shown();
    this.#submitted = this.#durable = submitted;
    const names: string[] = [];
    for (const submission of pending) {
      const name = nameIn(textOf(submission.cmd)!);
      names.push(name);
      this.#await(name, submission);
    }
    await this.#write({
      type: "started",
      cluster: this.#cluster,
      submitted,
      pending: names,
    });
    this.#loops = Promise.all([
      this.#repeat(() => this.#propose()),
      this.#repeat(() => this.#submit()),
      this.#repeat(() => this.#read()),
      this.#repeat(() => this.#checkView()),
      this.#inSession(),
      this.#watch(),
    ].map((loop) => loop.catch((error) => this.#unexpected(error))));
  }

  async #unexpected(error: unknown): Promise<void> {
    await this.#violation(
      `${this.#name}: ${(error as Error)?.stack ?? error}`,
    );
  }

  async #violation(text: string): Promise<void> {
    await this.#write({ type: "violation", text });
  }

  async #repeat(step: () => Promise<void>): Promise<void> {
    while (!this.#isStopped) {
      await step();
      await sleep(this.#random.below(PAUSE_MS));
    }
  }

  #number(): string {
    return `${this.#name}.${++this.#names}`;
  }

  #key(): string {
    return registerOf(this.#random.below(REGISTERS_MAX));
  }

  #value(name: string): string {
    const padding = this.#random.oneIn(60) ? LARGE_PADDING : PADDING;
    return valueOf(name, this.#random.below(padding));
  }

  /** Name of the value of a register, which is remembered. */
  #found(key: string, bytes: unknown): string | null {
    const value = textOf(bytes);
    if (value === undefined) return null;
    const name = nameIn(value);
    this.#seen.set(key, value);
    return name;
  }

  async #call(
    name: string,
    key: string,
    operation: Operation,
    way?: Way,
    series?: Series,
  ): Promise<void> {
    const ms = Date.now();
    const cluster = this.#cluster;
    await this.#write({
      type: "call",
      cluster,
      name,
      way,
      key,
      operation,
      series,
      ms,
    });
  }

  /** Writes down how an operation has ended. */
  async #end(
    name: string,
    key: string,
    work: Promise<Result>,
    isSwap = false,
  ): Promise<boolean> {
    try {
      const { value, data } = await work;
      const ms = Date.now();
      if (value === 1n) await this.#write({ type: "result", name, ms });
      else if (isSwap && value === 0n) {
        const found = this.#found(key, data);
        await this.#write({ type: "result", name, found, ms });
      } else {
        await this.#violation(
          `${name} has the result ${value} ${textOf(data)?.slice(0, 100)}`,
        );
      }
      return true;
    } catch (error) {
      await this.#failed(name, error);
      return false;
    }
  }

  async #failed(name: string, error: unknown): Promise<void> {
    const text = String(error);
    if (error instanceof ErrSystemBusy || error instanceof ErrConnectionLost) {
      await this.#write({ type: "rejected", name, error: text });
    } else if (
      error instanceof ErrUnknownOutcome ||
      (error as Error).name === "TimeoutError"
    ) {
      await this.#write({ type: "unknown", name, error: text });
    } else {
      await this.#violation(`${name} has failed: ${text}`);
    }
  }

  /** Proposes outside of a session: such a command may be of unknown outcome. */
  async #propose(): Promise<void> {
    const name = this.#number();
    const key = this.#key();
    const value = this.#value(name);
    const expected = this.#random.oneIn(2) ? this.#seen.get(key) : undefined;
    const signal = this.#random.oneIn(4)
      ? AbortSignal.timeout(this.#random.below(PATIENCE_MS))
      : undefined;
    const options = signal === undefined ? {} : { signal };
    const isSwap = expected !== undefined;
    const cmd = isSwap
      ? kv.compareAndSwap(key, expected, value)
      : kv.put(key, value);
    await this.#call(
      name,
      key,
      isSwap
        ? { type: "swap", expected: nameIn(expected), value: name }
        : { type: "write", value: name },
      "alone",
    );
    await this.#end(name, key, this.#replica.propose(cmd, options), isSwap);
  }

  /** Proposes in a session, several commands at a time. */
  async #inSession(): Promise<void> {
    const signal = this.#stop.signal;
    let session: Session;
    try {
      session = await this.#replica.openSession({ signal });
    } catch (error) {
      if (signal.aborted) return;
      throw error;
    }
    let last = 0;
    const one = async (): Promise<void> => {
      const name = this.#number();
      const key = this.#key();
      const put = kv.put(key, this.#value(name));
      // What is applied twice would bring an old value back; or the series would break.
      const isNumbered = this.#random.oneIn(2);
      const number = last + 1;
      if (isNumbered) last = number;
      const cmd = isNumbered
        ? this.#numbered(this.#proposals, number, put)
        : put;
      const operation = { type: "write", value: name } as const;
      const series = isNumbered ? { key: this.#proposals, number } : undefined;
      await this.#call(name, key, operation, "session", series);
      if (
        !await this.#end(name, key, this.#replica.propose(cmd, { session }))
      ) {
        return;
      }
      if (isNumbered) await this.#checkOwn(number);
    };
    await Promise.all(
      Array.from({ length: IN_FLIGHT }, () => this.#repeat(one)),
    );
  }

  /** Fails unless a stale read shows what was applied here before its result. */
  async #checkOwn(number: number): Promise<void> {
    try {
      const value = await this.#replica.staleRead(kv.get(this.#proposals));
      const found = Number(textOf(value) ?? 0);
      if (found >= number) return;
      await this.#violation(
        `${this.#name} has the result of ${number}, and reads ${found}`,
      );
    } catch (error) {
      // It is recovering from a snapshot.
      if (!(error instanceof ErrSystemBusy)) throw error;
    }
  }

  #numbered(key: string, number: number, cmd: Uint8Array): Uint8Array {
    const before = number === 1 ? undefined : `${number - 1}`;
    return kv.batch([kv.compareAndSwap(key, before, `${number}`), cmd]);
  }

  /** Last number of its submissions in the optimistic view. */
  async #shown(): Promise<number> {
    for (;;) {
      try {
        const query = kv.get(this.#submissions);
        return Number(textOf(await this.#replica.view.lookup(query)) ?? 0);
      } catch (error) {
        if (!(error instanceof ErrSystemBusy)) throw error;
        await sleep(1);
      }
    }
  }

  async #submit(): Promise<void> {
    if (this.#replica.pending().length >= PENDING_MAX) return;
    const count = 1 + this.#random.below(4);
    await Promise.all(Array.from({ length: count }, () => this.#submitOne()));
    const durable = this.#durable;
    const shown = await this.#shown();
    if (shown >= durable && shown <= this.#submitted) return;
    await this.#violation(
      `${this.#name} has submitted ${durable}, and its view shows ${shown}`,
    );
  }

  async #submitOne(): Promise<void> {
    const name = this.#number();
    const key = this.#key();
    const put = kv.put(key, this.#value(name));
    const isNumbered = this.#random.oneIn(2);
    const operation = { type: "write", value: name } as const;
    if (isNumbered) this.#submitted++;
    const number = this.#submitted;
    const cmd = isNumbered
      ? this.#numbered(this.#submissions, number, put)
      : put;
    // In a page this waits; submissions begin in the order of their numbers all the same.
    await this.#call(
      name,
      key,
      operation,
      "outbox",
      isNumbered ? { key: this.#submissions, number } : undefined,
    );
    const submission = await this.#store(cmd);
    await this.#write({ type: "durable", name });
    if (isNumbered) this.#durable = Math.max(this.#durable, number);
    this.#await(name, submission);
  }

  /** Submits a command, which the view shows while it is being stored. */
  async #store(cmd: Uint8Array): Promise<Submission> {
    this.#storing = [...this.#storing, cmd];
    try {
      return await this.#replica.submit(cmd);
    } finally {
      this.#storing = this.#storing.filter((one) => one !== cmd);
    }
  }

  /** Writes down the result of a submission, also of one of an earlier life. */
  #await(name: string, submission: Submission): void {
    const end = async (): Promise<void> => {
      try {
        const { value } = await submission.result;
        const ms = Date.now();
        if (value === 1n) await this.#write({ type: "result", name, ms });
        else {await this.#violation(
            `Submission ${name} has the result ${value}`,
          );}
      } catch (error) {
        if (error instanceof ErrUnknownOutcome) {
          await this.#write({ type: "unknown", name, error: String(error) });
        } else await this.#violation(`Submission ${name}: ${error}`);
      }
    };
    end().catch((error) => this.#unexpected(error));
  }

  async #read(): Promise<void> {
    const name = this.#number();
    const key = this.#key();
    const signal = this.#stop.signal;
    await this.#call(name, key, { type: "read" });
    try {
      const query = kv.get(key);
      const value = this.#random.oneIn(4)
        ? kv.decodeAnswer(
          query,
          await this.#replica.naRead(kv.encodeQuery(query), { signal }),
        )
        : await this.#replica.read(query, { signal });
      const ms = Date.now();
      const found = this.#found(key, value);
      await this.#write({ type: "result", name, found, ms });
    } catch (error) {
      if (signal.aborted || error instanceof ErrSystemBusy) {
        await this.#write({ type: "rejected", name, error: String(error) });
      } else throw error;
    }
  }

  /** Fails unless the view is the committed state with the pending submissions, and those that are being stored, applied to it. */
  async #checkView(): Promise<void> {
    const replica = this.#replica;
    const range = this.#random.oneIn(2)
      ? kv.range(REGISTERS)
      : kv.range({ start: SERIES, end: SERIES_END });
    const pending = replica.pending();
    const storing = this.#storing;
    const { appliedIndex } = replica;
    const isSame = (): boolean =>
      replica.pending() === pending && this.#storing === storing &&
      replica.appliedIndex === appliedIndex;
    let committed: KVRow[];
    let shown: KVRow[];
    try {
      committed = await replica.staleRead(range) as KVRow[];
      shown = await replica.view.lookup(range) as KVRow[];
    } catch (error) {
      if (error instanceof ErrSystemBusy) return;
      throw error;
    }
    // Something has changed between the two.
    if (!isSame()) return;
    const model = new KVStateMachine();
    const all = await replica.staleRead(kv.range()) as KVRow[];
    if (!isSame()) return;
    for (const { key, value } of all) model.update(kv.put(key, value));
    for (const { cmd } of pending) model.update(cmd);
    for (const cmd of storing) model.update(cmd);
    const expected = model.lookup(range) as KVRow[];
    this.#views++;
    const difference = differenceOf(expected, shown);
    if (difference === undefined) return;
    await this.#violation(
      `${this.#name} at ${appliedIndex}, with ${pending.length} pending and ${committed.length} rows committed, shows ${difference}`,
    );
  }

  /** Fails if a watch of the submissions shows less than before. */
  async #watch(): Promise<void> {
    const { signal } = this.#stop;
    const query = kv.get(this.#submissions);
    let last = this.#durable;
    for await (const value of this.#replica.watch(query, { signal })) {
      const number = Number(textOf(value) ?? 0);
      if (number < last) {
        await this.#violation(
          `${this.#name}: watch shows ${number} after ${last}`,
        );
      }
      last = number;
    }
  }

  /** Ends the load; resolves once no submission is pending. */
  async quiesce(): Promise<void> {
    this.#isStopped = true;
    this.#stop.abort();
    await this.#loops;
    while (this.#replica.pending().length > 0) {
      if (this.#replica.error !== undefined) throw this.#replica.error;
      await sleep(5);
    }
    const views = this.#views;
    await this.#write({ type: "checked", views });
  }

  /** State of the replica, once it has applied that index. */
  async report(index: number): Promise<ReplicaReport> {
    await this.#replica.untilApplied(index);
    const range = kv.range({ start: SERIES, end: SERIES_END });
    const rows = await this.#replica.staleRead(range) as KVRow[];
    const { index: applied, hash } = await this.#replica.getHash();
    return {
      index: applied,
      hash: `${hash}`,
      series: Object.fromEntries(
        rows.map(({ key, value }) => [textOf(key)!, Number(textOf(value))]),
      ),
      pending: this.#replica.pending().length,
    };
  }
}

/** First row in which two answers differ, in words. */
function differenceOf(
  expected: readonly KVRow[],
  found: readonly KVRow[],
): string | undefined {
  const short = (row: KVRow | undefined): string =>
    row === undefined
      ? "nothing"
      : `${textOf(row.key)} = ${textOf(row.value)!.slice(0, 60)}`;
  for (let i = 0; i < Math.max(expected.length, found.length); i++) {
    const [one, other] = [expected[i], found[i]];
    if (
      textOf(one?.key) === textOf(other?.key) &&
      textOf(one?.value) === textOf(other?.value)
    ) continue;
    return `${short(other)} instead of ${short(one)}`;
  }
  return undefined;
}
