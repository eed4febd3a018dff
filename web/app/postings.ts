/**
 * The log of a board as it is applied on this device, in sentences, for the view of
 * two devices side by side. An application needs none of this: it watches queries.
 *
 * This module runs in a browser.
 *
 * @module
 */

import type { TypedMachine } from "../../src/typed/mod.ts";
import type { board, Card, List } from "./board.ts";
import { channelOf } from "./names.ts";
import { sentenceOf } from "./words.ts";

/** Entry of the log, as one device has applied it. */
export interface Applied {
  /** Index in the log. */
  readonly index: number;
  /** Command in words. */
  readonly sentence: string;
  /** Code with which it was rejected. */
  readonly code: string | undefined;
  /** True if it was submitted on this device. */
  readonly isOwn: boolean;
}

/** State of a device. */
export interface Standing {
  /** Log index up to which everything is applied. */
  readonly applied: number;
  /** Hash of the state, as hexadecimal digits. */
  readonly hash: string;
  /** Number of edits that wait to be sent. */
  readonly waiting: number;
  /** True while the plug is in. */
  readonly isPluggedIn: boolean;
}

/** Message on the channel of a board. */
export type FeedMessage =
  | { readonly type: "hello" }
  | {
    readonly type: "applied";
    readonly device: string;
    readonly entries: readonly Applied[];
  }
  | {
    readonly type: "standing";
    readonly device: string;
    readonly standing: Standing;
  };

/** Decoding of the commands of a board. */
type Decode = typeof board.decode;

/** Entries that are kept for a view that opens later. */
const KEPT_MAX = 40;

/** Update of a machine. */
type Update = TypedMachine["update"];

/** Log of one device, posted to the pages that show it. */
export class Postings {
  readonly #device: string;
  readonly #channel: BroadcastChannel;
  readonly #decode: Decode;
  readonly #key: string;
  #kept: readonly Applied[] = [];
  /** Indexes of entries that were submitted on this device, also before the page was loaded. */
  #own: Set<number>;
  #standing: Standing | undefined;
  /** Commands that wait on this device. */
  pending: () => readonly { readonly cmd: Uint8Array }[] = () => [];

  /** Postings of a device of a board, whose commands `decode` decodes. */
  constructor(board: string, device: string, decode: Decode) {
    this.#device = device;
    this.#decode = decode;
    this.#key = `feed ${device} ${board}`;
    this.#own = new Set(JSON.parse(sessionStorage.getItem(this.#key) ?? "[]"));
    this.#channel = new BroadcastChannel(channelOf(board));
    this.#channel.onmessage = ({ data }: MessageEvent<FeedMessage>): void => {
      if (data.type !== "hello") return;
      this.#post(this.#kept);
      if (this.#standing !== undefined) this.stand(this.#standing);
    };
  }

  /** Posts where the device stands. */
  stand(standing: Standing): void {
    this.#standing = standing;
    this.#send({ type: "standing", device: this.#device, standing });
  }

  #post(entries: readonly Applied[]): void {
    if (entries.length === 0) return;
    this.#send({ type: "applied", device: this.#device, entries });
  }

  #send(message: FeedMessage): void {
    this.#channel.postMessage(message);
  }

  /** Update of a machine that posts the entries, too. */
  updating(machine: TypedMachine, update: Update): Update {
    return (entries) => {
      const pending = new Set(this.pending().map(({ cmd }) => `${cmd}`));
      const updated = update(entries);
      const shown = entries.slice(-KEPT_MAX).flatMap(
        ({ index, cmd, result }): Applied[] => {
          const call = this.#decode(cmd, result);
          if (call === undefined || call.name === "") return [];
          return [{
            index,
            sentence: sentenceOf(call, {
              card: (id) => lookUp<Card>(machine, "card", id)?.text,
              list: (id) => lookUp<List>(machine, "list", id)?.title,
            }),
            code: call.code,
            isOwn: this.#isOwn(index, cmd, pending),
          }];
        },
      );
      this.#kept = [...this.#kept, ...shown].slice(-KEPT_MAX);
      this.#post(shown);
      return updated;
    };
  }

  #isOwn(
    index: number,
    cmd: Uint8Array,
    pending: ReadonlySet<string>,
  ): boolean {
    if (pending.size > 0 && pending.has(`${cmd}`)) {
      const newest = [...this.#own, index].sort((a, b) => b - a);
      this.#own = new Set(newest.slice(0, KEPT_MAX));
      sessionStorage.setItem(this.#key, JSON.stringify([...this.#own]));
    }
    return this.#own.has(index);
  }
}

function lookUp<T>(
  machine: TypedMachine,
  name: "card" | "list",
  id: string,
): T | undefined {
  return machine.lookup({ name, args: [id] }) as T | undefined;
}
