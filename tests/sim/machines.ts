/**
 * State machines of the simulated world. The state is the list of all commands
 * that were applied, in order, and that of each key. Each machine throws at
 * `POISON` and rejects `DENIED` by its result.
 *
 * A command is the text `session:number:key:kind`, and bytes of filling after a
 * bar that are not part of the state. Its result is the length of its key's list.
 *
 * @module
 */

import type {
  Entry,
  Forked,
  HostRow,
  HostState,
  IConcurrentStateMachine,
  IExtended,
  IFork,
  IHash,
  IHostState,
  IOnDiskStateMachine,
  IRecoveredHash,
  IRefusal,
  IRemoveData,
  IStateMachine,
  IStateVersion,
  MaybePromise,
  NodeHost,
  Replica,
  ReplicaConfig,
  Result,
  Submission,
} from "../../mod.ts";
import type { BlockStore } from "../../src/ports/mod.ts";
import { violations } from "../support/environment.ts";
import { REFUSED } from "./context.ts";
import type { OracleMachine } from "./oracles.ts";

/** Word at which every machine throws. */
export const POISON = "poison";

/** Word that makes every machine reject a command by its result. */
export const DENIED = "denied";

/** Query for all commands. */
export const ALL = "";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Decodes ASCII, which commands and their results are: faster than a `TextDecoder`, for so few bytes. */
export function textOf(
  bytes: Uint8Array = new Uint8Array(),
  end: number = bytes.length,
): string {
  let text = "";
  for (let i = 0; i < end; i++) text += String.fromCharCode(bytes[i]!);
  return text;
}

/** Encodes ASCII. */
function bytesOf(text: string): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** Decodes the text of a command, without its filling. */
export function commandOf(cmd: Uint8Array): string {
  const end = cmd.length > 64 ? cmd.indexOf(0x7c) : -1;
  return textOf(cmd, end < 0 ? cmd.length : end);
}

const texts = new WeakMap<Submission, string>();

/** Decodes the text of a submission's command, once for each submission. */
export function textOfSubmission(submission: Submission): string {
  let text = texts.get(submission);
  if (text === undefined) {
    texts.set(submission, text = commandOf(submission.cmd));
  }
  return text;
}

/** Encodes a command with bytes of filling. */
export function encodeCommand(
  command: string,
  filling = 0,
): Uint8Array<ArrayBuffer> {
  if (filling === 0) return bytesOf(command);
  // The bar is looked for in long commands only.
  const cmd = new Uint8Array(Math.max(65, command.length + 1) + filling);
  cmd.fill(0x2e);
  encoder.encodeInto(command, cmd);
  cmd[command.length] = 0x7c;
  return cmd;
}

/** Key of a command. */
export function keyOf(command: string): string {
  const number = command.indexOf(":") + 1;
  const key = command.indexOf(":", number) + 1;
  return command.slice(key, command.indexOf(":", key));
}

/** Mask by which the hashes of a state version differ from those of version 0. */
export function versionMask(version: number): bigint {
  return BigInt(version) * 0x9e3779b97f4a7c15n & 0xffffffffffffffffn;
}

/** Draws the code of a process: it throws at all poisoned commands, at every other one, or at none. */
export function drawCode(random: () => number): Build["throwsAt"] {
  switch (random() % 3) {
    case 0:
      return undefined;
    case 1:
      return (command) => parseInt(command.split(":")[1]!) % 2 === 0;
    default:
      return () => false;
  }
}

/** Build of a machine: its code and the size of its snapshots. */
export interface Build {
  /** State version of its code. */
  readonly version: number;
  /** Bytes of filling in each snapshot, so that it comes in many parts. */
  readonly filling: number;
  /** Chooses the poisoned commands at which this code throws; all without it. */
  readonly throwsAt?: ((command: string) => boolean) | undefined;
}

