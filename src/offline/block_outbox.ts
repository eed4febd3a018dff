/**
 * An outbox over whatever keeps blocks.
 *
 * What is added while a write is under way shares the next: one block, in one
 * write of its own and nothing else, so that a command is durable as soon as
 * the store can make it. What was decided goes many at once: with a write that
 * is made anyway, or after a while.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  checkOptions,
  isBlockStore,
  isEnv,
  isOneOf,
  optional,
  type OptionChecks,
} from "../options.ts";
import { isSameBytes } from "../bytes.ts";
import { type Env, systemEnv } from "../env.ts";
import {
  OUTBOX_BLOCK_BYTES_MAX,
  OUTBOX_BLOCK_COMMANDS_MAX,
  OUTBOX_DONE_COMMANDS_MAX,
  OUTBOX_DONE_MS,
} from "../limits.ts";
import {
  ErrClusterAlreadyExist,
  ErrClusterClosed,
  ErrUnknownOutcome,
} from "../log/errors.ts";
import type { HistoryPoint } from "../log/history.ts";
import { submitting } from "./submitting.ts";
import { ErrStoreCorrupted } from "../store/errors.ts";
import { GroupCommit } from "../store/group_commit.ts";
import { clustersUnder } from "../store/names.ts";
import type { Block, BlockStore, Durability } from "../store/store.ts";
import {
  type CommandBlock,
  decodeCommands,
  decodeHead,
  decodeKept,
  encodeCommands,
  encodeHead,
  encodeKept,
  Names,
  type QueueHead,
} from "./outbox_block.ts";
import { ErrUnsynced } from "./errors.ts";
import type {
  Decided,
  HeldCommands,
  KeptCommand,
  Outbox,
  OutboxClient,
  OutboxQueue,
  OutboxSession,
  Submitting,
  Unsynced,
} from "./outbox.ts";

/** What a {@linkcode BlockOutbox} can be told. */
export interface BlockOutboxOptions {
  /** Time, random numbers and timers; by default the real ones. */
  readonly env?: Env;
  /**
   * What a command that was submitted survives: `relaxed` a process or browser
   * that is killed, `strict` a power cut. Either way a command that a power cut
   * leaves behind is applied once.
   *
   * @default {"relaxed"}
   */
  readonly durability?: Durability;
}

/** What a write does besides adding commands. */
interface Change {
  /** The session and mark to come. */
  readonly assign?: Omit<QueueHead, "done">;
  /** Whether what was noted goes with it. */
  readonly notes?: boolean;
}

/** What the store has of a queue. */
interface Loaded {
  readonly head: QueueHead;
  /** Whether the head is in the store. */
  readonly isHeaded: boolean;
  readonly blocks: readonly CommandBlock[];
  readonly kept: readonly KeptCommand[];
}

function lastOf({ first, commands }: CommandBlock): number {
  return first + commands.length - 1;
}

async function load(
  store: BlockStore,
  clusterID: bigint,
  names: Names,
  env: Env,
): Promise<Loaded> {
  let head: QueueHead | undefined;
  const blocks: CommandBlock[] = [];
  const kept: KeptCommand[] = [];
  for (const block of await store.list(...names.range)) {
    const { key } = block;
    if (key.startsWith(names.commands)) {
      blocks.push(decodeCommands(block, clusterID));
    } else if (key === names.head) head = decodeHead(block, clusterID);
    else kept.push(decodeKept(block, clusterID));
  }
  check(names, head, blocks);
  const isHeaded = head !== undefined;
  head ??= {
    done: 0,
    mark: 0,
    clientID: env.random64(),
    lost: 0,
    owner: undefined,
    session: undefined,
  };
  return { head, isHeaded, blocks, kept };
}

/** Each block follows the one before it, and the first what was decided. */
function check(
  names: Names,
  head: QueueHead | undefined,
  blocks: readonly CommandBlock[],
): void {
  // It comes with the first command.
  if (head === undefined && blocks.length > 0) {
    throw new ErrStoreCorrupted(names.head, "Head of the outbox is missing");
  }
  let next = (head?.done ?? 0) + 1;
  for (const [i, block] of blocks.entries()) {
    if (i === 0 ? block.first > next : block.first !== next) {
      throw new ErrStoreCorrupted(
        names.block(next),
        "Block of the outbox is missing",
      );
    }
    next = lastOf(block) + 1;
  }
}

function heldOf({ head, blocks, kept }: Loaded): HeldCommands {
  const { done, clientID, lost, owner, principal, session } = head;
  let mark = Math.max(head.mark, done);
  const commands: Uint8Array[] = [];
  for (const block of blocks) {
    block.commands.forEach((cmd, i) => {
      if (block.first + i > done) commands.push(cmd);
    });
    if (session !== undefined && block.session === session.index) {
      mark = Math.max(mark, lastOf(block));
    }
  }
  const client = { clientID, lost, owner, principal };
  return { done, commands, kept, session, mark, ...client };
}

