/**
 * Queue of an outbox in a process that adds commands to it, and reads it, while
 * another process, which holds the lease of the store, sends them.
 *
 * A command is added in one step that reads the last number and writes the next
 * one: numbers are those of the store, and no other process need be there.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  OUTBOX_BLOCK_BYTES_MAX,
  OUTBOX_BLOCK_COMMANDS_MAX,
  OUTBOX_EARLY_MAX,
  OUTBOX_GAP_MS,
  OUTBOX_PERMITTED_COMMANDS_MAX,
  START_READS_MAX,
} from "../limits.ts";
import { ErrClusterClosed } from "../log/errors.ts";
import { ErrNotImplemented } from "../statemachine/errors.ts";
import { ErrStoreCorrupted } from "../store/errors.ts";
import { GroupCommit } from "../store/group_commit.ts";
import { rangeOf } from "../store/names.ts";
import type { BlockStore } from "../store/store.ts";
import { contentsOf, loadQueue, type StoredQueue } from "./block_queue.ts";
import {
  BlockNames,
  type CommandBlock,
  decodeCommands,
  decodeHead,
  encodeCommands,
  encodeHead,
  lastIn,
  newHead,
} from "./outbox_block.ts";
import type {
  JoinedOutboxQueue,
  JoiningParts,
  QueueContents,
  QueueNote,
} from "./outbox_store.ts";

/** Queue of one cluster, in a process that does not hold the lease of its store. */
export class JoinedQueue implements JoinedOutboxQueue {
  /** Contents when the queue was opened. */
  contents: QueueContents;
  /** Set while the other process sends added commands at once: each is then stored as one that may have been sent. */
  sendsAdded = false;
  /** Number up to which commands might have been sent when the queue was opened. */
  readonly sendLimit: number;
  /** Most bytes of commands, in bytes. */
  readonly bytesMax: number;
  /** Principal that the commands belong to. */
  principal: string | undefined;
  /** Principal as which a server has last welcomed this device. */
  author: string | undefined;
  /** Called with commands that other processes have added. */
  onAdded: JoinedOutboxQueue["onAdded"] = () => {};
  /** Called with commands that this process has added, once they are durable. */
  onStored: JoinedOutboxQueue["onStored"] = () => {};
  /** Called with the number of a settled command that is dismissed here. */
  onDismiss: JoinedOutboxQueue["onDismiss"] = () => Promise.resolve();
  readonly #store: BlockStore;
  readonly #clusterID: bigint;
  readonly #names: BlockNames;
  readonly #options: JoiningParts;
  readonly #commit: GroupCommit<Uint8Array, number>;
  #last: number;
  /** Number from which on blocks are read: that of the first command of the last one that is known. */
  #from: number;
  /** Numbers of settled commands that are dismissed here. */
  #dismissed: number[] = [];
  /** Commands that other processes say they have added, in one write each, after some that are unknown. */
  readonly #early: {
    readonly first: number;
    readonly commands: readonly Uint8Array[];
  }[] = [];
  #cancelGap: (() => void) | undefined;
  #isClosed = false;

  private constructor(
    clusterID: bigint,
    stored: StoredQueue,
    options: JoiningParts,
  ) {
    const contents = contentsOf(stored);
    this.contents = contents;
    this.sendLimit = contents.sendLimit;
    this.bytesMax = options.bytesMax;
    this.principal = contents.principal;
    this.author = contents.author;
    this.#store = options.store;
    this.#clusterID = clusterID;
    this.#names = new BlockNames(clusterID);
    this.#options = options;
    this.#last = contents.last;
    this.#from = stored.blocks.at(-1)?.first ?? 0;
    this.#commit = new GroupCommit({
      write: (commands) => this.#add(commands),
      sizeOf: (cmd) => cmd.length,
      bytesMax: OUTBOX_BLOCK_BYTES_MAX,
      itemsMax: OUTBOX_BLOCK_COMMANDS_MAX,
    });
  }

  /**
   * Opens the queue of a cluster.
   *
   * @throws ErrStoreCorrupted if the stored queue is damaged
   */
  static async open(
    clusterID: bigint,
    options: JoiningParts,
  ): Promise<JoinedQueue> {
    for (let tries = 1;; tries++) {
      try {
        const stored = await loadQueue(options.store, clusterID, options.env);
        return new JoinedQueue(clusterID, stored, options);
      } catch (error) {
        // The other process has removed a block between two reads.
        if (
          !(error instanceof ErrStoreCorrupted) || tries === START_READS_MAX
        ) throw error;
        await options.env.turn();
      }
    }
  }

  /** Frees the commands in `contents`. */
  releaseContents(): void {
    this.contents = { ...this.contents, commands: [], settled: [] };
  }

  /** Reads commands from a number on, of one block; none once they are removed. */
  async read(from: number): Promise<readonly Uint8Array[]> {
    const [first] = rangeOf(this.#names.commands);
    const [block] = await this.#store.list(
      first,
      this.#names.commandBlock(from + 1),
      { limit: 1, reverse: true },
    );
    if (block === undefined) return [];
    const decoded = decodeCommands(block, this.#clusterID);
    return decoded.commands.slice(from - decoded.first);
  }

  /** Adds a command and resolves with its number once it is durable. */
  add(cmd: Uint8Array): Promise<number> {
    if (this.#isClosed) return Promise.reject(new ErrClusterClosed());
    return this.#commit.add(cmd);
  }

  async #add(commands: readonly Uint8Array[]): Promise<number[]> {
    const { env, durability } = this.#options;
    const names = this.#names;
    const clusterID = this.#clusterID;
    let first = 0;
    let session = 0;
    let before: CommandBlock[] = [];
    const [, to] = rangeOf(names.commands);
    const add = async (): Promise<boolean> =>
      await this.#store.update!(
        { keys: [names.head], range: [names.commandBlock(this.#from), to] },
        ({ blocks: [bytes], inRange }) => {
          const head = bytes &&
            decodeHead({ key: names.head, bytes }, clusterID);
          const { decided = 0, sendLimit = 0 } = head ?? {};
          before = inRange.map((block) => decodeCommands(block, clusterID));
          const end = before.at(-1);
          const last = Math.max(decided, end ? lastIn(end) : 0);
          const known = Math.max(decided, this.#last);
          // Read from the first block on, if one is missing.
          if (
            this.#from > 0 &&
            (end ? before[0]!.first > known + 1 : decided < known)
          ) return undefined;
          first = last + 1;
          // Only after others that may have been sent, too.
          const { index = 0, isSuperseded } = head?.session ?? {};
          const isSent = this.sendsAdded && !isSuperseded &&
            (end?.session === index || last <= sendLimit || last === decided) &&
            last - decided < OUTBOX_PERMITTED_COMMANDS_MAX;
          session = isSent ? index : 0;
          const key = names.commandBlock(first);
          const block = { first, session, commands };
          const put = [{ key, bytes: encodeCommands(clusterID, block) }];
          // The first command is written together with the head.
          if (head === undefined) {
            const { principal } = this;
            const fresh = {
              ...newHead(env),
              ...(principal === undefined ? {} : { principal }),
            };
            const bytes = encodeHead(clusterID, fresh);
            put.push({ key: names.head, bytes });
          }
          return { put };
        },
        durability,
        true,
      );
    while (!await add()) this.#from = 0;
    this.onStored(first, commands, session);
    this.#addedAll(before);
    this.#last = first + commands.length - 1;
    this.#from = first;
    if (this.#early.length > 0) {
      // Never rejects: nothing is read. Later, when the callers know their numbers.
      env.turn().then(() => this.#hearEarly());
    }
    return commands.map((_, i) => first + i);
  }

  /** Takes note of commands that another process says it has added; waits a moment for word of those before them. */
  async heard(first: number, commands: readonly Uint8Array[]): Promise<void> {
    if (first + commands.length - 1 <= this.#last || this.#isClosed) return;
    if (first <= this.#last + 1) {
      this.#added(first, commands);
      return this.#hearEarly();
    }
    this.#early.push({ first, commands });
    if (this.#early.length < OUTBOX_EARLY_MAX) return this.#awaitGap();
    // The store has all of them.
    this.#early.length = 0;
    await this.sync();
  }

  /** Reads commands of which there is no word in time. */
  #awaitGap(): void {
    this.#cancelGap ??= this.#options.env.setTimer(() => {
      this.#cancelGap = undefined;
      this.sync().catch(() => {
        // Looked up again with the next one.
      });
    }, OUTBOX_GAP_MS);
  }

  /** Takes the commands that arrived early, as far as those before them are known. */
  #hearEarly(): void {
    if (this.#isClosed) return;
    const early = this.#early.sort((a, b) => a.first - b.first);
    while (early.length > 0 && early[0]!.first <= this.#last + 1) {
      const { first, commands } = early.shift()!;
      this.#added(first, commands);
    }
    if (early.length > 0) return this.#awaitGap();
    this.#cancelGap?.();
    this.#cancelGap = undefined;
  }

  #addedAll(blocks: readonly CommandBlock[]): void {
    for (const { first, commands } of blocks) this.#added(first, commands);
  }

  #added(first: number, commands: readonly Uint8Array[]): void {
    const known = this.#last + 1 - first;
    const next = known > 0 ? commands.slice(known) : commands;
    if (next.length === 0) return;
    const number = Math.max(first, this.#last + 1);
    this.#last = number + next.length - 1;
    this.#from = first;
    this.onAdded(number, next);
  }

  /** Looks for commands that other processes have added. */
  sync(): Promise<void> {
    return this.#commit.run(async () => {
      const [, to] = rangeOf(this.#names.commands);
      for (let from = this.#from;; from = 0) {
        const start = this.#names.commandBlock(from);
        const blocks = (await this.#store.list(start, to))
          .map((block) => decodeCommands(block, this.#clusterID));
        const next = blocks[0]?.first ?? Infinity;
        // Read from the first block on, if one is missing.
        if (from > 0 && next > this.#last + 1) continue;
        this.#addedAll(blocks);
        return this.#hearEarly();
      }
    });
  }

  /** Notes which settled commands are dismissed here; everything else is noted by the other process. */
  note({ settle, forget }: QueueNote): void {
    const number = forget ??
      (settle?.state === "dismissed" ? settle.number : undefined);
    if (number !== undefined) this.#dismissed.push(number);
  }

  /** Has the other process dismiss what was dismissed here. */
  async flush(): Promise<void> {
    const dismissed = this.#dismissed;
    this.#dismissed = [];
    for (const number of dismissed) await this.onDismiss(number);
  }

  /** Refuses: the session belongs to the other process. */
  assign(): Promise<void> {
    return Promise.reject(
      new ErrNotImplemented(
        `Session of the outbox of cluster ${this.#clusterID} belongs to the process that holds the lease`,
      ),
    );
  }

  /** Closes the queue after the writes under way. Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancelGap?.();
    await this.#commit.settled();
  }
}
