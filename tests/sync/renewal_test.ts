import { assert, assertEquals } from "@std/assert";
import { kv, KVStateMachine } from "../../mod.ts";
import type { RemoteState } from "../../src/sync/client/mod.ts";
import type { Principal } from "../../src/sync/server/options.ts";
import { checked } from "../support/environment.ts";
import { Pair } from "./pair.ts";
import { packRecords, proposal, world } from "./server_support.ts";

const VALID_MS = 10_000;

Deno.test(
  "case A23: a client whose tokens expire renews them on the open connection, and stays live [U34, H18]",
  checked(async () => {
    let given = 0;
    let failures = 0;
    const asked: string[] = [];
    // A token is valid for ten seconds from its issue, by the server's clock.
    const pair: Pair = new Pair(1, {
      authenticate: ({ headers }): Principal | undefined => {
        const token = headers.get("authorization")!.slice("Bearer ".length);
        asked.push(token);
        if (failures > 0) {
          failures--;
          throw new Error("LDAP directory is down");
        }
        const validMs = Number(token) + VALID_MS - pair.env.now();
        return validMs > 0 ? { id: "ann", validMs } : undefined;
      },
    });
    await pair.start();
    const logDB = pair.client({
      token: async () => {
        given++;
        await Promise.resolve();
        return String(pair.env.now());
      },
    });
    const page = pair.host(logDB);
    const replica = await pair.env.until(
      page.startCluster(() => new KVStateMachine(), {
        clusterID: 1n,
        nodeID: 2n,
      }),
      10,
    );
    await pair.env.until(replica.propose(kv.put("boat", "sampan")), 10);
    const states: RemoteState[] = [];
    logDB.watch(({ state }) => states.push(state));
    for (let round = 1; round <= 6; round++) {
      // A hook that fails for a while causes no gap either.
      failures = round === 3 ? 2 : 0;
      await pair.env.advance(VALID_MS);
      assertEquals(failures, 0);
      await pair.env.until(replica.propose(kv.put("boat", `${round}`)), 10);
    }
    assertEquals(states.filter((state) => state !== "live"), []);
    assert(given >= 6, `${given} tokens`);
    assert(asked.length < 40, `asked ${asked.length} times`);
    await pair.closeAndCheck();
  }),
);

/** Server that accepts one principal by every token but "bad", and can revoke it. */
function revocable(): {
  authenticate: (request: Request) => Principal | undefined;
  revoke: () => void;
} {
  let valid = new AbortController();
  return {
    authenticate: ({ headers }): Principal | undefined => {
      const token = headers.get("authorization")?.slice("Bearer ".length);
      if (token === "bad") return undefined;
      return { id: token === "bob" ? "bob" : "ann", signal: valid.signal };
    },
    revoke: (): void => {
      const { abort } = { abort: valid };
      valid = new AbortController();
      abort.abort();
    },
  };
}

Deno.test(
  "case A23: a revoked principal is sent nothing and appends nothing until its client sends a valid token, and then loses nothing [U34, H11]",
  checked(async () => {
    const { authenticate, revoke } = revocable();
    const w = await world({ authenticate });
    const client = w.connect();
    await client.hello({ token: "first", renews: true });
    await client.open();
    client.read(1, 0);
    await client.next("reading");
    revoke();
    const { withinMs } = await client.next("renew");
    assertEquals(withinMs, 5_000);
    client.append(2, packRecords(proposal(kv.put("a", "b"))));
    client.send({ type: "readIndex", channel: 1, stream: 3 });
    await w.env.until(w.replica.propose(kv.put("c", "d")), 10);
    await w.env.advance(1_000);
    assertEquals(client.messages, []);
    assertEquals(await w.replica.read(kv.count()), 1);
    client.send({ type: "token", token: "second" });
    assertEquals((await client.next("appended", 2)).refused, []);
    await client.next("index", 3);
    await client.entriesUpTo(3);
    await w.env.advance(60_000);
    assertEquals(client.ending, undefined);
    // A second renewal works, too.
    revoke();
    await client.next("renew");
    client.send({ type: "token", token: "third" });
    await w.env.advance(60_000);
    assertEquals(client.ending, undefined);
    await w.stop();
  }),
);