/** List that is only appended to, so that a prefix of it can be shared. */
class State {
  readonly list: string[] = [];
  readonly #keys = new Map<string, string[]>();
  #low = 0x811c9dc5 | 0;
  #high = 0x01000193 | 0;

  add(command: string): number {
    this.list.push(command);
    const key = keyOf(command);
    let own = this.#keys.get(key);
    if (own === undefined) this.#keys.set(key, own = []);
    own.push(command);
    let low = this.#low;
    let high = this.#high;
    for (let i = 0; i < command.length; i++) {
      low = Math.imul(low ^ command.charCodeAt(i), 16777619);
      high = Math.imul(high ^ low >>> 11, 2246822519);
    }
    this.#low = low;
    this.#high = high ^ this.list.length;
    return own.length;
  }

  of(key: string): readonly string[] {
    return key === ALL ? this.list : this.#keys.get(key) ?? [];
  }

  get hash(): bigint {
    return BigInt(this.#high >>> 0) << 32n | BigInt(this.#low >>> 0);
  }
}

interface Saved {
  readonly version: number;
  readonly list: readonly string[];
}

async function readAll(r: ReadableStream<Uint8Array>): Promise<Saved> {
  let json = "";
  const decoder = new TextDecoder();
  for await (const chunk of r) json += decoder.decode(chunk, { stream: true });
  return JSON.parse(json) as Saved;
}

/** Part that all kinds of machines have. */
class Ledger implements IHash, IExtended, IRefusal, IStateVersion {
  state: State = new State();
  readonly stateVersion: number;
  readonly build: Build;
  #recovered: bigint | undefined;
  #isClosed = false;

  constructor(build: Build) {
    this.build = build;
    this.stateVersion = build.version;
  }

  refusal({ value, data }: Result): string | undefined {
    return value === 0n ? textOf(data) : undefined;
  }

  /** Result of a command that is rejected; throws at a poisoned one. */
  #check(command: string): Result | undefined {
    if (command.endsWith(POISON)) {
      const { throwsAt } = this.build;
      if (throwsAt === undefined || throwsAt(command)) {
        throw new TypeError(REFUSED);
      }
    }
    return command.endsWith(DENIED)
      ? { value: 0n, data: bytesOf(`${REFUSED} by result`) }
      : undefined;
  }

  applyTo(state: Pick<State, "add">, cmd: Uint8Array): Result {
    const command = commandOf(cmd);
    return this.#check(command) ??
      { value: BigInt(state.add(command)), data: bytesOf(command) };
  }

