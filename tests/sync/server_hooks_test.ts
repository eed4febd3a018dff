import { assert, assertEquals, assertMatch } from "@std/assert";
import { kv } from "../../mod.ts";
import type { ServeOptions } from "../../src/sync/mod.ts";
import { never } from "../support/environment.ts";
import { run, type Running } from "./running_server.ts";
import { packRecords, proposal, type RawClient } from "./server_support.ts";

/** Timeout of hooks in these tests, in milliseconds. */
const HOOK_MS = 50;

const LIMITS = { hookMs: HOOK_MS };

/** Result or exception of a hook, by name. */
type Answers = Record<string, () => unknown>;

/** Each result as a value and as a promise. */
function bothWays(answers: Answers): Answers {
  const both: Answers = {};
  for (const [name, answer] of Object.entries(answers)) {
    both[name] = answer;
    both[`promise of ${name}`] = async (): Promise<unknown> => {
      await Promise.resolve();
      return answer();
    };
  }
  return both;
}

/** Thrown values that are hard to describe in a message. */
const THROWS: Answers = {
  "an error": () => {
    throw new Error("LDAP directory is down");
  },
  "undefined thrown": () => throwAny(undefined),
  "an object without text thrown": () => throwAny(Object.create(null)),
  "an error without message thrown": () =>
    throwAny(Object.defineProperty(new Error(), "message", {
      get: () => throwAny("no"),
    })),
};

/** Results that are invalid for every hook. */
const BROKEN: Answers = {
  ...bothWays(THROWS),
  "a promise that never settles": () => never(),
  "a thenable that throws": () => ({ then: () => throwAny(undefined) }),
  "an object whose then throws": () => ({
    get then(): never {
      return throwAny(undefined);
    },
  }),
  "a proxy that throws": () =>
    new Proxy({}, { get: () => throwAny(new Error("no")) }),
};

function throwAny(value: unknown): never {
  throw value;
}

/** Sends hello; close code of the connection, undefined if it was welcomed. */
async function greet(client: RawClient): Promise<number | undefined> {
  await client.hello().catch(() => {});
  return client.ending?.code;
}

async function snapshot(r: Running, method = "GET"): Promise<number> {
  const response = await fetch(`${r.server.httpURL}clusters/1/snapshot`, {
    method,
    ...(method === "PUT" ? { body: "no snapshot" } : {}),
  });
  await response.body?.cancel();
  return response.status;
}

/** Runs `check` with each result of a hook on one server, which must work afterwards. */
async function withEach(
  answers: Answers,
  options: (answer: () => unknown) => ServeOptions,
  check: (r: Running, name: string) => Promise<void>,
): Promise<void> {
  let answer: () => unknown = () => undefined;
  const r = await run({ limits: LIMITS, ...options(() => answer()) });
  for (const [name, next] of Object.entries(answers)) {
    answer = next;
    const failures = r.server.counts.hookFailures;
    const records = r.log.length;
    await check(r, name);
    assert(r.server.counts.hookFailures > failures, `${name} is not counted`);
    assert(
      r.log.slice(records).some(({ event, level }) =>
        event.endsWith(" failed") && level === "error"
      ),
      `${name} is not logged`,
    );
  }
  const health = await fetch(`${r.server.httpURL}health`);
  assertEquals((await health.json()).status, "ok");
  await r.stop();
}

const WRONG_PRINCIPALS: Answers = {
  true: () => true,
  "a text": () => "bob",
  "an empty text": () => "",
  "a number": () => 42,
  zero: () => 0,
  "a bigint": () => 1n,
  "a symbol": () => Symbol("bob"),
  "a function": () => () => ({ id: "bob" }),
  "an empty object": () => ({}),
  "an array": () => ["bob"],
  "no sub in the claims": () => ({ id: undefined }),
  "id null": () => ({ id: null }),
  "an id that is a number": () => ({ id: 42 }),
  "an id that is an object": () => ({ id: { toString: () => "bob" } }),
  "an empty id": () => ({ id: "" }),
  "an id with a lone surrogate": () => ({ id: "bob\ud800" }),
  "an id without end": () => ({ id: "b".repeat(1025) }),
  "an id that throws": () => ({
    get id(): never {
      return throwAny(undefined);
    },
  }),
  "a signal that is not an AbortSignal": () => ({ id: "bob", signal: true }),
  "a controller for a signal": () => ({
    id: "bob",
    signal: new AbortController(),
  }),
};

Deno.test("case A2: serve() survives any result of authenticate, rejects that request and logs the fault [H21, U34]", async () => {
  await withEach(
    { ...bothWays(WRONG_PRINCIPALS), ...BROKEN },
    (answer) => ({
      authenticate: answer as NonNullable<ServeOptions["authenticate"]>,
    }),
    async (r, name) => {
      assertEquals(await snapshot(r), 503, name);
      const client = r.connect();
      assertEquals(await greet(client), 1001, name);
      // The client received nothing but the end of the connection.
      assertEquals(client.messages, [], name);
    },
  );
});

Deno.test("case A2: a request that authenticate does not accept is rejected, whether it returns undefined, null or false [U34]", async () => {
  let answer: unknown;
  const r = await run({ authenticate: () => answer as undefined });
  for (answer of [undefined, null, false]) {
    assertEquals(await snapshot(r), 401);
    assertEquals(await greet(r.connect()), 4401);
  }
  assertEquals(r.server.counts.hookFailures, 0);
  // The longest id allowed, and an id that is read once.
  answer = { id: "é".repeat(1024) };
  assertEquals(
    (await r.connect().hello()).principal,
    "é".repeat(1024),
  );
  let reads = 0;
  answer = {
    get id(): string {
      return ++reads === 1
        ? "ann"
        : throwAny(new Error("get id() was called twice"));
    },
  };
  const client = r.connect();
  assertEquals((await client.hello()).principal, "ann");
  await client.open();
  await r.stop();
});

