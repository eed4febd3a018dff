import {
  assert,
  assertEquals,
  assertNotEquals,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import { Buffer } from "node:buffer";
import { ByteWriter, crc32 } from "../../src/bytes.ts";
import {
  SESSION_RESULT_BYTES_MAX,
  SESSION_WINDOW_MAX,
  SESSIONS_DEFAULT,
  SESSIONS_MAX,
  SESSIONS_RESULT_BYTES_MAX,
} from "../../src/limits.ts";
import {
  type Admission,
  digest,
  type SessionEntry,
  SessionTable,
  SKIPPED,
  type Slot,
} from "../../src/rsm/mod.ts";
import type { Result } from "../../src/statemachine/mod.ts";
import { seeded } from "../support/random.ts";

const none = new Uint8Array(0);

/** Reference model of the session rules. */
class Model {
  max = SESSIONS_DEFAULT;
  /** Sessions, least recently used first. */
  sessions: ModelSession[] = [];

  get(index: number): ModelSession | undefined {
    return this.sessions.find((one) => one.index === index);
  }

  register(index: number, clientID: bigint, owner: Uint8Array): void {
    const known = this.sessions.findIndex((one) =>
      one.clientID === clientID && `${one.owner}` === `${owner}`
    );
    if (known >= 0) {
      this.sessions.push(...this.sessions.splice(known, 1));
      return;
    }
    if (this.sessions.length >= this.max) this.remove(this.leastUsed());
    this.sessions.push({ index, clientID, owner, responded: 0, series: [] });
  }

  /** Of the owner with most, if those are more than a quarter. */
  leastUsed(): number {
    const owners = Map.groupBy(
      this.sessions,
      ({ owner }) => String.fromCharCode(...owner),
    );
    const [[, most]] = [...owners].sort(([a, { length: n }], [b, { length }]) =>
      length - n || (a < b ? -1 : 1)
    ) as [[string, ModelSession[]]];
    return (most.length > this.max / 4 ? most : this.sessions)[0]!.index;
  }

  remove(index: number): void {
    this.sessions = this.sessions.filter((one) => one.index !== index);
  }

  admit(index: number, series: number, lag: number, digest: number): Admission {
    const session = this.get(index)!;
    this.sessions = [
      ...this.sessions.filter((one) => one !== session),
      session,
    ];
    const acknowledged = series - lag - 1;
    session.responded = Math.max(
      session.responded,
      Math.min(acknowledged, session.series.length),
    );
    if (series <= session.responded) return "acknowledged";
    const known = session.series[series - 1];
    if (known !== undefined) {
      return known.digest === digest || known.digest === SKIPPED ||
          digest === SKIPPED
        ? "duplicate"
        : "conflict";
    }
    if (
      series !== session.series.length + 1 ||
      series - session.responded > SESSION_WINDOW_MAX
    ) return "gap";
    session.series.push({ digest, result: undefined });
    return "apply";
  }

  fill(index: number, series: number, result: Result): void {
    const session = this.get(index);
    if (session === undefined) return;
    session.series[series - 1]!.result = result;
    // What is kept are the newest results that fit together with all after them.
    const open = session.series.slice(session.responded);
    let bytes = open.reduce(
      (sum, one) => sum + (one.result?.data?.length ?? 0),
      0,
    );
    for (const one of open) {
      if (bytes <= SESSION_RESULT_BYTES_MAX) return;
      if (one.result?.data === undefined) continue;
      bytes -= one.result.data.length;
      one.result = undefined;
    }
  }

  /** Observable state, in the form of `state()` of a table. */
  state(): unknown {
    return this.sessions.map((
      { index, clientID, owner, responded, series },
    ) => ({
      index,
      clientID,
      owner,
      responded,
      next: series.length + 1,
      slots: series.slice(responded).map(brief),
    }));
  }
}

/** Summarises a slot without its data, which may be megabytes. */
function brief({ digest, result }: Slot): unknown {
  const { value, data } = result ?? {};
  return [digest, value, data?.length, data?.at(0), data?.at(-1)];
}

/** Asserts that two tables are equal, results included. */
function assertSame<A, B>(a: SessionTable<A>, b: SessionTable<B>): void {
  const [x, y] = [a.encode(true), b.encode(true)];
  assert(x.length === y.length && crc32(x) === crc32(y), "Tables differ");
  assertEquals(state(a), state(b));
}

interface ModelSession {
  readonly index: number;
  readonly clientID: bigint;
  readonly owner: Uint8Array;
  responded: number;
  /** All its series from 1 on. */
  series: { digest: number; result: Result | undefined }[];
}

/** The sessions of a table in the order of use, oldest first. */
function list<L>(table: SessionTable<L>): SessionEntry<L>[] {
  // The order is in the encoding, which is what replicas compare.
  const copy = new SessionTable<L>();
  copy.decode(table.encode(true));
  const { sessions } = peek(copy);
  return sessions;
}

/** Reads an encoded table by the description of its form. */
function peek<L>(table: SessionTable<L>): { sessions: SessionEntry<L>[] } {
  const bytes = table.encode(false);
  let at = 0;
  const varint = (): number => {
    let value = 0;
    let scale = 1;
    for (;;) {
      assert(at < bytes.length);
      const byte = bytes[at++]!;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
      scale *= 0x80;
    }
  };
  varint();
  const count = varint();
  const sessions: SessionEntry<L>[] = [];
  for (let i = 0; i < count; i++) {
    const index = varint();
    // Client id and holder.
    at += 16;
    const owner = varint();
    at += owner;
    const open = -varint() + varint() - 1;
    for (let j = 0; j < open; j++) varint();
    sessions.push(table.get(index)!);
  }
  assertEquals(at, bytes.length);
  return { sessions };
}

function state<L>(table: SessionTable<L>): unknown {
  return peek(table).sessions.map((s) => ({
    index: s.index,
    clientID: s.clientID,
    owner: s.owner,
    responded: s.responded,
    next: s.next,
    slots: s.slots.slice(s.head).map(brief),
  }));
}

function applyTo<L>(
  table: SessionTable<L>,
  session: SessionEntry<L>,
  series: number,
  lag: number,
  digest: number,
  result?: Result,
): Admission {
  const admission = table.admit(session, series, lag, digest);
  if (admission === "apply" && result) {
    table.fill(session, series, table.slot!, result);
  }
  return admission;
}

Deno.test("H3 SessionTable agrees with its model on random proposals", () => {
  const { below, chance, pick } = seeded();
  for (let round = 0; round < 30; round++) {
    let table = new SessionTable<never>({ track: true });
    const model = new Model();
    // Results near the bound are costly to compare, so few rounds have them.
    const large = round % 10 === 0;
    model.max = 1 + below(6);
    table.begin(model.max);
    let index = 1;
    const rows = new Map<number, Uint8Array>();
    const seen: number[] = [];
    for (let step = 0; step < (large ? 60 : 400); step++) {
      index += 1 + below(3);
      const what = below(20);
      if (what === 0 || model.sessions.length === 0) {
        const clientID = BigInt(below(5)) << 50n;
        const owner = new Uint8Array(below(3)).fill(below(2));
        table.register(index, clientID, owner);
        model.register(index, clientID, owner.slice());
        seen.push(index);
      } else if (what === 1) {
        const gone = pick(seen);
        const session = table.get(gone);
        assertEquals(session !== undefined, model.get(gone) !== undefined);
        if (session) table.remove(session);
        model.remove(gone);
      } else {
        // Proposals of one batch: admitted first, filled together.
        const filled: (() => void)[] = [];
        for (let i = below(6); i >= 0; i--) {
          const at = pick(seen);
          const session = table.get(at);
          assertEquals(session !== undefined, model.get(at) !== undefined);
          if (session === undefined) continue;
          // Mostly the next series, else a random valid one.
          const next = chance(0.6) ? session.next : 1 + below(session.next + 3);
          const open = Math.max(0, next - session.responded - 1);
          const lag = Math.min(next - 1, chance(0.7) ? open : below(next));
          const cmd = chance(0.1)
            ? SKIPPED
            : chance(0.9)
            ? next * 17
            : below(9);
          const admission = table.admit(session, next, lag, cmd);
          assertEquals(
            admission,
            model.admit(at, next, lag, cmd),
            `step ${step}: series ${next}, lag ${lag}`,
          );
          if (admission !== "apply" || cmd === SKIPPED) {
            if (admission === "duplicate") {
              const known = model.get(at)!.series[next - 1]!;
              assertEquals(brief(table.slot!), brief(known));
            }
            continue;
          }
          const slot = table.slot!;
          const result: Result = { value: BigInt(index * 10 + i) };
          if (chance(0.5)) {
            result.data = new Uint8Array(
              large && chance(0.2)
                ? below(SESSION_RESULT_BYTES_MAX + 9)
                : below(20),
            ).fill(1 + below(255));
          }
          filled.push(() => {
            table.fill(session, next, slot, result);
            model.fill(at, next, {
              ...result,
              ...(result.data ? { data: result.data.slice() } : {}),
            });
            // The table has a copy of its own.
            result.data?.fill(0);
          });
        }
        for (const fill of filled) fill();
      }
      assertEquals(state(table), model.state(), `step ${step}`);
      assertEquals(table.size, model.sessions.length);

      if (chance(0.3)) {
        // The rows describe the table at every step.
        table.takeChanges(index, (key, value) => {
          if (value === undefined) rows.delete(key);
          else rows.set(key, value);
        });
        const restored = new SessionTable<never>({ track: true });
        restored.restore([...rows].sort(() => below(3) - 1));
        assertSame(restored, table);
        if (chance(0.2)) table = restored;
      } else if (chance(0.1)) {
        const decoded = new SessionTable<never>({ track: true });
        decoded.decode(table.encode(true));
        assertSame(decoded, table);
        // Another store: all its rows.
        const fresh = new Map<number, Uint8Array>();
        decoded.takeChanges(index, (key, value) => fresh.set(key, value!));
        const restored = new SessionTable<never>();
        restored.restore(fresh);
        assertSame(restored, table);
      }
    }
  }
});

Deno.test("H4 LRU order and evictions follow from the log", () => {
  const table = new SessionTable<never>();
  table.begin(3);
  for (const index of [10, 20, 30]) table.register(index, BigInt(index), none);
  assertEquals(list(table).map(({ index }) => index), [10, 20, 30]);
  // Any record that names a session is a use, also one that is a copy or a gap.
  table.admit(table.get(10)!, 1, 0, 5);
  table.admit(table.get(20)!, 9, 0, 5);
  assertEquals(list(table).map(({ index }) => index), [30, 10, 20]);
  table.admit(table.get(10)!, 1, 0, 5);
  assertEquals(list(table).map(({ index }) => index), [30, 20, 10]);
  table.admit(table.get(10)!, 1, 0, 6);
  // A lookup is not a use.
  table.get(30);
  table.register(40, 40n, none);
  assertEquals(list(table).map(({ index }) => index), [20, 10, 40]);
  assertStrictEquals(table.get(30), undefined);
  table.register(50, 50n, none);
  assertEquals(list(table).map(({ index }) => index), [10, 40, 50]);
  table.remove(table.get(40)!);
  assertEquals(list(table).map(({ index }) => index), [10, 50]);
  table.register(60, 60n, none);
  assertEquals(list(table).map(({ index }) => index), [10, 50, 60]);
  assertEquals([table.size, table.max], [3, 3]);
});

Deno.test("H14 a client finds its session even if another client registered the same id since", () => {
  const table = new SessionTable<never>();
  const [own, other] = [new Uint8Array([1]), new Uint8Array([2])];
  const session = table.register(5, 7n, own);
  assertNotEquals(table.register(6, 7n, other), session);
  assertStrictEquals(table.register(7, 7n, own), session);
  table.remove(session);
  assertEquals(table.register(8, 7n, own).index, 8);
  assertEquals(table.register(9, 7n, other).index, 6);
});

Deno.test("H4 one owner cannot evict the sessions of all others", () => {
  let table = new SessionTable<never>();
  table.begin(40);
  const owners = ["anne", "bert", "carl"].map((name) =>
    new TextEncoder().encode(name)
  );
  let index = 0;
  const open = (owner: Uint8Array): void =>
    void table.register(++index, BigInt(index), owner);
  const count = (owner: Uint8Array): number =>
    list(table).filter((one) => `${one.owner}` === `${owner}`).length;
  const [anne, bert, carl] = owners as [Uint8Array, Uint8Array, Uint8Array];
  open(anne);
  for (let i = 0; i < 1000; i++) open(bert);
  assertEquals([count(anne), count(bert)], [1, 39]);
  // Room for a new client is made at the cost of one that has more than a quarter.
  for (let i = 0; i < 10; i++) open(carl);
  assertEquals([count(anne), count(bert), count(carl)], [1, 29, 10]);
  // Its least recently used session is evicted, in a restored table too.
  const restored = new SessionTable<never>();
  restored.decode(table.encode(true));
  const [, used, unused] = list(table);
  index++;
  for (const one of [table, restored]) {
    one.touch(one.get(used!.index)!);
    one.register(index, 5n, carl);
    assertEquals(one.get(unused!.index), undefined);
    assert(one.get(used!.index));
  }
  assertEquals(table.encode(true), restored.encode(true));
  table = restored;
  for (let i = 0; i < 1000; i++) open(carl);
  assertEquals(count(anne), 1);
  assert(count(bert) >= 10);
});

Deno.test("H4 a table of one session", () => {
  const table = new SessionTable<never>({ track: true });
  table.begin(1);
  table.register(1, 1n, none);
  table.register(2, 2n, none);
  assertEquals([table.get(1), table.get(2)?.clientID], [undefined, 2n]);
  const rows: [number, boolean][] = [];
  table.takeChanges(2, (index, value) => rows.push([index, !!value]));
  assertEquals(rows.sort(([a], [b]) => a - b), [[0, true], [1, false], [
    2,
    true,
  ]]);
  table.remove(table.get(2)!);
  assertEquals(table.size, 0);
  assertEquals(list(table), []);
});

Deno.test("H14 of a command and its skip, the first in the log counts", () => {
  const table = new SessionTable<never>();
  table.begin();
  const session = table.register(1, 0n, none);
  const result = { value: 5n };
  assertEquals(applyTo(table, session, 1, 0, 11, result), "apply");
  assertEquals(table.admit(session, 1, 0, SKIPPED), "duplicate");
  assertEquals(table.slot, { digest: 11, result });
  assertEquals(table.admit(session, 2, 1, SKIPPED), "apply");
  assertEquals(table.admit(session, 2, 1, 22), "duplicate");
  assertEquals(table.slot, { digest: SKIPPED, result: undefined });
  assertEquals(table.admit(session, 2, 1, SKIPPED), "duplicate");
  assertEquals(table.admit(session, 3, 2, 33), "apply");
  assertEquals(table.admit(session, 3, 2, 34), "conflict");
  const copy = new SessionTable<never>();
  copy.decode(table.encode(true));
  assertEquals(copy.admit(copy.get(1)!, 2, 1, 22), "duplicate");
  assertEquals(copy.slot!.digest, SKIPPED);
});

Deno.test("H3 an acknowledged series is dropped and never applied again", () => {
  const table = new SessionTable<never>();
  table.begin();
  const session = table.register(1, 0n, none);
  for (let series = 1; series <= 5; series++) {
    applyTo(table, session, series, series - 1, series, { value: 1n });
  }
  assertEquals([session.responded, session.next], [0, 6]);
  // The sixth says that all but the fifth were answered.
  applyTo(table, session, 6, 1, 6, { value: 1n });
  assertEquals([session.responded, session.next], [4, 7]);
  for (let series = 1; series <= 4; series++) {
    assertEquals(table.admit(session, series, 0, series), "acknowledged");
    assertEquals(table.admit(session, series, 0, 99), "acknowledged");
  }
  assertEquals(table.admit(session, 5, 4, 5), "duplicate");
  // A late duplicate acknowledges nothing new and revokes nothing.
  assertEquals(session.responded, 4);
  // One from far ahead acknowledges what there is, but is not applied itself.
  assertEquals(table.admit(session, 100, 0, 1), "gap");
  assertEquals([session.responded, session.next], [6, 7]);
  assertEquals(table.admit(session, 7, 0, 7), "apply");
});

Deno.test("H3 the window bounds the unacknowledged series of a client", () => {
  const table = new SessionTable<never>();
  table.begin();
  const session = table.register(1, 0n, none);
  for (let series = 1; series <= SESSION_WINDOW_MAX; series++) {
    assertEquals(table.admit(session, series, series - 1, series), "apply");
  }
  const over = SESSION_WINDOW_MAX + 1;
  assertEquals(table.admit(session, over, over - 1, over), "gap");
  assertEquals(table.admit(session, 1, 0, 1), "duplicate");
  const copy = new SessionTable<never>();
  copy.decode(table.encode(true));
  assertEquals(copy.encode(true), table.encode(true));
  // Once one is acknowledged there is room for one.
  assertEquals(table.admit(session, over, over - 2, over), "apply");
  assertEquals(table.admit(session, over + 1, over, over), "gap");
  assertEquals(session.responded, 1);
  // A long life does not grow the slots.
  for (let series = over + 1; series < 5 * over; series++) {
    assertEquals(table.admit(session, series, 3, series), "apply");
    assertEquals(table.admit(session, series - 3, 3, series - 3), "duplicate");
  }
  assert(session.slots.length < SESSION_WINDOW_MAX);
});

Deno.test("H6 results beyond the data limit are dropped, oldest first", () => {
  const table = new SessionTable<never>();
  table.begin();
  const session = table.register(1, 0n, none);
  const slots: Slot[] = [];
  const give = (series: number, bytes: number | undefined): void => {
    assertEquals(
      applyTo(table, session, series, series - 1, series, {
        value: BigInt(series),
        ...(bytes === undefined ? {} : { data: new Uint8Array(bytes) }),
      }),
      "apply",
    );
    slots.push(table.slot!);
  };
  const half = SESSION_RESULT_BYTES_MAX / 2;
  give(1, undefined);
  give(2, half);
  give(3, 0);
  give(4, half);
  assertEquals(slots.map(({ result }) => result?.value), [1n, 2n, 3n, 4n]);
  assertEquals(session.dataBytes, SESSION_RESULT_BYTES_MAX);
  give(5, 1);
  assertEquals(slots.map(({ result }) => result?.value), [
    1n,
    undefined,
    3n,
    4n,
    5n,
  ]);
  assertEquals(session.dataBytes, half + 1);
  assertEquals(table.admit(session, 2, 1, 2), "duplicate");
  assertEquals(table.slot!.result, undefined);
  assertNotEquals(table.slot!.digest, SKIPPED);
  give(6, SESSION_RESULT_BYTES_MAX + 1);
  assertEquals(session.dataBytes, 0);
  assertEquals(slots.map(({ result }) => result?.value), [
    1n,
    undefined,
    undefined,
    undefined,
    undefined,
    undefined,
  ]);
  const copy = new SessionTable<never>();
  copy.decode(table.encode(true));
  assertEquals(copy.get(1)!.slots, slots);
});

Deno.test("H3 a result acknowledged before it is filled is not stored", () => {
  const table = new SessionTable<never>();
  table.begin();
  const session = table.register(1, 0n, none);
  const result = { value: 1n, data: new Uint8Array([5]) };
  table.admit(session, 1, 0, 1);
  const slot = table.slot!;
  table.admit(session, 2, 0, 2);
  table.fill(session, 1, slot, result);
  assertEquals([session.responded, session.dataBytes], [1, 0]);
  // A copy between the two still finds it.
  assertEquals(slot.result, result);
});

Deno.test("R11 the table retains none of its arguments", () => {
  const table = new SessionTable<never>();
  table.begin();
  const owner = new Uint8Array([1, 2]);
  const session = table.register(1, 0n, owner);
  const data = new Uint8Array([3, 4]);
  applyTo(table, session, 1, 0, 1, { value: 1n, data });
  const bytes = table.encode(true);
  const copy = new SessionTable<never>();
  copy.decode(bytes);
  for (const given of [owner, data, bytes]) given.fill(0);
  for (const one of [session, copy.get(1)!]) {
    assertEquals(one.owner, new Uint8Array([1, 2]));
    assertEquals(one.slots[0]!.result!.data, new Uint8Array([3, 4]));
  }
});

Deno.test("H4 the hash excludes results, and nothing else", () => {
  const make = (value: bigint, part: {
    max?: number;
    clientID?: bigint;
    owner?: Uint8Array;
    digest?: number;
    last?: number;
    lag?: number;
  } = {}): SessionTable<never> => {
    const table = new SessionTable<never>();
    table.begin(part.max ?? 10);
    table.register(5, 0n, none);
    const session = table.register(
      9,
      part.clientID ?? 1n,
      part.owner ?? new Uint8Array([1]),
    );
    applyTo(table, session, 1, 0, part.digest ?? 7, { value });
    applyTo(table, session, 2, 1, 8, { value, data: new Uint8Array([1]) });
    applyTo(table, session, 3, part.lag ?? 2, 9);
    table.admit(table.get(part.last ?? 5)!, 1, 0, 1);
    return table;
  };
  const [one, two] = [make(1n), make(2n)];
  assertEquals(one.encode(false), two.encode(false));
  assertNotEquals(one.encode(true), two.encode(true));
  for (
    const other of [
      make(1n, { max: 11 }),
      make(1n, { clientID: 2n }),
      make(1n, { owner: none }),
      make(1n, { digest: 6 }),
      make(1n, { last: 9 }),
      make(1n, { lag: 1 }),
    ]
  ) assertNotEquals(other.encode(false), one.encode(false));
  // Whether the limit was set or is the default is the same to those who follow.
  const [set, unset] = [
    new SessionTable<never>(),
    new SessionTable<never>(),
  ];
  set.begin(SESSIONS_DEFAULT);
  unset.begin();
  assertEquals(set.encode(false), unset.encode(false));
  assertNotEquals(
    new SessionTable<never>().encode(false),
    unset.encode(false),
  );
});

Deno.test("H4 decode() restores whether the cluster has begun", () => {
  for (const begun of [false, true]) {
    const table = new SessionTable<never>();
    if (begun) table.begin(77);
    const copy = new SessionTable<never>();
    copy.begin(5);
    copy.register(3, 0n, none);
    copy.decode(table.encode(true));
    assertEquals([copy.begun, copy.size], [begun, 0]);
    assertEquals(copy.max, begun ? 77 : SESSIONS_DEFAULT);
  }
});

Deno.test("H11 decode() rejects malformed bytes with a RangeError", () => {
  const { below, chance } = seeded();
  const table = new SessionTable<never>();
  table.begin(4);
  for (const index of [5, 300, 70_000]) {
    const session = table.register(index, BigInt(index), new Uint8Array(3));
    applyTo(table, session, 1, 0, 0x1234567, { value: 9n });
    applyTo(table, session, 2, 1, SKIPPED);
    applyTo(table, session, 3, 2, 3, {
      value: 1n << 63n,
      data: new Uint8Array([1, 2, 3]),
    });
  }
  const good = table.encode(true);
  for (let length = 0; length < good.length; length++) {
    assertThrows(
      () => new SessionTable<never>().decode(good.subarray(0, length)),
      RangeError,
    );
  }
  const decode = (bytes: Uint8Array): void => {
    const copy = new SessionTable<never>();
    try {
      copy.decode(bytes);
    } catch (error) {
      assert(error instanceof RangeError, `${error}`);
      return;
    }
    // A table that was accepted must work.
    const again = new SessionTable<never>();
    again.decode(copy.encode(true));
    assertEquals(again.encode(true), copy.encode(true));
    assert(copy.size <= copy.max);
    assertEquals(new Set(peek(copy).sessions).size, copy.size);
    for (const session of peek(copy).sessions) {
      if (session.next === Number.MAX_SAFE_INTEGER) continue;
      copy.admit(session, session.next, 0, 1);
      copy.remove(session);
    }
    assertEquals(copy.size, 0);
  };
  for (let at = 0; at < good.length * 8; at++) {
    const bad = good.slice();
    bad[at >> 3]! ^= 1 << (at & 7);
    decode(bad);
  }
  for (let i = 0; i < 3000; i++) {
    const bytes = new Uint8Array(below(80));
    for (let j = 0; j < bytes.length; j++) {
      bytes[j] = chance(0.6) ? below(5) : below(256);
    }
    decode(bytes);
  }
  const twice = new ByteWriter().varint(4).varint(2);
  for (let i = 0; i < 2; i++) {
    twice.varint(5).u64(1n).u64(1n).varint(0).varint(0).varint(1);
  }
  assertThrows(
    () => new SessionTable<never>().decode(twice.finish()),
    RangeError,
    "twice",
  );
  assertThrows(
    () => {
      const bytes = new ByteWriter().varint(SESSIONS_MAX + 1).varint(0);
      new SessionTable<never>().decode(bytes.finish());
    },
    RangeError,
  );
});

Deno.test("H14 digest() distinguishes contents, and depends on nothing else", () => {
  const { below } = seeded();
  const seen = new Map<number, string>();
  for (let length = 0; length < 40; length++) {
    for (let i = 0; i < 250; i++) {
      const bytes = Uint8Array.from({ length }, () => below(i < 125 ? 2 : 256));
      const found = digest(bytes, 0, length);
      assert(Number.isSafeInteger(found + 1) && found >= 0 && found < 2 ** 52);
      const around = new Uint8Array(length + 7).fill(i);
      around.set(bytes, 3);
      assertEquals(digest(around, 3, 3 + length), found);
      const text = `${bytes}`;
      assertEquals(seen.get(found) ?? text, text, "Two contents, one digest");
      seen.set(found, text);
    }
  }
  // Small changes, and an order that differs.
  const base = new Uint8Array(64).fill(7);
  const digests = new Set([digest(base, 0, 64)]);
  for (let bit = 0; bit < 512; bit++) {
    const bytes = base.slice();
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    digests.add(digest(bytes, 0, 64));
  }
  assertEquals(digests.size, 513);
  // Must never change: replicas of different versions compare them.
  assertEquals(
    digest(new TextEncoder().encode("sampan"), 0, 6),
    4035584687623640,
  );
});

Deno.test("H4 result data of all sessions are bounded: least recently used sessions lose theirs first", () => {
  const table = new SessionTable<never>();
  table.begin();
  const data = new Uint8Array(SESSION_RESULT_BYTES_MAX);
  const full = SESSIONS_RESULT_BYTES_MAX / SESSION_RESULT_BYTES_MAX;
  const give = (to: SessionTable<never>, index: number, data: Uint8Array) => {
    const { next } = to.get(index)!;
    const session = to.get(index)!;
    const result = { value: 1n, data };
    assertEquals(applyTo(to, session, next, next - 1, 1, result), "apply");
  };
  /** The sessions that have lost their first result. */
  const lost = (of: SessionTable<never>): number[] =>
    Array.from({ length: of.size }, (_, i) => i + 1).filter((index) => {
      const session = of.get(index);
      return session?.slots[session.head]?.result === undefined;
    });
  for (let index = 1; index <= full; index++) {
    table.register(index, BigInt(index), none);
    give(table, index, data);
  }
  assertEquals(lost(table), []);
  table.touch(table.get(1)!);
  table.register(full + 1, 101n, none);
  // What a snapshot brings counts as much.
  const copy = new SessionTable<never>();
  copy.decode(table.encode(true));
  for (const one of [table, copy]) {
    give(one, full + 1, new Uint8Array(1));
    assertEquals(lost(one), [2]);
    assertEquals(one.get(2)!.dataBytes, 0);
    // What is lost, acknowledged or closed makes room.
    give(one, full + 1, data.subarray(2));
    assertEquals(lost(one), [2]);
    assertEquals(one.admit(one.get(3)!, 2, 0, 1), "apply");
    one.remove(one.get(4)!);
    give(one, 2, data);
    give(one, 3, data.subarray(1));
    one.register(full + 2, 102n, none);
    give(one, full + 2, new Uint8Array(2));
    assertEquals(one.get(5)!.dataBytes, data.length);
    give(one, full + 2, new Uint8Array(1));
    assertEquals(one.get(5)!.dataBytes, 0);
  }
  assertSame(table, copy);
});

Deno.test("H4 a result of a session that is removed before it is filled does not count as stored", () => {
  const table = new SessionTable<never>();
  const kept = table.register(1, 1n, none);
  assertEquals(table.admit(kept, 1, 0, 1), "apply");
  const { slot } = table;
  table.fill(kept, 1, slot!, { value: 1n, data: new Uint8Array(1) });
  const data = new Uint8Array(SESSION_RESULT_BYTES_MAX);
  const full = SESSIONS_RESULT_BYTES_MAX / SESSION_RESULT_BYTES_MAX;
  for (let index = 2; index <= full + 2; index++) {
    // As in a batch that applies a command and then closes its session.
    const closed = table.register(index, BigInt(index), none);
    assertEquals(table.admit(closed, 1, 0, 1), "apply");
    const { slot } = table;
    table.remove(closed);
    table.fill(closed, 1, slot!, { value: 1n, data });
    assertEquals(slot!.result?.data?.length, data.length);
  }
  assertEquals(slot!.result?.data?.length, 1);
});

Deno.test("H3 H4 the table copies a result, also one whose data are a Node Buffer", () => {
  const table = new SessionTable<never>();
  table.begin();
  const session = table.register(1, 0n, none);
  // Its `slice()` gives a view of the same bytes.
  const data = Buffer.from("first") as Uint8Array;
  applyTo(table, session, 1, 0, 11, { value: 1n, data });
  data.fill(0);
  assertEquals(table.admit(session, 1, 0, 11), "duplicate");
  assertEquals(
    table.slot!.result!.data,
    new TextEncoder().encode("first"),
  );
});
