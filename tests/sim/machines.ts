/**
 * State machines of the simulated world: each records its commands in order,
 * throws at `POISON` and rejects `DENIED` by its result.
 *
 * @module
 */

import type {
  Entry,
  Forked,
  HostRow,
  HostState,
  IFork,
  IHash,
  IHostState,
  IOnDiskStateMachine,
  IRemoveData,
  IStateMachine,
  MaybePromise,
  NodeHost,
  Replica,
  ReplicaConfig,
  Result,
} from "../../mod.ts";
import type { BlockStore } from "../../src/ports/mod.ts";
import { bytes, text } from "../support/bytes.ts";
import {
  ConcurrentJournal,
  Journal,
  type MachineFaults,
  RegularJournal,
} from "../machines/journal.ts";
import { violations } from "../support/environment.ts";
import { REFUSED } from "./context.ts";

/** Word at which every machine throws. */
export const POISON = "poison";

/** Word that makes every machine reject a command by its result. */
export const DENIED = "denied";

/** Result of a command that is rejected, undefined for others; throws at `POISON`. */
function refused(cmd: Uint8Array): Result | undefined {
  const command = text(cmd);
  if (command.includes(POISON)) throw new TypeError(REFUSED);
  return command.includes(DENIED)
    ? { value: 0n, data: bytes(`${REFUSED} by result`) }
    : undefined;
}

const refusing: MachineFaults = {
  refusal: ({ value, data }) => value === 0n ? text(data) : undefined,
};

function resultOf(list: readonly string[]): Result {
  return { value: BigInt(list.length), data: bytes(list.at(-1)!) };
}

/** Reads a list like `Journal.readAll()`, but without runtime streams whose timing is not simulated. */
async function readList(r: ReadableStream<Uint8Array>): Promise<string[]> {
  const decoder = new TextDecoder();
  let json = "";
  for await (const chunk of r) json += decoder.decode(chunk, { stream: true });
  return JSON.parse(json) as string[];
}

/** Fork of a list; accepts one entry or many. */
class ListFork {
  readonly #list: string[];

  constructor(list: readonly string[]) {
    this.#list = [...list];
  }

