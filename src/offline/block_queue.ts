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
  OUTBOX_DONE_COMMANDS_MAX,
  OUTBOX_DONE_MS,
} from "../limits.ts";
import { ErrClusterClosed, ErrUnknownOutcome } from "../log/errors.ts";
import type { HistoryPoint } from "../log/history.ts";
import { ErrStoreCorrupted } from "../store/errors.ts";
import { GroupCommit } from "../store/group_commit.ts";
import type { Block, BlockStore, Durability } from "../store/store.ts";
import {
  BlockNames,
  type CommandBlock,
  decodeCommands,
  decodeHead,
  decodeSettled,
  encodeCommands,
  encodeHead,
  encodeSettled,
  type QueueHead,
} from "./outbox_block.ts";
import type {
  OutboxClient,
  OutboxQueue,
  OutboxSession,
  QueueContents,
  QueueNote,
  SettledCommand,
} from "./outbox_store.ts";

/** Stored blocks of a queue. */
export interface StoredQueue {
  /** Head of the queue. */
  readonly head: QueueHead;
  /** True if the head is in the store. */
  readonly hasHead: boolean;
  /** Blocks of commands, in order. */
  readonly blocks: readonly CommandBlock[];
  /** Settled commands, in order. */
  readonly settled: readonly SettledCommand[];
}

/** Changes of a write besides added commands. */
interface Change {
  /** Session, limit and client to be stored. */
  readonly assign?: Omit<QueueHead, "decided">;
  /** True if noted changes are written, too. */
  readonly notes?: boolean;
}

function lastOf({ first, commands }: CommandBlock): number {
  return first + commands.length - 1;
}

/**
 * Loads the queue of a cluster.
 *
 * @throws ErrStoreCorrupted if a block is damaged or missing
 */
export async function loadQueue(
  store: BlockStore,
  clusterID: bigint,
  env: Env,
): Promise<StoredQueue> {
  const names = new BlockNames(clusterID);
  let head: QueueHead | undefined;
  const blocks: CommandBlock[] = [];
  const settled: SettledCommand[] = [];
  for (const block of await store.list(...names.range)) {
    const { key } = block;
    if (key.startsWith(names.commands)) {
      blocks.push(decodeCommands(block, clusterID));
    } else if (key === names.head) head = decodeHead(block, clusterID);
    else settled.push(decodeSettled(block, clusterID));
  }
  checkContiguous(names, head, blocks);
  const hasHead = head !== undefined;
  head ??= {
    decided: 0,
    sendLimit: 0,
    clientID: env.random64(),
    lostSession: 0,
    owner: undefined,
    session: undefined,
  };
  return { head, hasHead, blocks, settled };
}

/** Checks that each block follows the one before it, and the first the decided commands. */
function checkContiguous(
  names: BlockNames,
  head: QueueHead | undefined,
  blocks: readonly CommandBlock[],
): void {
  // The first command is written together with the head.
  if (head === undefined && blocks.length > 0) {
    throw new ErrStoreCorrupted(names.head, "Head of the outbox is missing");
  }
  let next = (head?.decided ?? 0) + 1;
  for (const [i, block] of blocks.entries()) {
    if (i === 0 ? block.first > next : block.first !== next) {
      throw new ErrStoreCorrupted(
        names.commandBlock(next),
        "Block of the outbox is missing",
      );
    }
    next = lastOf(block) + 1;
  }
}

/** Contents of a stored queue. */
export function contentsOf(
  { head, blocks, settled }: StoredQueue,
): QueueContents {
  const { decided, clientID, lostSession, owner, principal, session } = head;
  let sendLimit = Math.max(head.sendLimit, decided);
  const commands: Uint8Array[] = [];
  for (const block of blocks) {
    block.commands.forEach((cmd, i) => {
      if (block.first + i > decided) commands.push(cmd);
    });
    if (session !== undefined && block.session === session.index) {
      sendLimit = Math.max(sendLimit, lastOf(block));
    }
  }
  const client = { clientID, lostSession, owner, principal };
  return { decided, commands, settled, session, sendLimit, ...client };
}