Deno.test(
  "case A23: after a renewal, the hooks are called with the principal of the new token [U34, H18]",
  checked(async () => {
    interface Told extends Principal {
      readonly role: string;
    }
    const asked: string[] = [];
    const w = await world({
      authenticate: ({ headers }): Told => ({
        id: "ann",
        validMs: 10_000,
        role: headers.get("authorization")!.slice("Bearer ".length),
      }),
      authorize: (principal, _cluster, action) => {
        asked.push(`${action} ${(principal as Told).role}`);
        return true;
      },
      validate: (principal) => {
        asked.push(`command ${(principal as Told).role}`);
        return undefined;
      },
    });
    const client = w.connect();
    await client.hello({ token: "editor", renews: true });
    await client.open();
    await w.env.advance(5_000);
    await client.next("renew");
    client.send({ type: "token", token: "owner" });
    await w.env.advance(100);
    asked.length = 0;
    client.append(1, packRecords(proposal(kv.put("a", "b"))));
    await client.next("appended");
    client.read(2, 0);
    await client.next("reading");
    assertEquals(asked, ["write owner", "command owner", "read owner"]);
    await w.stop();
  }),
);

Deno.test(
  "case A23: the connection of a revoked or expired principal ends without a valid token of the same principal in time [U34]",
  checked(async () => {
    const { authenticate, revoke } = revocable();
    const w = await world({ authenticate });
    const ends = async (
      renews: boolean,
      token: string | undefined,
    ): Promise<number> => {
      const client = w.connect();
      client.stepMs = 10;
      await client.hello({ token: "first", renews });
      await client.open();
      const from = w.env.now();
      revoke();
      if (renews) await client.next("renew");
      if (token !== undefined) client.send({ type: "token", token });
      assertEquals((await client.end()).code, 4401);
      return w.env.now() - from;
    };
    assert(await ends(false, undefined) < 100);
    assert(await ends(true, "bad") < 100);
    assert(await ends(true, "bob") < 100);
    const silent = await ends(true, undefined);
    assert(silent >= 4_900 && silent < 5_200, `${silent} ms`);
    await w.stop();

    const other = await world({
      authenticate: ({ headers }) =>
        headers.get("authorization") === "Bearer bad"
          ? undefined
          : { id: "ann", validMs: 10_000 },
    });
    for (const renews of [true, false]) {
      const client = other.connect();
      client.stepMs = 10;
      await client.hello({ token: "first", renews });
      const from = other.env.now();
      if (renews) {
        assertEquals((await client.next("renew")).withinMs, 5_000);
        // A rejected token has no effect while the first one is valid.
        client.send({ type: "token", token: "bad" });
        await other.env.advance(2_000);
        assertEquals(client.ending, undefined);
      }
      assertEquals((await client.end()).code, 4401);
      const took = other.env.now() - from;
      assert(took >= 9_900 && took < 10_200, `${took} ms`);
    }
    await other.stop();
  }),
);

Deno.test(
  "case A23: a principal whose validMs is not a number of milliseconds is a fault of the hook [H21]",
  checked(async () => {
    for (const validMs of [NaN, 0, -1, "60000", new Date()]) {
      const w = await world({
        authenticate: () => ({ id: "ann", validMs: validMs as number }),
      });
      const client = w.connect();
      client.hello().catch(() => {});
      assertEquals((await client.end()).code, 1001);
      assertEquals(w.core.telemetry.counts.hookFailures, 1);
      await w.stop();
    }
  }),
);

/** Promises that a test settles, one for each call. */
function calls<T>(): {
  next: () => Promise<T>;
  count: () => number;
  settle: (value: T) => void;
} {
  const waiting: ((value: T) => void)[] = [];
  return {
    next: () => new Promise((resolve) => void waiting.push(resolve)),
    count: () => waiting.length,
    settle: (value) => {
      for (const resolve of waiting.splice(0)) resolve(value);
    },
  };
}

