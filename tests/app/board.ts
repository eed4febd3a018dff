/**
 * State machine of the app: a shared board of cards in columns.
 *
 * @module
 */

import type {
  IFork,
  IHash,
  IRefusal,
  IStateMachine,
  Result,
} from "../../mod.ts";

/** A card on the board. */
export interface Card {
  readonly id: string;
  readonly title: string;
  readonly column: Column;
}

export const COLUMNS = ["todo", "doing", "done"] as const;
export type Column = typeof COLUMNS[number];

/** Edits of the board. */
export type Edit =
  | { readonly type: "add"; readonly id: string; readonly title: string }
  | { readonly type: "rename"; readonly id: string; readonly title: string }
  | { readonly type: "move"; readonly id: string; readonly column: Column };

export const encode = (edit: Edit): Uint8Array =>
  new TextEncoder().encode(JSON.stringify(edit));

export const decode = (cmd: Uint8Array): Edit =>
  JSON.parse(new TextDecoder().decode(cmd));

const refused = (reason: string): Result => ({
  value: 0n,
  data: new TextEncoder().encode(reason),
});

/** Board in memory. A query is `null`; the answer is the cards. */
export class Board
  implements
    IStateMachine<null, Card[]>,
    IFork<IStateMachine>,
    IHash,
    IRefusal {
  #cards = new Map<string, Card>();

  update(cmd: Uint8Array): Result {
    const edit = decode(cmd);
    const card = this.#cards.get(edit.id);
    if (edit.type === "add") {
      if (card !== undefined) return refused("This card is there already");
      this.#cards.set(edit.id, { ...edit, column: "todo" });
    } else {
      if (card === undefined) return refused("This card is not there");
      this.#cards.set(
        edit.id,
        edit.type === "move"
          ? { ...card, column: edit.column }
          : { ...card, title: edit.title.trim() },
      );
    }
    return { value: 1n };
  }

  lookup(): Card[] {
    return [...this.#cards.values()];
  }

  refusal({ value, data }: Result): string | undefined {
    return value === 0n ? new TextDecoder().decode(data) : undefined;
  }

  getHash(): bigint {
    let hash = 0xcbf29ce484222325n;
    for (
      const byte of new TextEncoder().encode(JSON.stringify(this.lookup()))
    ) {
      hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
    }
    return hash;
  }

  fork(): Board {
    const board = new Board();
    board.#cards = new Map(this.#cards);
    return board;
  }

  saveSnapshot(w: WritableStream<Uint8Array>): Promise<void> {
    return new Blob([JSON.stringify(this.lookup())]).stream().pipeTo(w);
  }

  async recoverFromSnapshot(r: ReadableStream<Uint8Array>): Promise<void> {
    const cards = await new Response(r as BodyInit).json() as Card[];
    this.#cards = new Map(cards.map((card) => [card.id, card]));
  }

  close(): void {}
}