/** Queue of one cluster on a block store. */
export class BlockQueue implements OutboxQueue {
  /** Contents when the queue was opened. */
  contents: QueueContents;
  /** Set while added commands are sent at once. */
  sendsAdded = false;
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
  /** First and last number of each block of commands. */
  #blocks: { readonly first: number; readonly last: number }[];
  readonly #commit: GroupCommit<Uint8Array, number>;
  // Noted changes that are not written yet.
  #decided: number;
  #known: HistoryPoint | undefined;
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
    options: { readonly env: Env; readonly durability: Durability },
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
    this.#onDecided = onDecided;
    this.#onClose = onClose;
    this.#head = head;
    this.#hasHead = hasHead;
    this.#sendLimit = this.contents.sendLimit;
    this.#decided = head.decided;
    this.#blocks = blocks.map((block) => ({
      first: block.first,
      last: lastOf(block),
    }));
    this.#last = this.#blocks.at(-1)?.last ?? head.decided;
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

  /** Frees the commands in `contents`. */
  releaseContents(): void {
    this.contents = { ...this.contents, commands: [], settled: [] };
  }

  /** Adds a command and resolves with its number once it is durable. */
  add(cmd: Uint8Array): Promise<number> {
    if (this.#closing) return Promise.reject(new ErrClusterClosed());
    return this.#commit.add(cmd);
  }

  /** True if the noted changes have reached the bound, so that the next write includes them. */
  get #isDue(): boolean {
    return this.#decided - this.#head.decided + this.#settle.size +
        this.#forget.size >= OUTBOX_DONE_COMMANDS_MAX;
  }

  get #hasNotes(): boolean {
    return this.#decided > this.#head.decided || this.#settle.size > 0 ||
      this.#forget.size > 0;
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
        // The changes stay noted for the next write; nothing is lost, since the log
        // has decided the commands.
      });
    }, isSoon ? 0 : OUTBOX_DONE_MS);
  }

  /** Writes noted changes. */
  flush(): Promise<void> {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    return this.#commit.run(() => this.#write([], { notes: true }));
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
    return this.#commit.run(() => this.#write([], { assign, notes: true }));
  }

  /** Head after a change; undefined if it stays as it is. */
  #nextHead(
    isAdding: boolean,
    { assign, notes }: Change,
  ): QueueHead | undefined {
    let head: QueueHead | undefined;
    // The head is written together with the first command.
    if (!this.#hasHead && isAdding) head = this.#head;
    if (assign !== undefined) {
      head = { decided: this.#head.decided, ...assign };
    }
    if (!notes || !this.#hasNotes) return head;
    head = {
      ...this.#head,
      sendLimit: this.#sendLimit,
      ...head,
      decided: this.#decided,
    };
    const { session } = head;
    // The history of an assigned session is newer.
    return assign === undefined && this.#known !== undefined && session
      ? { ...head, session: { ...session, known: this.#known } }
      : head;
  }

  /** Makes changes in one atomic write. Nothing is changed if that fails. */
  async #write(
    commands: readonly Uint8Array[],
    change: Change,
  ): Promise<void> {
    const isAdding = commands.length > 0;
    const first = this.#last + 1;
    const last = this.#last + commands.length;
    const head = this.#nextHead(isAdding, change);
    const { session } = head ?? this.#head;
    const isSent = isAdding && this.sendsAdded && session !== undefined &&
      this.#sendLimit === this.#last;
    const put: Block[] = [];
    if (isAdding) {
      put.push({
        key: this.#names.commandBlock(first),
        bytes: encodeCommands(this.#clusterID, {
          first,
          session: isSent ? session.index : 0,
          commands,
        }),
      });
    }
    const settled = head === undefined ? [] : [...this.#settle.values()];
    const forgotten = head === undefined ? [] : [...this.#forget];
    const removed = head === undefined ? [] : this.#blocks.slice(
      0,
      this.#blocks.findLastIndex(({ last }) => last <= head.decided) + 1,
    );
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
    if (put.length === 0) return;
    await this.#commitBlocks(
      put,
      [
        ...removed.map((block) => this.#names.commandBlock(block.first)),
        ...forgotten.map((number) => this.#names.settledBlock(number)),
      ],
      // Results that are acknowledged must not be asked for after a power cut.
      change.assign !== undefined || (head?.decided ?? 0) > this.#head.decided
        ? "strict"
        : this.#durability,
    );
    if (isAdding) this.#blocks.push({ first, last });
    this.#last = last;
    for (const one of settled) {
      if (this.#settle.get(one.number) === one) {
        this.#settle.delete(one.number);
      }
    }
    for (const number of forgotten) this.#forget.delete(number);
    if (head !== undefined) this.#replaceHead(head, removed.length);
    if (isSent) this.#sendLimit = last;
  }

  #replaceHead(head: QueueHead, removedBlocks: number): void {
    const { decided } = this.#head;
    this.#head = head;
    this.#hasHead = true;
    this.#sendLimit = head.sendLimit;
    if (removedBlocks > 0) this.#blocks = this.#blocks.slice(removedBlocks);
    if (head.decided > decided) this.#onDecided(head.decided);
  }

  async #commitBlocks(
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
      // The write has ended by now, so that a read shows whether it took effect.
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
      // Nothing is lost: the log has decided the commands.
    } finally {
      this.#onClose();
    }
  }
}
