/**
 * Typed list for tests, on the page and in its worker.
 *
 * @module
 */

import { defineMachine, Rejected, table } from "../../src/typed/mod.ts";
import { shape } from "../typed/schemas.ts";

/** List of texts without repetitions. */
export const list = defineMachine({
  name: "list",
  version: 1,
  state: () => ({ items: table<{ readonly text: string }>() }),
  commands: {
    add: {
      args: shape({ id: "string", text: "string" }),
      run: ({ items }, { id, text }) => {
        if (items.has(id)) return new Rejected("there");
        items.set(id, { text });
        return undefined;
      },
    },
  },
  queries: {
    all: ({ items }) => [...items.keys()],
  },
});