class BlockQueue implements OutboxQueue {
  held: HeldCommands;
  sending = false;
  readonly #store: BlockStore;
  readonly #clusterID: bigint;
  readonly #names: Names;
  readonly #env: Env;
  readonly #durability: Durability;
  readonly #onDone: (done: number) => void;
  readonly #onClose: () => void;
  #head: QueueHead;
  #isHeaded: boolean;
  #mark: number;
  #last: number;
  /** Where the blocks of commands begin and end. */
  #blocks: { readonly first: number; readonly last: number }[];
  readonly #commit: GroupCommit<Uint8Array, number>;
  // What was noted and is not written yet.
  #done: number;
  #known: HistoryPoint | undefined;
  #keep = new Map<number, KeptCommand>();
  #forget = new Set<number>();
  #cancelTimer: (() => void) | undefined;
  #isSoon = false;
  #closing: Promise<void> | undefined;

  constructor(
    store: BlockStore,
    clusterID: bigint,
    names: Names,
    loaded: Loaded,
    options: Required<BlockOutboxOptions>,
    onDone: (done: number) => void,
    onClose: () => void,
  ) {
    this.held = heldOf(loaded);
    this.#store = store;
    this.#clusterID = clusterID;
    this.#names = names;
    this.#env = options.env;
    this.#durability = options.durability;
    this.#onDone = onDone;
    this.#onClose = onClose;
    this.#head = loaded.head;
    this.#isHeaded = loaded.isHeaded;
    this.#mark = this.held.mark;
    this.#done = loaded.head.done;
    this.#blocks = loaded.blocks.map((block) => ({
      first: block.first,
      last: lastOf(block),
    }));
    this.#last = this.#blocks.at(-1)?.last ?? loaded.head.done;
    this.#commit = new GroupCommit({
      write: async (commands) => {
        const first = this.#last + 1;
        await this.#write(commands, { notes: this.#isDue });
        return commands.map((_, i) => first + i);
      },
      sizeOf: (cmd) => cmd.length,
      bytesMax: OUTBOX_BLOCK_BYTES_MAX,
      itemsMax: OUTBOX_BLOCK_COMMANDS_MAX,
    });
  }

  get mark(): number {
    return this.#mark;
  }

  get principal(): string | undefined {
    return this.#head.principal;
  }

  set principal(principal: string | undefined) {
    this.#head = { ...this.#head, principal };
  }

  taken(): void {
    this.held = { ...this.held, commands: [], kept: [] };
  }

  add(cmd: Uint8Array): Promise<number> {
    if (this.#closing) return Promise.reject(new ErrClusterClosed());
    return this.#commit.add(cmd);
  }

  /** Whether so much was noted that it goes with the next write. */
  get #isDue(): boolean {
    return this.#done - this.#head.done + this.#keep.size +
        this.#forget.size >= OUTBOX_DONE_COMMANDS_MAX;
  }

  get #isNoted(): boolean {
    return this.#done > this.#head.done || this.#keep.size > 0 ||
      this.#forget.size > 0;
  }

  note({ done, known, keep, forget }: Decided): void {
    if (done !== undefined && done > this.#done) {
      this.#done = done;
      this.#known = known ?? this.#known;
    }
    if (keep !== undefined) {
      this.#forget.delete(keep.number);
      this.#keep.set(keep.number, keep);
    }
    if (forget !== undefined) {
      this.#keep.delete(forget);
      this.#forget.add(forget);
    }
    if (!this.#isNoted || this.#closing) return;
    const isSoon = this.#isDue;
    if (this.#cancelTimer !== undefined && this.#isSoon >= isSoon) return;
    this.#cancelTimer?.();
    this.#isSoon = isSoon;
    this.#cancelTimer = this.#env.setTimer(() => {
      this.flush().catch(() => {
        // It stays noted, and is decided by the log anyway.
      });
    }, isSoon ? 0 : OUTBOX_DONE_MS);
  }

  flush(): Promise<void> {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    return this.#commit.run(() => this.#write([], { notes: true }));
  }

  assign(
    session: OutboxSession | undefined,
    mark: number,
    client: OutboxClient = this.#head,
  ): Promise<void> {
    const { clientID, lost, owner, principal } = client;
    const assign = { session, mark, clientID, lost, owner, principal };
    return this.#commit.run(() => this.#write([], { assign, notes: true }));
  }

  /** Makes changes in one step. Nothing is different if that fails. */
  async #write(
    commands: readonly Uint8Array[],
    { assign, notes = false }: Change,
  ): Promise<void> {
    const first = this.#last + 1;
    const last = this.#last + commands.length;
    const put: Block[] = [];
    let head: QueueHead | undefined;
    // What it is known by comes with the first command.
    if (!this.#isHeaded && commands.length > 0) head = this.#head;
    if (assign !== undefined) head = { done: this.#head.done, ...assign };
    if (notes && this.#isNoted) {
      head = {
        ...this.#head,
        mark: this.#mark,
        ...head,
        done: this.#done,
      };
      const { session } = head;
      // That of a session to come is newer.
      if (assign === undefined && this.#known !== undefined && session) {
        head = { ...head, session: { ...session, known: this.#known } };
      }
    }
    const { session } = head ?? this.#head;
    const isSent = commands.length > 0 && this.sending &&
      session !== undefined && this.#mark === this.#last;
    if (commands.length > 0) {
      put.push({
        key: this.#names.block(first),
        bytes: encodeCommands(this.#clusterID, {
          first,
          session: isSent ? session.index : 0,
          commands,
        }),
      });
    }
    const kept = head === undefined ? [] : [...this.#keep.values()];
    const forgotten = head === undefined ? [] : [...this.#forget];
    const removed = head === undefined ? [] : this.#blocks.slice(
      0,
      this.#blocks.findLastIndex(({ last }) => last <= head!.done) + 1,
    );
    for (const keep of kept) {
      put.push({
        key: this.#names.keptBlock(keep.number),
        bytes: encodeKept(this.#clusterID, keep),
      });
    }
    if (head !== undefined) {
      put.push({
        key: this.#names.head,
        bytes: encodeHead(this.#clusterID, head),
      });
    }
    if (put.length === 0) return;
    await this.#change(
      put,
      [
        ...removed.map((block) => this.#names.block(block.first)),
        ...forgotten.map((number) => this.#names.keptBlock(number)),
      ],
      // What will not be asked for again must not be asked for after a power cut.
      assign !== undefined || (head?.done ?? 0) > this.#head.done
        ? "strict"
        : this.#durability,
    );
    if (commands.length > 0) this.#blocks.push({ first, last });
    this.#last = last;
    for (const keep of kept) {
      if (this.#keep.get(keep.number) === keep) this.#keep.delete(keep.number);
    }
    for (const number of forgotten) this.#forget.delete(number);
    if (head !== undefined) {
      const { done } = this.#head;
      this.#head = head;
      this.#isHeaded = true;
      this.#mark = head.mark;
      if (removed.length > 0) this.#blocks = this.#blocks.slice(removed.length);
      if (head.done > done) this.#onDone(head.done);
    }
    if (isSent) this.#mark = last;
  }

  async #change(
    put: readonly Block[],
    remove: readonly string[],
    durability: Durability,
  ): Promise<void> {
    try {
      await this.#store.write(
        remove.length > 0 ? { put, delete: remove } : { put },
        durability,
      );
    } catch (error) {
      if (!(error instanceof ErrUnknownOutcome)) throw error;
      // It is settled now: what is to be seen is what there is.
      const found = await this.#found(put);
      const isThere = put.every(({ bytes }, i) =>
        found[i] !== undefined && isSameBytes(bytes, found[i])
      );
      if (!isThere) throw error;
    }
  }

  /** What the store has under the names of these blocks; nothing if it does not tell. */
  async #found(
    blocks: readonly Block[],
  ): Promise<readonly (Uint8Array | undefined)[]> {
    try {
      return await this.#store.get(blocks.map(({ key }) => key));
    } catch {
      return [];
    }
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    this.#cancelTimer?.();
    await this.#commit.settled();
    try {
      await this.flush();
    } catch {
      // The log decides it again.
    } finally {
      this.#onClose();
    }
  }
}

/**
 * An {@linkcode Outbox} over a {@linkcode BlockStore}. What is damaged is an
 * `ErrStoreCorrupted` that names the block, and nothing of it is used; a store
 * that vanished is an empty outbox.
 */
export class BlockOutbox implements Outbox {
  /** What a host sends its commands with, and shows them. */
  readonly submitting: Submitting = submitting;
  readonly #store: BlockStore;
  readonly #ownsStore: boolean;
  readonly #options: Required<BlockOutboxOptions>;
  /** The queues that are open, or being opened, by their cluster. */
  readonly #open = new Map<bigint, BlockQueue | undefined>();
  #closing: Promise<void> | undefined;

  /** What is kept in a store, which stays open when this is closed, or in one that is made for it and closed with it. Nothing is read yet. */
  constructor(
    store: BlockStore | (() => BlockStore),
    options: BlockOutboxOptions = {},
  ) {
    const checks: OptionChecks<BlockOutboxOptions> = {
      env: optional(isEnv),
      durability: optional(isOneOf("strict", "relaxed")),
    };
    isBlockStore("Store of the outbox", store);
    checkOptions("Options of the outbox", options, checks);
    this.#ownsStore = typeof store === "function";
    this.#store = typeof store === "function" ? store() : store;
    const { env = systemEnv, durability = "relaxed" } = options;
    this.#options = { env, durability };
  }

  /** Does something with a cluster whose queue nobody has open. */
  async #alone<T>(clusterID: bigint, work: () => Promise<T>): Promise<T> {
    if (this.#closing) throw new ErrClusterClosed("Outbox is closed");
    if (this.#open.has(clusterID)) {
      throw new ErrClusterAlreadyExist(
        `Outbox of cluster ${clusterID} is in use`,
      );
    }
    this.#open.set(clusterID, undefined);
    try {
      return await work();
    } finally {
      if (this.#open.get(clusterID) === undefined) this.#open.delete(clusterID);
    }
  }

  /**
   * Opens the queue of a cluster.
   *
   * @throws ErrClusterAlreadyExist if it is open already
   * @throws ErrStoreCorrupted if what is kept is damaged
   * @throws ErrStoreLocked if somebody else has the store
   */
  open(
    clusterID: bigint,
    onDone: (done: number) => void,
  ): Promise<OutboxQueue> {
    return this.#alone(clusterID, async () => {
      const names = new Names(clusterID);
      const queue: BlockQueue = new BlockQueue(
        this.#store,
        clusterID,
        names,
        await load(this.#store, clusterID, names, this.#options.env),
        this.#options,
        onDone,
        () => this.#open.delete(clusterID),
      );
      this.#open.set(clusterID, queue);
      return queue;
    });
  }

  /** What of a cluster may not be synced, in order. */
  async unsynced(clusterID: bigint): Promise<readonly Unsynced[]> {
    const names = new Names(clusterID);
    const { done, commands, kept } = heldOf(
      await load(this.#store, clusterID, names, this.#options.env),
    );
    const found = new Map<number, Unsynced>();
    for (const [i, cmd] of commands.entries()) {
      const id = done + 1 + i;
      found.set(id, { id, state: "queued", cmd });
    }
    for (const { number: id, state, cmd } of kept) {
      if (state === "dismissed") found.delete(id);
      else found.set(id, { id, state, cmd });
    }
    return [...found.values()].sort((a, b) => a.id - b.id);
  }

  /**
   * Forgets all of a cluster, as at a logout (U35).
   *
   * @throws ErrUnsynced if something is not synced, unless it is to be discarded
   * @throws ErrClusterAlreadyExist if the queue is open: stop the cluster first
   */
  clear(
    clusterID: bigint,
    options: { readonly discard?: boolean } = {},
  ): Promise<void> {
    return this.#alone(clusterID, async () => {
      if (!options.discard) {
        const unsynced = await this.unsynced(clusterID);
        if (unsynced.length > 0) throw new ErrUnsynced(unsynced);
      }
      const { range } = new Names(clusterID);
      await this.#store.write({ deleteRanges: [range] }, "strict");
    });
  }

  /**
   * Prepares a queue for another history of its cluster; see the port.
   *
   * @throws ErrClusterAlreadyExist if the queue is open: stop the cluster first
   */
  startOver(clusterID: bigint, pending?: readonly number[]): Promise<void> {
    return this.#alone(clusterID, async () => {
      const names = new Names(clusterID);
      const { env } = this.#options;
      const loaded = await load(this.#store, clusterID, names, env);
      if (!loaded.isHeaded) return;
      const { mark, done, commands } = heldOf(loaded);
      const { head } = loaded;
      const isPending = new Set(pending);
      const decided = pending === undefined
        ? []
        : commands.map((_, i) => done + 1 + i).filter((number) =>
          !isPending.has(number)
        );
      const { session } = head;
      const over: QueueHead = {
        ...head,
        mark,
        // Indexes and client ids of the other history say nothing of this one.
        clientID: env.random64(),
        lost: 0,
        session: session && { ...session, known: undefined, isOver: true },
      };
      // They keep their places until those before them are decided too.
      const put = decided.map((number) => ({
        key: names.keptBlock(number),
        bytes: encodeKept(clusterID, {
          number,
          state: "dismissed",
          reason: "",
          cmd: new Uint8Array(),
        }),
      }));
      put.push({ key: names.head, bytes: encodeHead(clusterID, over) });
      await this.#store.write({ put }, "strict");
    });
  }

  /** Clusters of which something is kept, in order of their ids. */
  async clusters(): Promise<readonly bigint[]> {
    if (this.#closing) throw new ErrClusterClosed("Outbox is closed");
    return await clustersUnder(this.#store, "outbox/");
  }

  /** Closes the queues, and the store if it was made for this; idempotent. */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    for (const queue of [...this.#open.values()]) await queue?.close();
    if (this.#ownsStore) await this.#store.close();
  }

  /** As `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
