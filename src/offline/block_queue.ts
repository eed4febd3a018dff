/**
 * Durable queue of commands on a block store.
 *
 * Commands that are added during a write share the next block (group commit).
 * Decided commands are removed in batches: together with another write, or after a
 * delay.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { isSameBytes } from "../bytes.ts";
import type { Env } from "../env.ts";
import {
  OUTBOX_BLOCK_BYTES_MAX,
  OUTBOX_BLOCK_COMMANDS_MAX,
  OUTBOX_BLOCKS_MERGED,
  OUTBOX_DONE_COMMANDS_MAX,
  OUTBOX_DONE_MS,
  OUTBOX_MEMORY_BYTES,
  OUTBOX_MEMORY_COMMANDS,
  OUTBOX_MERGED_BYTES,
  OUTBOX_OPEN_BYTES,
} from "../limits.ts";
import { ErrClusterClosed, ErrUnknownOutcome } from "../log/errors.ts";
import type { HistoryPoint } from "../log/history.ts";
import { firstAfter } from "../log/records.ts";
import { ErrStoreCorrupted, ErrStoreLocked } from "../store/errors.ts";
import { GroupCommit } from "../store/group_commit.ts";
import { rangeOf } from "../store/names.ts";
import type { Block, BlockStore, Changes, Durability } from "../store/store.ts";
import {
  BlockNames,
  type CommandBlock,
  damaged,
  decodeCommands,
  decodeHead,
  decodeSettled,
  encodeCommands,
  encodeHead,
  encodeSettled,
  lastIn,
  newHead,
  type QueueHead,
} from "./outbox_block.ts";
import type {
  OutboxClient,
  OutboxSession,
  QueueContents,
  QueueNote,
  SettledCommand,
  SharedOutboxQueue,
} from "./outbox_store.ts";

/** Stored blocks of a queue. */
export interface StoredQueue {
  /** Head of the queue. */
  readonly head: QueueHead;
  /** True if the head is in the store. */
  readonly hasHead: boolean;
  /** Blocks of commands, in order. */
  readonly blocks: readonly StoredBlock[];
  /** Commands of the first blocks, in order. */
  readonly commands: readonly Uint8Array[];
  /** Settled commands, in order. */
  readonly settled: readonly SettledCommand[];
}

/** Block of commands in the store. */
interface StoredBlock {
  /** Number of the first command. */
  readonly first: number;
  /** Number of the last command. */
  readonly last: number;
  /** Index of the session through which they may have been sent at once; 0 for none. */
  readonly session: number;
  /** Size of the commands, in bytes. */
  readonly bytes: number;
}

/** Last block, while it is so small that more commands are written into it. */
interface Tail extends CommandBlock {
  readonly bytes: number;
}

/** Changes of a write besides added commands. */
interface Change {
  /** Session, limit and client to be stored. */
  readonly assign?: Omit<QueueHead, "decided" | "author">;
  /** True if noted changes are written, too. */
  readonly notes?: boolean;
}

function sizeOf(commands: readonly Uint8Array[]): number {
  return commands.reduce((sum, { length }) => sum + length, 0);
}

function storedBlock(block: CommandBlock): StoredBlock {
  const { first, commands, session } = block;
  return { first, last: lastIn(block), session, bytes: sizeOf(commands) };
}

/**
 * Loads the queue of a cluster: every block is checked, and the commands of the
 * first ones are kept, as many as belong in memory; all of them if `isWhole`.
 *
 * @throws ErrStoreCorrupted if a block is damaged or missing
 */