Deno.test(
  "case A23: an append that awaits validate while its principal is revoked is validated again with the next token, and not appended without one [U34, H11]",
  checked(async () => {
    const { authenticate, revoke } = revocable();
    const verdicts = calls<string | undefined>();
    const w = await world({ authenticate, validate: verdicts.next });
    const added = async (): Promise<unknown> =>
      await w.replica.read(kv.count());
    for (const comesBack of [true, false]) {
      const before = await added();
      const client = w.connect();
      client.stepMs = 10;
      await client.hello({ token: "first", renews: true });
      await client.open();
      client.append(1, packRecords(proposal(kv.put(`${comesBack}`, "b"))));
      await w.env.advance(100);
      revoke();
      await client.next("renew");
      verdicts.settle(undefined);
      await w.env.advance(1_000);
      assertEquals(client.messages, []);
      assertEquals(await added(), before);
      if (comesBack) {
        client.send({ type: "token", token: "second" });
        await client.until("validate", () => verdicts.count() > 0);
        verdicts.settle(undefined);
        assertEquals((await client.next("appended")).refused, []);
        assertEquals(await added(), 1);
      } else {
        assertEquals((await client.end()).code, 4401);
        verdicts.settle(undefined);
        await w.env.advance(1_000);
        assertEquals(await added(), before);
      }
    }
    await w.stop();
  }),
);

Deno.test(
  "case A23: an append that awaits validate is not appended once its principal has expired [U34, H11]",
  checked(async () => {
    const verdicts = calls<string | undefined>();
    const w = await world({
      authenticate: () => ({ id: "ann", validMs: 1_000 }),
      validate: verdicts.next,
    });
    const client = await w.client();
    client.append(1, packRecords(proposal(kv.put("a", "b"))));
    assertEquals((await client.end()).code, 4401);
    verdicts.settle(undefined);
    await w.env.advance(1_000);
    assertEquals(await w.replica.read(kv.count()), 0);
    await w.stop();
  }),
);

Deno.test(
  "case A23: requests from before a revocation are answered after the next token [U34, H11]",
  checked(async () => {
    const { authenticate, revoke } = revocable();
    const permissions = calls<boolean>();
    let isSlow = false;
    const w = await world({
      authenticate,
      authorize: () => isSlow ? permissions.next() : true,
    });
    const client = w.connect();
    await client.hello({ token: "first", renews: true });
    await client.open();
    await w.env.advance(3_000);
    isSlow = true;
    client.send({ type: "readIndex", channel: 1, stream: 1 });
    client.send({ type: "open", channel: 2, clusterID: 1n, nodeID: 9n });
    await w.env.advance(100);
    revoke();
    await client.next("renew");
    permissions.settle(true);
    await w.env.advance(100);
    assertEquals(client.messages, []);
    client.send({ type: "token", token: "second" });
    await client.next("index", 1);
    assertEquals((await client.next("opened")).channel, 2);
    await w.stop();
  }),
);

Deno.test(
  "case A23: the newest of several tokens counts, and one that is revoked during its authentication does not [U34]",
  checked(async () => {
    let valid = new AbortController();
    const w = await world({
      authenticate: async ({ headers }) => {
        const token = headers.get("authorization")!.slice("Bearer ".length);
        if (token === "first") return { id: "ann", signal: valid.signal };
        await new Promise<void>((resolve) => w.env.setTimer(resolve, 500));
        if (token === "bad") return undefined;
        if (token === "late") {
          const { signal } = valid;
          // Revoked after the hook has returned, before the result is used.
          queueMicrotask(() => queueMicrotask(() => valid.abort()));
          return { id: "ann", signal };
        }
        return { id: "ann" };
      },
    });
    const client = w.connect();
    await client.hello({ token: "first", renews: true });
    await client.open();
    valid.abort();
    await client.next("renew");
    valid = new AbortController();
    client.send({ type: "token", token: "bad" });
    client.send({ type: "token", token: "late" });
    await w.env.advance(1_200);
    client.send({ type: "readIndex", channel: 1, stream: 1 });
    await w.env.advance(100);
    assertEquals(client.ending, undefined);
    assertEquals(
      client.messages.filter(({ type }) => type !== "renew"),
      [],
    );
    client.send({ type: "token", token: "bad" });
    client.send({ type: "token", token: "good" });
    await client.next("index", 1);
    await w.env.advance(10_000);
    assertEquals(client.ending, undefined);
    await w.stop();
  }),
);