Deno.test("case A2: messages before the welcome open nothing [H21]", async () => {
  const asked = Promise.withResolvers<{ id: string }>();
  const r = await run({ authenticate: () => asked.promise });
  const client = r.connect();
  client.hello().catch(() => {});
  await client.until("opened", () => client.isOpen);
  client.send({ type: "open", channel: 1, clusterID: 1n, nodeID: 9n });
  assertEquals((await client.end()).code, 4400);
  asked.resolve({ id: "ann" });
  assertEquals(client.messages, []);
  await r.stop();
});

Deno.test("case A3: only true from authorize permits; any other result denies and is logged [H21]", async () => {
  await withEach(
    {
      ...bothWays({
        "a reason": () => "no uploads here",
        undefined: () => undefined,
        null: () => null,
        one: () => 1,
        zero: () => 0,
        "an empty text": () => "",
        "an object": () => ({ allowed: false }),
        "a boxed true": () => Object(true),
      }),
      ...BROKEN,
    },
    (answer) => ({ authorize: answer as () => boolean }),
    async (r, name) => {
      assertEquals(await snapshot(r), 503, name);
      assertEquals(await snapshot(r, "PUT"), 503, name);
      const client = r.connect();
      await client.hello();
      client.send({ type: "open", channel: 1, clusterID: 1n, nodeID: 9n });
      assertEquals((await client.next("refused")).code, 1001, name);
      client.transport.close(1000, "");
    },
  );
  const r = await run({
    authorize: (_principal, _id, action) => action === "read",
  });
  assertEquals(await snapshot(r), 200);
  assertEquals(await snapshot(r, "PUT"), 403);
  await r.stop();
});

Deno.test("case A3: a write is neither appended nor refused while authorize or validate fails, and is validated again [H21, U17]", async () => {
  const wrong: Answers = {
    ...bothWays({
      "a reason of authorize, or a yes of validate": () => 1,
      "an object": () => ({}),
    }),
    ...BROKEN,
  };
  for (const hook of ["authorize", "validate"] as const) {
    for (const [name, answer] of Object.entries(wrong)) {
      let isWrong = true;
      const asked = (..._args: unknown[]): unknown => {
        if (hook === "authorize" && _args[2] === "read") return true;
        if (isWrong) return answer();
        return hook === "authorize" ? true : undefined;
      };
      const r = await run({ limits: LIMITS, [hook]: asked });
      const client = r.connect();
      await client.hello();
      await client.open();
      client.append(1, packRecords(proposal(kv.put("a", "b"))));
      assertMatch((await client.next("held")).reason, /cannot validate/, name);
      assertEquals(await r.host.replica(1n)!.read(kv.count()), 0);
      isWrong = false;
      assertEquals((await client.next("appended")).refused, [], name);
      assert(r.server.counts.hookFailures > 0);
      await r.stop();
    }
  }
});

Deno.test("case A2: a log hook that throws or rejects has no effect [H21]", async () => {
  for (
    const answer of Object.values({ ...BROKEN, async: () => Promise.resolve() })
  ) {
    const r = await run({ log: answer as () => void });
    await r.connect().hello();
    assertEquals(await snapshot(r), 200);
    await r.stop();
  }
});

Deno.test("case A2: a fetch hook that throws or returns no Response fails its own request only [H21]", async () => {
  const used = new Response("read");
  await used.text();
  const { "a promise that never settles": _, ...broken } = BROKEN;
  await withEach(
    {
      ...bothWays({
        undefined: () => undefined,
        null: () => null,
        "a text": () => "page",
        "a body that was read": () => used,
      }),
      ...broken,
    },
    (answer) => ({ fetch: answer as () => Response }),
    async (r, name) => {
      const response = await fetch(`${r.server.httpURL}app.html`);
      assertEquals(response.status, 500, name);
      assertEquals(await response.text(), "Server has failed\n", name);
      assertEquals(await snapshot(r), 200, name);
    },
  );
});

Deno.test("case A2: a fetch hook that never settles, or whose body never ends, delays neither other requests nor a shutdown [H21, H10]", async () => {
  const endless = (): Response =>
    new Response(
      new ReadableStream<Uint8Array>({
        start: (controller) => controller.enqueue(new Uint8Array(9)),
      }),
    );
  for (const answer of [() => never() as Promise<Response>, endless]) {
    const r = await run({ fetch: answer, limits: { shutdownMs: 50 } });
    const waiting = fetch(`${r.server.httpURL}app.html`)
      .then((response) => response.arrayBuffer()).catch(() => "cut off");
    assertEquals(await snapshot(r), 200);
    await r.stop();
    assertEquals(await waiting, "cut off");
  }
});

Deno.test("case A2: every hook gets the object that authenticate returned [U34]", async () => {
  const ann = { id: "ann", mayRead: true };
  const seen: unknown[] = [];
  const r = await run({
    authenticate: () => ann,
    authorize: (principal) => {
      seen.push(principal);
      return (principal as typeof ann).mayRead;
    },
    validate: (principal) => void seen.push(principal),
  });
  assertEquals(await snapshot(r), 200);
  const client = r.connect();
  await client.hello();
  await client.open();
  client.read(1, 0);
  client.append(2, packRecords(proposal(kv.put("a", "b"))));
  assertEquals((await client.next("appended")).refused, []);
  client.send({ type: "fetch", channel: 1, stream: 3 });
  await client.next("snapshot");
  assert(seen.length >= 5);
  assert(seen.every((principal) => principal === ann));
  await r.stop();
});
