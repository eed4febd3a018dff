import * as v from "valibot";
import { defineMachine, table } from "@sampan/sampan/typed";

type Card = { id: string; text: string; done: boolean; by: string | null };
const text = v.pipe(v.string(), v.trim(), v.nonEmpty());
export const board = defineMachine({
  name: "board",
  version: 1,
  state: () => ({ cards: table<Card>() }),
  commands: {
    add: {
      args: v.object({ id: v.string(), text }),
      run: (state, args, { by }) =>
        state.cards.set(args.id, { ...args, by, done: false }),
    },
    check: {
      args: v.object({ id: v.string(), done: v.boolean() }),
      run: ({ cards }, { id, done }, ctx) => {
        const card = cards.get(id);
        return card ? cards.set(id, { ...card, done }) : ctx.reject("gone");
      },
    },
  },
  queries: { cards: ({ cards }) => [...cards.values()] },
});
