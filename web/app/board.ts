/**
 * The state machine of the board: lists, and cards in them.
 *
 * This module is loaded twice. The server runs the machine and checks with it what
 * pages send; each page runs it too, and shows it. Four things in it are worth
 * copying:
 *
 * - **Commands are intents.** `tick` says that a card is done, and nothing about its
 *   text. So a tick made offline and a text written elsewhere both survive, whichever
 *   is ordered first.
 * - **Handlers decide.** A command arrives after others that its author had not seen.
 *   `write` to a card that was archived in the meantime is rejected with a code; the
 *   page shows the reason and offers what can be done. Nothing comes back from the
 *   dead by accident.
 * - **Positions are computed where commands are ordered.** A page says before which
 *   card another one belongs, and the handler computes the order key from the state
 *   it meets. Two devices that insert at one place never get the same key.
 * - **`inverse` makes commands undoable.** It is computed from the state before the
 *   command, on the device that undoes.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { generateKeyBetween } from "fractional-indexing";
import * as v from "valibot";
import { defineMachine, table } from "../../src/typed/mod.ts";
import { TEXT_LENGTH_MAX, TITLE_LENGTH_MAX } from "./names.ts";

export { TEXT_LENGTH_MAX, TITLE_LENGTH_MAX };

/** Most cards of a board, with those archived. */
export const CARDS_MAX = 25_000;

/** Most lists of a board. */
export const LISTS_MAX = 100;

/** Most cards that a board is begun with. */
const FIRST_CARDS_MAX = 50;

/** List of cards. */
export interface List {
  /** Id, chosen by the device that created it. */
  readonly id: string;
  /** Title that a person entered. */
  readonly title: string;
  /** Order key among the lists. */
  readonly position: string;
}

/** Card in a list. */
export interface Card {
  /** Id, chosen by the device that created it. */
  readonly id: string;
  /** Id of its list. */
  readonly list: string;
  /** Text that a person entered. */
  readonly text: string;
  /** True if it is ticked. */
  readonly done: boolean;
  /** Order key among the cards of its list. */
  readonly position: string;
  /** True if it is in the archive, and in no list. */
  readonly archived: boolean;
}

/** Row with an order key. */
type Ordered = Pick<Card, "id" | "position">;

/** Order key for a row that belongs before another one, at the end if that is not there (any more). */
function positionBefore(
  rows: readonly Ordered[],
  before: string | null,
  self?: string,
): string {
  const others = rows.filter(({ id }) => id !== self);
  const at = others.findIndex(({ id }) => id === before);
  const next = at < 0 ? others.length : at;
  return generateKeyBetween(
    others[next - 1]?.position ?? null,
    others[next]?.position ?? null,
  );
}

/** Id of the row that follows another one, null for the last. */
function idAfter(rows: readonly Ordered[], self: string): string | null {
  return rows[rows.findIndex(({ id }) => id === self) + 1]?.id ?? null;
}

// Arguments are checked by the page before a command is queued, and by the server
// before it is ordered: also those of a page that was tampered with.
const id = v.pipe(v.string(), v.nonEmpty(), v.maxLength(64));
const before = v.nullable(id);
const text = v.pipe(
  v.string(),
  v.trim(),
  v.nonEmpty("A card needs a text"),
  v.maxLength(TEXT_LENGTH_MAX, `At most ${TEXT_LENGTH_MAX} characters`),
);
const title = v.pipe(
  v.string(),
  v.trim(),
  v.nonEmpty("A title is needed"),
  v.maxLength(TITLE_LENGTH_MAX, `At most ${TITLE_LENGTH_MAX} characters`),
);
/** Title of a board; empty for one that is called by the name in its link. */
const boardTitle = v.pipe(
  v.string(),
  v.trim(),
  v.maxLength(TITLE_LENGTH_MAX, `At most ${TITLE_LENGTH_MAX} characters`),
);
/** Most cards of a list in one command that fills a board. */
const FILL_CARDS_MAX = 100;

const firstCards = v.pipe(
  v.array(v.object({ id, text, done: v.boolean() })),
  v.maxLength(FIRST_CARDS_MAX),
);
const firstLists = v.pipe(
  v.array(v.object({ id, title, cards: firstCards })),
  v.maxLength(LISTS_MAX),
);
const savedCards = v.pipe(
  v.array(v.object({ id, text, done: v.boolean(), archived: v.boolean() })),
  v.maxLength(FILL_CARDS_MAX),
);
const savedLists = v.pipe(
  v.array(v.object({ id, title, cards: savedCards })),
  v.maxLength(LISTS_MAX),
);

