/**
 * Four releases of one typed application, for simulations of fleets in which pages
 * and servers of different releases meet.
 *
 * Release 2 has another version of a command and another command, release 3 a
 * change of behaviour, release 4 another shape of the state.
 *
 * @module
 */

import {
  defineMachine,
  type Schema,
  table,
  typed,
  type TypedMachine,
  type TypedOptions,
  type TypedReplica,
} from "../../src/typed/mod.ts";

/** Row of the first three releases. */
export interface Row {
  readonly by: string | null;
  readonly amount: number;
  /** Place of the row in the order of all. */
  readonly order: number;
  /** True if the change of behaviour was active. */
  readonly capped: boolean;
}

/** Row of the fourth release. */
export interface TaggedRow extends Row {
  readonly tags: readonly string[];
}

/** Largest amount once the change of behaviour is active. */
export const CAP = 50;

function any<T>(): Schema<T, T> {
  return {
    "~standard": {
      version: 1,
      vendor: "simulation",
      validate: (value) => ({ value: value as T }),
    },
  };
}

const one = defineMachine({
  name: "fleet",
  version: 1,
  state: () => ({ rows: table<Row>(), count: 0 }),
  commands: {
    put: {
      args: any<{ id: string; value: number }>(),
      run: (s, { id, value }, ctx) => {
        if (s.rows.has(id)) return ctx.reject("exists");
        s.count = s.count + 1;
        s.rows.set(id, {
          by: ctx.by,
          amount: value,
          order: s.count,
          capped: false,
        });
        return s.count;
      },
    },
  },
  queries: { rows: (s) => [...s.rows] },
});

/** Arguments of version 2 of `put`, from those of version 1. */
const amountOf = (
  { id, value }: { id: string; value: number },
): { id: string; amount: number } => ({ id, amount: value });

const two = defineMachine({
  name: "fleet",
  version: 1,
  state: () => ({ rows: table<Row>(), count: 0 }),
  commands: {
    put: {
      version: 2,
      upcast: {
        1: amountOf,
      },
      args: any<{ id: string; amount: number }>(),
      run: (s, { id, amount }, ctx) => {
        if (s.rows.has(id)) return ctx.reject("exists");
        s.count = s.count + 1;
        s.rows.set(id, {
          by: ctx.by,
          amount,
          order: s.count,
          capped: false,
        });
        return s.count;
      },
    },
    double: {
      args: any<{ id: string }>(),
      run: (s, { id }, ctx) => {
        const row = s.rows.get(id);
        if (row === undefined) return ctx.reject("missing");
        s.rows.set(id, { ...row, amount: 2 * row.amount });
        return null;
      },
    },
  },
  queries: { rows: (s) => [...s.rows] },
});

const three = defineMachine({
  name: "fleet",
  version: 1,
  state: () => ({ rows: table<Row>(), count: 0 }),
  changes: ["cap"],
  commands: {
    put: {
      version: 2,
      upcast: {
        1: amountOf,
      },
      args: any<{ id: string; amount: number }>(),
      run: (s, { id, amount }, ctx) => {
        if (s.rows.has(id)) return ctx.reject("exists");
        const capped = ctx.since("cap");
        s.count = s.count + 1;
        s.rows.set(id, {
          by: ctx.by,
          amount: capped ? Math.min(amount, CAP) : amount,
          order: s.count,
          capped,
        });
        return s.count;
      },
    },
    double: {
      args: any<{ id: string }>(),
      run: (s, { id }, ctx) => {
        const row = s.rows.get(id);
        if (row === undefined) return ctx.reject("missing");
        s.rows.set(id, { ...row, amount: 2 * row.amount });
        return null;
      },
    },
  },
  queries: { rows: (s) => [...s.rows] },
});

const four = defineMachine({
  name: "fleet",
  version: 2,
  state: () => ({ rows: table<TaggedRow>(), count: 0 }),
  changes: ["cap"],
  migrate: {
    1: ({ rows, count }) => ({
      rows: new Map(
        [...rows as Map<string, Record<string, never>>].map((
          [id, row],
        ) => [id, { ...row, tags: [] }]),
      ),
      count: count!,
    }),
  },
  commands: {
    put: {
      version: 3,
      upcast: {
        1: amountOf,
        2: (old: { id: string; amount: number }) => ({ ...old, tags: [] }),
      },
      args: any<{ id: string; amount: number; tags: string[] }>(),
      run: (s, { id, amount, tags }, ctx) => {
        if (s.rows.has(id)) return ctx.reject("exists");
        const capped = ctx.since("cap");
        s.count = s.count + 1;
        s.rows.set(id, {
          by: ctx.by,
          amount: capped ? Math.min(amount, CAP) : amount,
          order: s.count,
          capped,
          tags,
        });
        return s.count;
      },
    },
    double: {
      args: any<{ id: string }>(),
      run: (s, { id }, ctx) => {
        const row = s.rows.get(id);
        if (row === undefined) return ctx.reject("missing");
        s.rows.set(id, { ...row, amount: 2 * row.amount });
        return null;
      },
    },
  },
  queries: { rows: (s) => [...s.rows] },
});

/** Outcome of a command, as the simulation compares it. */
export type FleetOutcome = { readonly ok: boolean; readonly code?: string };

/** Release of the application. */
export interface Release {
  /** Number of the release, from 1. */
  readonly number: number;
  /** Creates its machine. */
  readonly create: () => TypedMachine;
  /** Validates commands on a server. */
  readonly validate: (principal: unknown, cmd: Uint8Array) => unknown;
  /** Submits a row; resolves to the outcome, once the command is stored. */
  put(
    replica: TypedReplica,
    options: TypedOptions,
    id: string,
    amount: number,
  ): Promise<{ readonly outcome: Promise<FleetOutcome> }>;
  /** Submits the doubling of a row, in releases that have it. */
  double?(
    replica: TypedReplica,
    options: TypedOptions,
    id: string,
  ): Promise<{ readonly outcome: Promise<FleetOutcome> }>;
}

async function stored(
  edit: Promise<{ readonly result: Promise<FleetOutcome> }>,
): Promise<{ readonly outcome: Promise<FleetOutcome> }> {
  return { outcome: (await edit).result };
}

/** Releases in order. */
export const RELEASES: readonly Release[] = [
  {
    number: 1,
    create: one.create,
    validate: one.validate,
    put: (replica, options, id, value) =>
      stored(typed(replica, one, options).do.put({ id, value })),
  },
  {
    number: 2,
    create: two.create,
    validate: two.validate,
    put: (replica, options, id, amount) =>
      stored(typed(replica, two, options).do.put({ id, amount })),
    double: (replica, options, id) =>
      stored(typed(replica, two, options).do.double({ id })),
  },
  {
    number: 3,
    create: three.create,
    validate: three.validate,
    put: (replica, options, id, amount) =>
      stored(typed(replica, three, options).do.put({ id, amount })),
    double: (replica, options, id) =>
      stored(typed(replica, three, options).do.double({ id })),
  },
  {
    number: 4,
    create: four.create,
    validate: four.validate,
    put: (replica, options, id, amount) =>
      stored(
        typed(replica, four, options).do.put({ id, amount, tags: ["new"] }),
      ),
    double: (replica, options, id) =>
      stored(typed(replica, four, options).do.double({ id })),
  },
];
