/**
 * The shopping list of the examples in React, Solid, Svelte and Vue. Server and
 * pages run the same machine.
 *
 * @module
 */

import * as v from "valibot";
import { defineMachine, table } from "@sampan/sampan/typed";

/** Something to buy. */
export interface Item {
  readonly id: string;
  readonly text: string;
  /** Time when it was added, in milliseconds since 1970. */
  readonly at: number;
}

export const shopping = defineMachine({
  name: "shopping list",
  version: 1,
  state: () => ({
    items: table({ indexes: { byTime: (item: Item) => item.at } }),
  }),
  commands: {
    add: {
      args: v.object({
        id: v.string(),
        text: v.pipe(v.string(), v.trim(), v.minLength(1), v.maxLength(100)),
      }),
      run: ({ items }, { id, text }, ctx) => {
        items.set(id, { id, text, at: ctx.at });
      },
    },
    remove: {
      args: v.object({ id: v.string() }),
      run: ({ items }, { id }) => void items.delete(id),
    },
  },
  queries: { items: ({ items }) => items.byTime() },
});