  applyAll(entries: Entry[]): Entry[] {
    if (this.#isClosed) violations.push("update() after close()");
    for (const entry of entries) {
      entry.result = this.applyTo(this.state, entry.cmd);
    }
    return entries;
  }

  lookup(query: unknown): unknown {
    return this.state.of(query as string).slice();
  }

  naLookup(query: Uint8Array): Uint8Array {
    return encoder.encode(
      JSON.stringify(this.state.of(decoder.decode(query))),
    );
  }

  getHash(): bigint {
    return this.state.hash ^ versionMask(this.stateVersion);
  }

  getRecoveredHash(): bigint | undefined {
    return this.#recovered;
  }

  async write(
    w: WritableStream<Uint8Array>,
    list: readonly string[],
  ): Promise<void> {
    const writer = w.getWriter();
    const saved: Saved = { version: this.stateVersion, list };
    await writer.write(encoder.encode(JSON.stringify(saved)));
    for (let left = this.build.filling; left > 0; left -= 65_536) {
      await writer.write(new Uint8Array(Math.min(left, 65_536)).fill(32));
    }
    writer.releaseLock();
  }

  /** Replaces the state. */
  set({ version, list }: Saved): void {
    const state = new State();
    for (const command of list) state.add(command);
    this.state = state;
    this.#recovered = version === this.stateVersion
      ? undefined
      : state.hash ^ versionMask(version);
  }

  close(): void {
    if (this.#isClosed) violations.push("close() twice");
    this.#isClosed = true;
  }
}

/** Fork of a ledger: a prefix of its list, and what was added to it. */
class LedgerFork {
  readonly #machine: Ledger;
  readonly #state: State;
  readonly #length: number;
  readonly added: string[] = [];

  constructor(machine: Ledger) {
    this.#machine = machine;
    this.#state = machine.state;
    this.#length = machine.state.list.length;
  }

  add(command: string): number {
    this.added.push(command);
    return this.lookup(keyOf(command)).length;
  }

  apply(cmd: Uint8Array): Result {
    return this.#machine.applyTo(this, cmd);
  }

  applyAll(entries: Entry[]): Entry[] {
    for (const entry of entries) entry.result = this.apply(entry.cmd);
    return entries;
  }

  lookup(query: unknown): string[] {
    if (this.#state.list.length !== this.#length) {
      violations.push("lookup() of a fork whose machine was updated");
    }
    const key = query as string;
    const added = key === ALL
      ? this.added
      : this.added.filter((command) => keyOf(command) === key);
    return [...this.#state.of(key), ...added];
  }
}

/** Regular machine that a view copies by snapshot. */
class PlainLedger extends Ledger implements IStateMachine {
  update(cmd: Uint8Array): Result {
    return this.applyTo(this.state, cmd);
  }

  async saveSnapshot(w: WritableStream<Uint8Array>): Promise<void> {
    await this.write(w, this.state.list);
  }

  async recoverFromSnapshot(r: ReadableStream<Uint8Array>): Promise<void> {
    this.set(await readAll(r));
  }
}

/** Regular machine that a view forks. */
class ForkLedger extends PlainLedger
  implements IFork<IStateMachine>, IRecoveredHash {
  fork(): Forked<IStateMachine> {
    const fork = new LedgerFork(this);
    return {
      update: (cmd): Result => fork.apply(cmd),
      lookup: (query): string[] => fork.lookup(query),
    };
  }
}

/** Machine that saves a context. */
class ContextLedger extends Ledger {
  readonly #contexts = new Set<readonly string[]>();

  prepareSnapshot(): unknown {
    const context = this.state.list.slice();
    this.#contexts.add(context);
    return context;
  }

  async saveContext(
    context: unknown,
    w: WritableStream<Uint8Array>,
  ): Promise<void> {
    if (!this.#contexts.delete(context as string[])) {
      violations.push("saveSnapshot() twice for a context");
    }
    await this.write(w, context as string[]);
  }

  forkAll(): Forked<IConcurrentStateMachine> {
    const fork = new LedgerFork(this);
    return {
      update: (entries): Entry[] => fork.applyAll(entries),
      lookup: (query): string[] => fork.lookup(query),
    };
  }
}

/** Concurrent machine that a view copies by snapshot. */
class ConcurrentLedger extends ContextLedger
  implements IConcurrentStateMachine, IRecoveredHash {
  update(entries: Entry[]): Entry[] {
    return this.applyAll(entries);
  }

  async saveSnapshot(
    context: unknown,
    w: WritableStream<Uint8Array>,
  ): Promise<void> {
    await this.saveContext(context, w);
  }

  async recoverFromSnapshot(r: ReadableStream<Uint8Array>): Promise<void> {
    this.set(await readAll(r));
  }
}

/** Blocks of the disk of an on-disk machine: batches of commands by index, and host rows. */
const BATCH = "batch/";
const ROW = "row/";
const END = "\x7f";

/** On-disk machine over a block store, with host rows. */
class DiskLedger extends ContextLedger
  implements
    IOnDiskStateMachine,
    IHostState,
    IRemoveData,
    IFork<IOnDiskStateMachine>,
    IRecoveredHash {
  readonly #store: BlockStore;
  #rows: HostRow[] = [];
  #index = 0;

  constructor(store: BlockStore, build: Build) {
    super(build);
    this.#store = store;
  }

  async removeData(): Promise<void> {
    await this.#store.write({ deleteRanges: [["", END]] }, "strict");
  }

  async open(): Promise<number> {
    const blocks = await this.#store.list("", END);
    const list: string[] = [];
    for (const { key, bytes } of blocks) {
      if (key.startsWith(BATCH)) {
        this.#index = parseInt(key.slice(BATCH.length), 16);
        list.push(...JSON.parse(decoder.decode(bytes)) as string[]);
      } else this.#rows.push({ key: key.slice(ROW.length), value: bytes });
    }
    this.set({ version: this.stateVersion, list });
    // The index returned by open() must be durable.
    await this.#store.write({}, "strict");
    return this.#index;
  }

  readHostRows(): readonly HostRow[] {
    return this.#rows.splice(0);
  }

  /** Writes commands and host rows in one step; with `isNew`, in place of all others. */
  async #write(
    { index, rows }: HostState,
    commands: readonly string[],
    isNew: boolean,
  ): Promise<void> {
    const key = BATCH + index.toString(16).padStart(8, "0");
    const put = [{ key, bytes: encoder.encode(JSON.stringify(commands)) }];
    const removed: string[] = [];
    for (const { key, value } of rows) {
      if (value === undefined) removed.push(ROW + key);
      else put.push({ key: ROW + key, bytes: value.slice() });
    }
    await this.#store.write(
      isNew ? { deleteRanges: [["", END]], put } : { delete: removed, put },
      "relaxed",
    );
    this.#index = index;
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
    if (entries.length > 0 && entries[0]!.index <= this.#index) {
      violations.push(`entry ${entries[0]!.index} is in the machine already`);
    }
    // A write that fails leaves the state as it was (U8).
    const fork = new LedgerFork(this);
    fork.applyAll(entries);
    await this.#write(host(), fork.added, false);
    for (const command of fork.added) this.state.add(command);
    return entries;
  }

  async recoverWithHost(
    r: ReadableStream<Uint8Array>,
    host: HostState,
  ): Promise<void> {
    const saved = await readAll(r);
    await this.#write(host, saved.list, true);
    this.set(saved);
  }

  fork(): Forked<IOnDiskStateMachine> {
    return this.forkAll();
  }

  async sync(): Promise<void> {
    await this.#store.write({}, "strict");
  }

  async saveSnapshot(
    context: unknown,
    w: WritableStream<Uint8Array>,
  ): Promise<void> {
    await this.saveContext(context, w);
  }

  // `lookup()` may follow, and a restart opens another instance.
  override close(): void {}
}

/** Kinds of state machines. */
export const LEDGERS = ["fork", "plain", "concurrent", "disk"] as const;

/** Kind of a state machine. */
export type LedgerKind = (typeof LEDGERS)[number];

/** Starts a replica of one kind; an on-disk machine uses `store`. */
export async function startLedger(
  host: NodeHost,
  kind: LedgerKind,
  config: ReplicaConfig,
  store: BlockStore,
  build: Build,
): Promise<Replica> {
  switch (kind) {
    case "fork":
      return await host.startCluster(() => new ForkLedger(build), config);
    case "plain":
      return await host.startCluster(() => new PlainLedger(build), config);
    case "concurrent":
      return await host.startConcurrentCluster(
        () => new ConcurrentLedger(build),
        config,
      );
    case "disk":
      return await host.startOnDiskCluster(
        () => new DiskLedger(store, build),
        {
          ...config,
          replayMachine: () => new ConcurrentLedger(build),
        },
      );
  }
}

/** Machine by which the oracles replay a log. */
export const ORACLE: OracleMachine = {
  apply(cmd): string | undefined {
    const command = commandOf(cmd);
    // A poisoned command that is not skipped was applied by code that does not throw.
    return command.endsWith(DENIED) ? undefined : command;
  },
  keyOf,
  hash(list, stateVersion): bigint {
    const state = new State();
    for (const command of list) state.add(command);
    return state.hash ^ versionMask(stateVersion);
  },
};