export async function loadQueue(
  store: BlockStore,
  clusterID: bigint,
  env: Env,
  isWhole = false,
): Promise<StoredQueue> {
  const names = new BlockNames(clusterID);
  const [stored] = await store.get([names.head]);
  const hasHead = stored !== undefined;
  const head = hasHead
    ? decodeHead({ key: names.head, bytes: stored }, clusterID)
    : newHead(env);
  const blocks: StoredBlock[] = [];
  const commands: Uint8Array[] = [];
  let bytes = 0;
  for await (const decoded of pagesOf(store, names, clusterID)) {
    const one = storedBlock(decoded);
    checkNext(names, hasHead, head.decided, blocks.at(-1), one);
    blocks.push(one);
    const isNext = commands.length === 0
      ? one.last > head.decided
      : head.decided + commands.length + 1 === one.first;
    const isSent = one.first <= head.sendLimit ||
      one.session === (head.session?.index ?? -1);
    if (
      isNext && (isWhole || isSent ||
        commands.length < OUTBOX_MEMORY_COMMANDS && bytes < OUTBOX_MEMORY_BYTES)
    ) {
      bytes += one.bytes;
      const skip = Math.max(0, head.decided + 1 - one.first);
      for (const cmd of decoded.commands.slice(skip)) commands.push(cmd);
    }
  }
  const settled: SettledCommand[] = [];
  const firsts = new Set(blocks.map(({ first }) => first));
  for (const block of await store.list(...rangeOf(names.settled))) {
    const one = decodeSettled(block, clusterID);
    settled.push(one);
    if (!firsts.has(one.number)) continue;
    // A block of one command can be read as that command, settled.
    const [other] = await store.get([names.commandBlock(one.number)]);
    if (other !== undefined && isSameBytes(block.bytes, other)) {
      throw damaged(block.key);
    }
  }
  if (hasHead) checkEnd(names, head, blocks.at(-1), settled.at(-1));
  // Settled commands alone can still be listed.
  else if (settled.length > 0 && !isWhole) throw headMissing(names);
  return { head, hasHead, blocks, commands, settled };
}

/** Blocks of commands, read in steps of about `OUTBOX_OPEN_BYTES`. */
async function* pagesOf(
  store: BlockStore,
  names: BlockNames,
  clusterID: bigint,
): AsyncGenerator<CommandBlock> {
  const [first, to] = rangeOf(names.commands);
  let from = first;
  for (let limit = 4;;) {
    const page = await store.list(from, to, { limit });
    for (const block of page) {
      const decoded = decodeCommands(block, clusterID);
      from = names.commandBlock(decoded.first + 1);
      yield decoded;
    }
    if (page.length < limit) return;
    const size = page.reduce((sum, { bytes }) => sum + bytes.length, 0);
    if (2 * size <= OUTBOX_OPEN_BYTES) limit *= 2;
    else if (size > 2 * OUTBOX_OPEN_BYTES) limit = Math.max(1, limit >>> 1);
  }
}

/** Checks that a block follows the one before it, and the first the decided commands. */
function checkNext(
  names: BlockNames,
  hasHead: boolean,
  decided: number,
  before: StoredBlock | undefined,
  { first }: StoredBlock,
): void {
  // The first command is written together with the head.
  if (!hasHead) throw headMissing(names);
  const next = (before?.last ?? decided) + 1;
  if (before === undefined ? first > next : first !== next) {
    throw blockMissing(names, next);
  }
}

function headMissing({ head }: BlockNames): ErrStoreCorrupted {
  return new ErrStoreCorrupted(head, "Head of the outbox is missing");
}

function blockMissing(names: BlockNames, first: number): ErrStoreCorrupted {
  return new ErrStoreCorrupted(
    names.commandBlock(first),
    "Block of the outbox is missing",
  );
}

/** Checks that the blocks reach as far as commands were permitted to be sent, and settled. */
function checkEnd(
  names: BlockNames,
  { decided, sendLimit }: QueueHead,
  block: StoredBlock | undefined,
  settled: SettledCommand | undefined,
): void {
  const last = Math.max(decided, block?.last ?? 0);
  const known = Math.max(sendLimit, settled?.number ?? 0);
  if (known > last) throw blockMissing(names, last + 1);
}

/** Contents of a stored queue. */
export function contentsOf(
  { head, blocks, commands, settled }: StoredQueue,
): QueueContents {
  const { decided, clientID, lostSession, owner, principal, session } = head;
  const { author } = head;
  let sendLimit = Math.max(head.sendLimit, decided);
  let bytes = 0;
  for (const block of blocks) {
    bytes += block.bytes;
    if (session !== undefined && block.session === session.index) {
      sendLimit = Math.max(sendLimit, block.last);
    }
  }
  const last = Math.max(decided, blocks.at(-1)?.last ?? 0);
  const client = { clientID, lostSession, owner, principal };
  return {
    decided,
    commands,
    last,
    bytes,
    settled,
    session,
    sendLimit,
    author,
    ...client,
  };
}