/** The machine of a board. */
export const board = defineMachine({
  name: "sampan-board",
  version: 1,
  state: () => ({
    /** True once a device has begun the board. */
    begun: false,
    title: "",
    lists: table({ indexes: { byPosition: (list: List) => list.position } }),
    cards: table({
      indexes: {
        byList: (card: Card) =>
          card.archived ? undefined : [card.list, card.position],
        byArchive: (card: Card) => card.archived ? "archive" : undefined,
      },
    }),
  }),
  commands: {
    // Every device that sees an empty board submits this: the first one counts.
    begin: {
      args: v.object({ lists: firstLists }),
      run: (state, { lists }) => {
        if (state.begun) return false;
        state.begun = true;
        for (const { id, title, cards } of lists) {
          const position = positionBefore(state.lists.byPosition(), null);
          state.lists.set(id, { id, title, position });
          for (const { id: card, text, done } of cards) {
            state.cards.set(card, {
              id: card,
              list: id,
              text,
              done,
              position: positionBefore(state.cards.byList(id), null),
              archived: false,
            });
          }
        }
        return true;
      },
    },
    // Adds what a saved board has and this one does not, so that it can be repeated.
    fill: {
      args: v.object({ lists: savedLists }),
      run: (state, { lists: saved }) => {
        state.begun = true;
        const { lists, cards } = state;
        let added = 0;
        for (const { id, title, cards: savedCards } of saved) {
          if (!lists.has(id)) {
            const all = lists.byPosition();
            // In the place of an empty list of the same title, as boards begin with.
            const empty = all.find((list) =>
              list.title === title && cards.byList(list.id).length === 0
            );
            if (empty === undefined && all.length >= LISTS_MAX) continue;
            if (empty !== undefined) lists.delete(empty.id);
            const position = empty?.position ?? positionBefore(all, null);
            lists.set(id, { id, title, position });
          }
          let last = cards.byList(id).at(-1)?.position ?? null;
          for (const card of savedCards) {
            if (cards.has(card.id) || cards.size >= CARDS_MAX) continue;
            last = generateKeyBetween(last, null);
            cards.set(card.id, { ...card, list: id, position: last });
            added++;
          }
        }
        return added;
      },
    },
    name: {
      args: v.object({ title: boardTitle }),
      run: (state, { title }) => {
        state.title = title;
      },
      inverse: ({ title }) => ({ name: "name", args: { title } }),
    },

    addList: {
      args: v.object({ id, title, before }),
      run: ({ lists }, { id, title, before }, ctx) => {
        if (lists.has(id)) return ctx.reject("exists");
        if (lists.size >= LISTS_MAX) return ctx.reject("full");
        const position = positionBefore(lists.byPosition(), before);
        lists.set(id, { id, title, position });
        return undefined;
      },
      inverse: (_before, { id }) => ({ name: "removeList", args: { id } }),
    },
    renameList: {
      args: v.object({ id, title }),
      run: ({ lists }, { id, title }, ctx) => {
        const list = lists.get(id);
        if (list === undefined) return ctx.reject("no-list");
        lists.set(id, { ...list, title });
        return undefined;
      },
      inverse: ({ lists }, { id }) => {
        const list = lists.get(id);
        return list &&
          { name: "renameList", args: { id, title: list.title } };
      },
    },
    moveList: {
      args: v.object({ id, before }),
      run: ({ lists }, { id, before }, ctx) => {
        const list = lists.get(id);
        if (list === undefined) return ctx.reject("no-list");
        const position = positionBefore(lists.byPosition(), before, id);
        lists.set(id, { ...list, position });
        return undefined;
      },
      inverse: ({ lists }, { id }) => ({
        name: "moveList",
        args: { id, before: idAfter(lists.byPosition(), id) },
      }),
    },
    removeList: {
      args: v.object({ id }),
      run: ({ lists, cards }, { id }, ctx) => {
        if (!lists.has(id)) return ctx.reject("no-list");
        if (cards.byList(id).length > 0) return ctx.reject("not-empty");
        lists.delete(id);
        return undefined;
      },
      inverse: ({ lists }, { id }) => {
        const list = lists.get(id);
        return list && {
          name: "addList",
          args: {
            id,
            title: list.title,
            before: idAfter(lists.byPosition(), id),
          },
        };
      },
    },

    add: {
      args: v.object({ id, list: id, text, before }),
      run: ({ lists, cards }, { id, list, text, before }, ctx) => {
        if (!lists.has(list)) return ctx.reject("no-list");
        const known = cards.get(id);
        // The redoing of an addition: undoing it has archived the card.
        if (known?.archived === false) return ctx.reject("exists");
        if (cards.size >= CARDS_MAX) return ctx.reject("full");
        const position = positionBefore(cards.byList(list), before);
        const done = known?.done ?? false;
        cards.set(id, { id, list, text, done, position, archived: false });
        return undefined;
      },
      inverse: (_before, { id }) => ({ name: "archive", args: { id } }),
    },
    write: {
      args: v.object({ id, text }),
      run: ({ cards }, { id, text }, ctx) => {
        const card = cards.get(id);
        if (card === undefined) return ctx.reject("gone");
        if (card.archived) return ctx.reject("archived");
        cards.set(id, { ...card, text });
        return undefined;
      },
      inverse: ({ cards }, { id }) => {
        const card = cards.get(id);
        return card && { name: "write", args: { id, text: card.text } };
      },
    },
    tick: {
      args: v.object({ id, done: v.boolean() }),
      run: ({ cards }, { id, done }, ctx) => {
        const card = cards.get(id);
        if (card === undefined) return ctx.reject("gone");
        if (card.archived) return ctx.reject("archived");
        cards.set(id, { ...card, done });
        return undefined;
      },
      inverse: ({ cards }, { id }) => {
        const card = cards.get(id);
        return card && { name: "tick", args: { id, done: card.done } };
      },
    },
    move: {
      args: v.object({ id, list: id, before }),
      run: ({ lists, cards }, { id, list, before }, ctx) => {
        const card = cards.get(id);
        if (card === undefined) return ctx.reject("gone");
        if (card.archived) return ctx.reject("archived");
        if (!lists.has(list)) return ctx.reject("no-list");
        const position = positionBefore(cards.byList(list), before, id);
        cards.set(id, { ...card, list, position });
        return undefined;
      },
      inverse: ({ cards }, { id }) => {
        const card = cards.get(id);
        return card && {
          name: "move",
          args: {
            id,
            list: card.list,
            before: idAfter(cards.byList(card.list), id),
          },
        };
      },
    },
    archive: {
      args: v.object({ id }),
      run: ({ cards }, { id }, ctx) => {
        const card = cards.get(id);
        if (card === undefined) return ctx.reject("gone");
        cards.set(id, { ...card, archived: true });
        return undefined;
      },
      inverse: ({ cards }, { id }) =>
        cards.get(id)?.archived === false
          ? { name: "restore", args: { id } }
          : undefined,
    },
    restore: {
      args: v.object({ id }),
      run: ({ lists, cards }, { id }, ctx) => {
        const card = cards.get(id);
        if (card === undefined) return ctx.reject("gone");
        if (!card.archived) return undefined;
        const list = lists.has(card.list)
          ? card.list
          : lists.byPosition()[0]?.id;
        if (list === undefined) return ctx.reject("no-list");
        // The position that it had may be another card's by now.
        const others = cards.byList(list);
        const next = others.find(({ position }) => position >= card.position);
        const position = list === card.list && next?.position !== card.position
          ? card.position
          : positionBefore(others, next?.id ?? null);
        cards.set(id, { ...card, list, position, archived: false });
        return undefined;
      },
      inverse: ({ cards }, { id }) =>
        cards.get(id)?.archived === true
          ? { name: "archive", args: { id } }
          : undefined,
    },
    // Final: there is no inverse.
    remove: {
      args: v.object({ id }),
      run: ({ cards }, { id }, ctx) => {
        const card = cards.get(id);
        if (card?.archived === false) return ctx.reject("not-archived");
        cards.delete(id);
        return undefined;
      },
    },
  },
  queries: {
    about: ({ begun, title }) => ({ begun, title }),
    lists: ({ lists }) => lists.byPosition(),
    cards: ({ cards }, list: string) => cards.byList(list),
    card: ({ cards }, id: string) => cards.get(id),
    list: ({ lists }, id: string) => lists.get(id),
    archive: ({ cards }) => cards.byArchive(),
  },
});
