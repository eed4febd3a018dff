import * as v from "valibot";
import { defineMachine, table } from "@sampan/sampan/typed";

type Card = {
  id: string;
  text: string;
  done: boolean;
  by: string | null;
  urgent: boolean;
};
const id = v.string();
const text = v.pipe(v.string(), v.trim(), v.nonEmpty());

// Version 2 of the board: cards may be urgent. Pages of version 1 stay open, their
// commands are in the log and in outboxes, and their states are in snapshots.
export const board = defineMachine({
  name: "board",
  version: 2,
  state: () => ({ cards: table<Card>() }),
  migrate: {
    1: ({ cards }) => ({
      cards: new Map(
        [...cards as Map<string, object>].map((
          [id, card],
        ) => [id, { ...card, urgent: false }]),
      ),
    }),
  },
  commands: {
    add: {
      version: 2,
      args: v.object({ id, text, urgent: v.boolean() }),
      upcast: { 1: (old: object) => ({ ...old, urgent: false }) },
      run: (state, args, { by }) =>
        state.cards.set(args.id, { ...args, by, done: false }),
    },
    check: {
      args: v.object({ id, done: v.boolean() }),
      run: ({ cards }, { id, done }, ctx) => {
        const card = cards.get(id);
        return card ? cards.set(id, { ...card, done }) : ctx.reject("gone");
      },
    },
    flag: {
      args: v.object({ id, urgent: v.boolean() }),
      run: ({ cards }, { id, urgent }, ctx) => {
        const card = cards.get(id);
        return card ? cards.set(id, { ...card, urgent }) : ctx.reject("gone");
      },
    },
  },
  queries: { cards: ({ cards }) => [...cards.values()] },
});