/** Queue of one cluster on a block store. */
export class BlockQueue implements SharedOutboxQueue {
  /** Contents when the queue was opened. */
  contents: QueueContents;
  /** Set while added commands are sent at once. */
  sendsAdded = false;
  /** Most bytes of commands, in bytes. */
  readonly bytesMax: number;
  /** Called with commands that other processes have added. */
  onAdded: SharedOutboxQueue["onAdded"] = () => {};
  /** Called with commands that this process has added, once they are durable. */
  onStored: SharedOutboxQueue["onStored"] = () => {};
  /** True if other processes add commands, too. */
  readonly #isShared: boolean;
  /** Set once another process may have changed the queue: nothing is written any more. */
  #isLeft = false;
  readonly #store: BlockStore;
  readonly #clusterID: bigint;
  readonly #names: BlockNames;
  readonly #env: Env;
  readonly #durability: Durability;
  readonly #onDecided: (decided: number) => void;
  readonly #onClose: () => void;
  #head: QueueHead;
  #hasHead: boolean;
  #sendLimit: number;
  #last: number;
  #blocks: StoredBlock[];
  #tail: Tail | undefined;
  readonly #commit: GroupCommit<Uint8Array, number>;
  // Noted changes that are not written yet.
  #decided: number;
  #known: HistoryPoint | undefined;
  #author: string | undefined;
  readonly #settle = new Map<number, SettledCommand>();
  readonly #forget = new Set<number>();
  #cancelTimer: (() => void) | undefined;
  /** True if the timer fires as soon as it can. */
  #isSoon = false;
  #closing: Promise<void> | undefined;