  apply(cmd: Uint8Array): Result {
    const result = refused(cmd);
    if (result !== undefined) return result;
    this.#list.push(text(cmd));
    return resultOf(this.#list);
  }

  applyAll(entries: Entry[]): Entry[] {
    for (const entry of entries) entry.result = this.apply(entry.cmd);
    return entries;
  }

  lookup(): string[] {
    return [...this.#list];
  }
}

/** Regular machine that a view copies by snapshot. */
class PlainLedger extends RegularJournal {
  override readAll(r: ReadableStream<Uint8Array>): Promise<string[]> {
    return readList(r);
  }

  override apply(cmd: Uint8Array): Result {
    return refused(cmd) ?? super.apply(cmd);
  }
}

/** Regular machine that a view forks. */
class ForkLedger extends PlainLedger implements IFork<IStateMachine> {
  fork(): Forked<IStateMachine> {
    const fork = new ListFork(this.list);
    return {
      update: (cmd): Result => fork.apply(cmd),
      lookup: (): string[] => fork.lookup(),
    };
  }
}

/** Concurrent machine that a view copies by snapshot. */
class ConcurrentLedger extends ConcurrentJournal {
  override readAll(r: ReadableStream<Uint8Array>): Promise<string[]> {
    return readList(r);
  }

  override apply(cmd: Uint8Array): Result {
    return refused(cmd) ?? super.apply(cmd);
  }
}

interface Saved {
  readonly index: number;
  readonly list: readonly string[];
  readonly rows: readonly (readonly [string, readonly number[]])[];
}

const KEY = "ledger";

/** On-disk machine over a block store, with host rows. */
class DiskLedger extends Journal
  implements
    IOnDiskStateMachine,
    IHash,
    IHostState,
    IRemoveData,
    IFork<IOnDiskStateMachine> {
  readonly #store: BlockStore;
  #rows = new Map<string, Uint8Array>();
  #index = 0;
  #contexts = 0;

  constructor(store: BlockStore, clusterID: bigint, nodeID: bigint) {
    super(refusing, clusterID, nodeID);
    this.#store = store;
  }

  override readAll(r: ReadableStream<Uint8Array>): Promise<string[]> {
    return readList(r);
  }

  override apply(cmd: Uint8Array): Result {
    return refused(cmd) ?? super.apply(cmd);
  }

  async removeData(): Promise<void> {
    await this.#store.write({ delete: [KEY] }, "strict");
  }

  async open(): Promise<number> {
    const [block] = await this.#store.get([KEY]);
    if (block !== undefined) {
      const { index, list, rows } = JSON.parse(text(block)) as Saved;
      this.#index = index;
      this.list = [...list];
      this.#rows = new Map(
        rows.map(([key, value]) => [key, Uint8Array.from(value)]),
      );
    }
    // The index returned by open() must be durable.
    await this.#store.write({}, "strict");
    return this.#index;
  }

  readHostRows(): readonly HostRow[] {
    return [...this.#rows].map(([key, value]) => ({ key, value }));
  }

  #write({ index, rows }: HostState): MaybePromise<void> {
    this.#index = index;
    for (const { key, value } of rows) {
      if (value === undefined) this.#rows.delete(key);
      else this.#rows.set(key, value.slice());
    }
    const saved: Saved = {
      index,
      list: this.list,
      rows: [...this.#rows].map(([key, value]) => [key, [...value]]),
    };
    const block = { key: KEY, bytes: bytes(JSON.stringify(saved)) };
    return this.#store.write({ put: [block] }, "relaxed");
  }

  update(): MaybePromise<Entry[]> {
    violations.push("update() of a machine with the host's rows");
    return [];
  }

  recoverFromSnapshot(): void {
    violations.push("recoverFromSnapshot() of one with the host's rows");
  }

  async updateWithHost(
    entries: Entry[],
    host: () => HostState,
  ): Promise<Entry[]> {
    for (const entry of entries) {
      if (entry.index <= this.#index) {
        violations.push(`entry ${entry.index} is in the machine already`);
      }
      entry.result = this.apply(entry.cmd);
    }
    await this.#write(host());
    return entries;
  }

  async recoverWithHost(
    r: ReadableStream<Uint8Array>,
    host: HostState,
  ): Promise<void> {
    const list = await this.readAll(r);
    this.list = list;
    this.#rows.clear();
    await this.#write(host);
  }

  lookup(query: unknown): unknown {
    return this.answer(query);
  }

  fork(): Forked<IOnDiskStateMachine> {
    const fork = new ListFork(this.list);
    return {
      update: (entries): Entry[] => fork.applyAll(entries),
      lookup: (): string[] => fork.lookup(),
    };
  }

  getHash(): bigint {
    return this.hash();
  }

  async sync(): Promise<void> {
    await this.#store.write({}, "strict");
  }

  prepareSnapshot(): unknown {
    this.#contexts++;
    return [...this.list];
  }

  async saveSnapshot(
    context: unknown,
    w: WritableStream<Uint8Array>,
  ): Promise<void> {
    if (this.#contexts-- === 0) violations.push("saveSnapshot() once too many");
    await this.write(w, context as string[]);
  }

  close(): void {}
}

/** Kinds of state machines. */
export const LEDGERS = ["fork", "plain", "concurrent", "disk"] as const;

/** Starts a replica of one kind; an on-disk machine uses `store`. */
export async function startLedger(
  host: NodeHost,
  kind: (typeof LEDGERS)[number],
  config: ReplicaConfig,
  store: BlockStore,
  more: MachineFaults = {},
): Promise<Replica> {
  const faults = { ...refusing, ...more };
  switch (kind) {
    case "fork":
      return await host.startCluster(
        (c, n) => new ForkLedger(faults, c, n),
        config,
      );
    case "plain":
      return await host.startCluster(
        (c, n) => new PlainLedger(faults, c, n),
        config,
      );
    case "concurrent":
      return await host.startConcurrentCluster(
        (c, n) => new ConcurrentLedger(faults, c, n),
        config,
      );
    case "disk":
      return await host.startOnDiskCluster(
        (c, n) => new DiskLedger(store, c, n),
        config,
      );
  }
}