  /** Creates a queue over loaded blocks. */
  constructor(
    store: BlockStore,
    clusterID: bigint,
    stored: StoredQueue,
    options: {
      readonly env: Env;
      readonly durability: Durability;
      readonly bytesMax: number;
      readonly isShared: boolean;
    },
    onDecided: (decided: number) => void,
    onClose: () => void,
  ) {
    const { head, hasHead, blocks } = stored;
    this.contents = contentsOf(stored);
    this.#store = store;
    this.#clusterID = clusterID;
    this.#names = new BlockNames(clusterID);
    this.#env = options.env;
    this.#durability = options.durability;
    this.bytesMax = options.bytesMax;
    this.#isShared = options.isShared;
    this.#onDecided = onDecided;
    this.#onClose = onClose;
    this.#head = head;
    this.#hasHead = hasHead;
    this.#sendLimit = this.contents.sendLimit;
    this.#decided = head.decided;
    this.#author = head.author;
    this.#blocks = [...blocks];
    this.#last = this.contents.last;
    this.#commit = new GroupCommit({
      write: async (commands) => {
        const first = await this.#add(commands);
        return commands.map((_, i) => first + i);
      },
      sizeOf: (cmd) => cmd.length,
      bytesMax: OUTBOX_BLOCK_BYTES_MAX,
      itemsMax: OUTBOX_BLOCK_COMMANDS_MAX,
    });
  }

  /** Number up to which commands may be sent. */
  get sendLimit(): number {
    return this.#sendLimit;
  }

  /** Principal that the commands belong to. */
  get principal(): string | undefined {
    return this.#head.principal;
  }

  set principal(principal: string | undefined) {
    this.#head = { ...this.#head, principal };
  }

  /** Principal as which a server has last welcomed this device. */
  get author(): string | undefined {
    return this.#author;
  }

  set author(author: string | undefined) {
    if (this.#author === author) return;
    this.#author = author;
    this.note({});
  }

  /** Frees the commands in `contents`. */
  releaseContents(): void {
    this.contents = { ...this.contents, commands: [], settled: [] };
  }

  /** Reads commands from a number on, of one block. */
  read(from: number): Promise<readonly Uint8Array[]> {
    // Not during a write, which may replace the block.
    return this.#commit.run(async () => {
      const at = firstAfter(this.#blocks, ({ last }) => last, from - 1);
      const block = this.#blocks[at];
      if (block === undefined) return [];
      const { commands } = await this.#held(() => this.#decoded(block));
      return commands.slice(from - block.first);
    });
  }

  /** Adds a command and resolves with its number once it is durable. */
  add(cmd: Uint8Array): Promise<number> {
    if (this.#closing) return Promise.reject(new ErrClusterClosed());
    return this.#commit.add(cmd);
  }

  /** Stores `merged` in the place of the last command, if that may still be changed, and otherwise adds `cmd`. */
  merge(last: number, merged: Uint8Array, cmd: Uint8Array): Promise<number> {
    if (this.#closing) return Promise.reject(new ErrClusterClosed());
    // The other processes know the last command as it is.
    if (this.#isShared) return this.add(cmd);
    return this.#commit.run(async () => {
      const block = this.#blocks.at(-1);
      if (
        block?.last === last && last > this.#sendLimit &&
        last > this.#decided && !this.#settle.has(last) &&
        (block.first === last ||
          block.bytes + merged.length <= OUTBOX_MERGED_BYTES)
      ) {
        await this.#replaceLast(block, merged);
        return last;
      }
      return await this.#add([cmd]);
    });
  }

  /** Writes the last block again, with another command as its last. */
  async #replaceLast(block: StoredBlock, cmd: Uint8Array): Promise<void> {
    const stored = await this.#decoded(block);
    const next = {
      ...stored,
      commands: [...stored.commands.slice(0, -1), cmd],
    };
    const bytes = encodeCommands(this.#clusterID, next);
    const key = this.#names.commandBlock(block.first);
    const put = [{ key, bytes }];
    await this.#commitBlocks(false, () => ({ put }), this.#durability);
    this.#setLast(next);
  }

  /** Block of commands as it is stored. */
  async #decoded({ first }: StoredBlock): Promise<CommandBlock> {
    const key = this.#names.commandBlock(first);
    const [bytes] = await this.#store.get([key]);
    if (bytes === undefined) throw blockMissing(this.#names, first);
    return decodeCommands({ key, bytes }, this.#clusterID);
  }

  /** True if the noted changes have reached the bound, so that the next write includes them. */
  get #isDue(): boolean {
    return this.#decided - this.#head.decided + this.#settle.size +
        this.#forget.size >= OUTBOX_DONE_COMMANDS_MAX;
  }

  get #hasNotes(): boolean {
    return this.#decided > this.#head.decided || this.#settle.size > 0 ||
      this.#forget.size > 0 || this.#author !== this.#head.author;
  }

  /** Notes a change, which is written with the next added command, or after a delay. */
  note({ decided, known, settle, forget }: QueueNote): void {
    if (decided !== undefined && decided > this.#decided) {
      this.#decided = decided;
      this.#known = known ?? this.#known;
    }
    if (settle !== undefined) {
      this.#forget.delete(settle.number);
      this.#settle.set(settle.number, settle);
    }
    if (forget !== undefined) {
      this.#settle.delete(forget);
      this.#forget.add(forget);
    }
    if (!this.#hasNotes || this.#closing) return;
    const isSoon = this.#isDue;
    if (this.#cancelTimer !== undefined && this.#isSoon >= isSoon) return;
    this.#cancelTimer?.();
    this.#isSoon = isSoon;
    this.#cancelTimer = this.#env.setTimer(() => {
      this.flush().catch(() => {
        // The changes stay noted for the next write; nothing is lost: the log has
        // decided the commands, or their refusals are not told.
      });
    }, isSoon ? 0 : OUTBOX_DONE_MS);
  }

  /** Writes noted changes. */
  flush(): Promise<void> {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    return this.#note({ notes: true });
  }

  async #note(change: Change): Promise<void> {
    await this.#commit.run(() => this.#write([], change));
  }

  /** Stores the session, the send limit and the client, with noted changes. */
  assign(
    session: OutboxSession | undefined,
    sendLimit: number,
    client: OutboxClient = this.#head,
  ): Promise<void> {
    const { clientID, lostSession, owner, principal } = client;
    const named = { clientID, lostSession, owner, principal };
    const assign = { session, sendLimit, ...named };
    return this.#note({ assign, notes: true });
  }

  /** Head after a change; undefined if it stays as it is. */
  #nextHead(
    isAdding: boolean,
    { assign, notes }: Change,
  ): QueueHead | undefined {
    let head: QueueHead | undefined;
    // The head is written together with the first command.
    const author = this.#author;
    if (!this.#hasHead && isAdding) head = { ...this.#head, author };
    if (assign !== undefined) {
      head = { decided: this.#head.decided, author, ...assign };
    }
    if (!notes || !this.#hasNotes) return head;
    head = {
      ...this.#head,
      sendLimit: this.#sendLimit,
      ...head,
      author,
      decided: this.#decided,
    };
    const { session } = head;
    // The history of an assigned session is newer.
    return assign === undefined && this.#known !== undefined && session
      ? { ...head, session: { ...session, known: this.#known } }
      : head;
  }

  /** Adds commands, after those of other processes; returns the number of the first. */
  async #add(commands: readonly Uint8Array[]): Promise<number> {
    await this.#write(commands, { notes: this.#isDue });
    const first = this.#last - commands.length + 1;
    this.onStored(first, commands);
    return first;
  }

  /** Looks for commands that other processes have added. */
  sync(): Promise<void> {
    return this.#commit.run(() => this.#readAdded());
  }

  /** Takes note of commands that another process says it has added in one write; reads them from the store if those before them are unknown. */
  async heard(
    first: number,
    commands: readonly Uint8Array[],
    session: number,
  ): Promise<void> {
    const added = { first, session, commands };
    if (this.#noteNext(added)) return;
    await this.#commit.run(async () => {
      // The callers of the write before this learn their numbers first, and word of
      // those before may arrive.
      await this.#env.turn();
      if (!this.#noteNext(added)) await this.#readAdded();
    });
  }

  /** Notes a block that another process has written, if those before it are known; true if it is known then. */
  #noteNext(added: CommandBlock): boolean {
    if (added.first === this.#last + 1) this.#noteAdded(added);
    return lastIn(added) <= this.#last;
  }

  #readAdded(): Promise<void> {
    return this.#held(async () => {
      this.#noteAll(await this.#store.list(...this.#rangeFrom(this.#last + 1)));
    });
  }

  /** Range of the names of the blocks of commands from a number on. */
  #rangeFrom(first: number): [from: string, to: string] {
    const { commands } = this.#names;
    return [this.#names.commandBlock(first), rangeOf(commands)[1]];
  }

  /**
   * Reads from the store.
   *
   * @throws ErrStoreLocked if what is read seems damaged because another process
   * holds the lease and has removed blocks
   */
  async #held<T>(read: () => Promise<T>): Promise<T> {
    try {
      return await read();
    } catch (error) {
      if (!(error instanceof ErrStoreCorrupted) || !this.#isShared) throw error;
      this.#checkLease();
      await this.#store.update!(
        { keys: [] },
        () => undefined,
        this.#durability,
        false,
      );
      throw error;
    }
  }

  /** Notes those of some blocks that another process has written. */
  #noteAll(blocks: readonly Block[]): void {
    for (const block of blocks) {
      const added = decodeCommands(block, this.#clusterID);
      // Word of some may have arrived since they were read.
      if (added.first > this.#last) this.#noteAdded(added);
    }
  }

  /** Notes a block that another process has written. */
  #noteAdded(added: CommandBlock): void {
    const stored = storedBlock(added);
    const before = this.#blocks.at(-1);
    checkNext(this.#names, true, this.#last, before, stored);
    this.#blocks.push(stored);
    this.#tail = undefined;
    this.#hasHead = true;
    this.#last = stored.last;
    const isNext = stored.first <= this.#sendLimit + 1;
    if (isNext && stored.session === this.#head.session?.index) {
      this.#sendLimit = stored.last;
    }
    this.onAdded(stored.first, added.commands);
  }

  /** Writes nothing any more: the lease of the store has ended, and another process may have changed the queue. */
  leave(): void {
    this.#isLeft = true;
  }

  #checkLease(): void {
    if (!this.#isLeft) return;
    throw new ErrStoreLocked(
      `Another process may have changed the outbox of cluster ${this.#clusterID}: nothing was written`,
    );
  }

  /** Makes changes in one atomic write; takes note of commands that other processes have added. Nothing is changed if that fails. */
  async #write(
    commands: readonly Uint8Array[],
    change: Change,
  ): Promise<void> {
    this.#checkLease();
    const isAdding = commands.length > 0;
    const head = this.#nextHead(isAdding, change);
    if (!isAdding && head === undefined) return;
    const settled = head === undefined ? [] : [...this.#settle.values()];
    const forgotten = head === undefined ? [] : [...this.#forget];
    const removed = head === undefined ? [] : this.#blocks.slice(
      0,
      this.#blocks.findLastIndex(({ last }) => last <= head.decided) + 1,
    );
    let added: CommandBlock | undefined;
    let isSent = false;
    const changes = (): Changes => {
      const put: Block[] = [];
      if (isAdding) {
        const { session } = head ?? this.#head;
        const last = this.#last;
        isSent = this.sendsAdded && session !== undefined &&
          this.#sendLimit === last;
        added = this.#blockOf({
          first: last + 1,
          session: isSent ? session!.index : 0,
          commands,
        }, head?.decided ?? 0);
        put.push({
          key: this.#names.commandBlock(added.first),
          bytes: encodeCommands(this.#clusterID, added),
        });
      }
      for (const one of settled) {
        put.push({
          key: this.#names.settledBlock(one.number),
          bytes: encodeSettled(this.#clusterID, one),
        });
      }
      if (head !== undefined) {
        put.push({
          key: this.#names.head,
          bytes: encodeHead(this.#clusterID, head),
        });
      }
      const remove = [
        ...removed.map((block) => this.#names.commandBlock(block.first)),
        ...forgotten.map((number) => this.#names.settledBlock(number)),
      ];
      return remove.length > 0 ? { put, delete: remove } : { put };
    };
    await this.#commitBlocks(
      isAdding,
      changes,
      // Results that are acknowledged must not be asked for after a power cut, and a
      // command that is told to be refused must not come back as queued.
      change.assign !== undefined || settled.length > 0 ||
        (head?.decided ?? 0) > this.#head.decided
        ? "strict"
        : this.#durability,
    );
    if (added !== undefined) {
      this.#setLast(added);
      this.#last = lastIn(added);
    }
    for (const one of settled) {
      if (this.#settle.get(one.number) === one) {
        this.#settle.delete(one.number);
      }
    }
    for (const number of forgotten) this.#forget.delete(number);
    if (head !== undefined) this.#replaceHead(head, removed.length);
    if (isSent) this.#sendLimit = this.#last;
  }

  /** Block in which commands are written: the last one with them, if there are many and it is small. */
  #blockOf(added: CommandBlock, decided: number): CommandBlock {
    const tail = this.#tail;
    if (
      tail === undefined || tail.session !== added.session ||
      tail.first + tail.commands.length - 1 <= decided ||
      tail.bytes + sizeOf(added.commands) > OUTBOX_MERGED_BYTES
    ) return added;
    return { ...tail, commands: [...tail.commands, ...added.commands] };
  }

  /** Notes the block that was written last. */
  #setLast(block: CommandBlock): void {
    const stored = storedBlock(block);
    const blocks = this.#blocks;
    if (blocks.at(-1)?.first === stored.first) blocks.pop();
    blocks.push(stored);
    const { bytes } = stored;
    const isMerged = blocks.length >= OUTBOX_BLOCKS_MERGED &&
      bytes < OUTBOX_MERGED_BYTES;
    this.#tail = isMerged ? { ...block, bytes } : undefined;
  }

  #replaceHead(head: QueueHead, removedBlocks: number): void {
    const { decided, session } = this.#head;
    this.#head = head;
    this.#hasHead = true;
    // Other processes may have raised it since the write began.
    const isSame = session && session.index === head.session?.index;
    this.#sendLimit = Math.max(head.sendLimit, isSame ? this.#sendLimit : 0);
    if (removedBlocks > 0) this.#blocks = this.#blocks.slice(removedBlocks);
    if (head.decided > decided) this.#onDecided(head.decided);
  }

  /** Makes changes, after it has taken note of what other processes have added, if commands are added. */
  async #commitBlocks(
    isAdding: boolean,
    changes: () => Changes,
    durability: Durability,
  ): Promise<void> {
    let made: Changes = {};
    try {
      if (isAdding && this.#isShared) {
        await this.#store.update!(
          { keys: [], range: this.#rangeFrom(this.#blocks.at(-1)?.first ?? 0) },
          ({ inRange }) => {
            this.#noteAll(inRange);
            return made = changes();
          },
          durability,
          false,
        );
      } else await this.#store.write(made = changes(), durability);
    } catch (error) {
      if (!(error instanceof ErrUnknownOutcome)) throw error;
      // The write has ended by now, so that a read shows whether it took effect.
      const { put = [] } = made;
      const found = await this.#found(put);
      const isThere = put.every(({ bytes }, i) =>
        found[i] !== undefined && isSameBytes(bytes, found[i])
      );
      if (!isThere) throw error;
    }
  }

  /** Stored bytes of these blocks; empty if the store cannot be read. */
  async #found(
    blocks: readonly Block[],
  ): Promise<readonly (Uint8Array | undefined)[]> {
    try {
      return await this.#store.get(blocks.map(({ key }) => key));
    } catch {
      return [];
    }
  }

  /** Writes noted changes and closes the queue. Idempotent. */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    this.#cancelTimer?.();
    await this.#commit.settled();
    try {
      await this.flush();
    } catch {
      // Nothing is lost: the log has decided the commands, or their refusals are not told.
    } finally {
      this.#onClose();
    }
  }
}
