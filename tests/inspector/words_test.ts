import { assert, assertEquals } from "@std/assert";
import { kv, KVStateMachine, NodeHost, type Replica } from "../../mod.ts";
import type { DeviceReport } from "../../src/inspector/device_model.ts";
import { cardsOf, comparisonFacts } from "../../src/inspector/facts.ts";
import {
  commandText,
  entryText,
  matchesFilter,
} from "../../src/inspector/panels.ts";
import { clusterCard, serverCards } from "../../src/inspector/server_panel.ts";
import type { ServerReport } from "../../src/sync/inspector_report.ts";

/** Values of a card by their labels. */
function valuesOf(
  cards: ReturnType<typeof cardsOf>,
  title: string,
): Record<string, string> {
  const card = cards.find((card) => card.title === title)!;
  return Object.fromEntries(
    card.facts.map(({ label, value }) => [label, value]),
  );
}

Deno.test("U42 the state of a replica is in words: log, outbox, connection with its next try, tabs, storage", async () => {
  await using host = new NodeHost();
  const replica = await host.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: 1n,
  }) as Replica;
  await replica.propose(kv.put("a", "1"));
  const report: DeviceReport = {
    replica,
    status: { state: "running", viewLag: 3 },
    pending: [
      { state: "queued" },
      { state: "refused" },
      { state: "unknown" },
    ] as unknown as DeviceReport["pending"],
    pendingCount: 5,
    sessions: [{ id: 2, owner: "ann", decided: 7, unacknowledged: 2 }],
    snapshots: [],
    hash: { index: 2, hash: 255n },
    agreement: { index: 2, isTrusted: true, agoMs: 90_000 },
    storage: { isPersisted: false, used: 2048, quota: 4096 },
    connection: {
      state: "offline",
      error: new Error("ECONNREFUSED"),
      retryInMs: 2500,
      addresses: [{ url: "ws://a/sync" }],
      clusters: [{
        clusterID: 1n,
        nodeID: 1n,
        state: "waiting",
        received: 2,
        last: 9,
      }],
    },
    tabs: { state: "leading", epoch: 4, reason: undefined },
    others: [{
      id: "a",
      state: "following",
      code: 2,
      sinceMs: 90_000,
      isVisible: false,
    }],
  };
  const cards = cardsOf(report, undefined, false);
  assertEquals(valuesOf(cards, "Log")["Applied"], "#2");
  assertEquals(valuesOf(cards, "Outbox"), {
    "Waiting": "3 edits",
    "Refused": "1 edit",
    "Outcome unknown": "1 edit",
    "Not in the view yet": "3 edits",
  });
  assertEquals(valuesOf(cards, "Connection"), {
    "State": "offline, switched off here",
    "Reason": "ECONNREFUSED",
    "Next try": "in 2.5 s",
    "Received": "#2 of #9",
    "Server": "ws://a/sync",
  });
  assertEquals(valuesOf(cards, "Hash"), {
    "At #2": "00000000000000ff",
    "Equal on the server": "at #2, 1 min ago",
  });
  assertEquals(valuesOf(cards, "Tabs"), {
    "This tab": "leads",
    "Changes of the lead": "4",
    "Other tab 1": "follows the leading tab for 1 min, code 2, hidden",
  });
  assertEquals(valuesOf(cards, "Storage"), {
    "Kept": "while the browser has room",
    "Used by this origin": "2.0 KiB of 4.0 KiB",
  });
  assertEquals(valuesOf(cards, "Sessions")["Results kept"], "2 commands");
  const tabs = { ...report.tabs!, state: "following" } as const;
  const following = cardsOf({ ...report, tabs }, undefined, true);
  assertEquals(valuesOf(following, "Connection"), {
    "State": "through the leading tab",
    "Server": "ws://a/sync",
  });
});

Deno.test("U32 U42 a comparison of hashes says which one differs", () => {
  const words = (trusted: bigint | undefined, replayed: bigint | Error) =>
    comparisonFacts({ index: 5, here: 1n, trusted, replayed })
      .map(({ value, tone }) => [value, tone]);
  assertEquals(words(1n, 1n), [
    ["equal on the server", "good"],
    ["equal after a replay of the log", "good"],
  ]);
  assertEquals(words(2n, new Error("Entry 5 is gone")), [
    ["the server has another state: 0000000000000002", "bad"],
    ["Entry 5 is gone", undefined],
  ]);
  assertEquals(words(undefined, 3n)[1]![1], "bad");
});

Deno.test("U42 entries are in words, decoded or as bytes, and a filter finds all of its words in any part of them", () => {
  const at = new Date(2026, 0, 2, 3, 4, 5).getTime();
  const entry = {
    index: 14,
    kind: "command",
    bytes: 9,
    session: 2,
    series: 3,
    cmd: new Uint8Array([1, 2]),
    call: { name: "tick", by: "ann", at, args: { id: "x", done: true } },
  } as const;
  const { what, more, side } = entryText(entry);
  assertEquals([what, more], ["tick", '{id: "x", done: true}']);
  assert(side.startsWith("by ann · ") && side.endsWith("session #2, no. 3"));
  for (const filter of ["", "TICK", "ann true", "#14", "command session"]) {
    assertEquals(matchesFilter(entry, filter), true, filter);
  }
  assertEquals(matchesFilter(entry, "tick bob"), false);
  const call = { ...entry.call, value: { rank: 3 } };
  const result = { value: 0n };
  assertEquals(
    entryText({ ...entry, call, outcome: { result, reason: undefined } }).more,
    '{id: "x", done: true} → {rank: 3}',
  );
  const refused = { ...entry, outcome: { result, reason: "taken" } };
  assert(entryText(refused).more.endsWith(" → refused: taken"));
  assert(matchesFilter({ ...refused }, "refused taken"));
  assertEquals(
    commandText(undefined, new Uint8Array([1, 2])),
    { what: "command", more: "0x0102 (2 B)", side: "" },
  );
  assertEquals(commandText("put a", new Uint8Array()).what, "put a");
  assertEquals(commandText([1, 2], new Uint8Array()).more, "[1, 2]");
  assertEquals(
    entryText({ index: 3, kind: "refusal", bytes: 4, session: 2, text: "no" }),
    { what: "refusal", more: "no", side: "session #2" },
  );
});

Deno.test("U42 the state of a server is in words, with totals only where the permission has them", () => {
  const report: ServerReport = {
    uptimeMs: 65_000,
    clients: [],
    clientCount: 2,
    clusters: [],
    may: { commands: false, act: false },
  };
  assertEquals(
    serverCards(report, undefined).map(({ title }) => title),
    ["Server"],
  );
  const cards = serverCards({
    ...report,
    totals: {
      memory: { rss: 1024, heap: 512 },
      counts: { appended: 5, refused: 1 },
      queuedBytes: 2048,
      appending: 1,
      creditWaitMs: 20,
      appendMs: { median: 1, high: 2 },
    },
  }, undefined);
  assertEquals(
    cards.map(({ title }) => title),
    ["Server", "Queues", "Rates", "Since the start"],
  );
  assertEquals(valuesOf(cards, "Queues"), {
    "Waiting in sockets": "2.0 KiB",
    "Appends in progress": "1",
    "Wait for credit": "20 ms",
  });
  const failed = clusterCard({
    clusterID: "7",
    nodeID: "1",
    state: "failed",
    reason: "disk",
    appliedIndex: 3,
    committedIndex: 4,
    sessions: 1,
    clients: 0,
    snapshots: [],
  });
  assertEquals(
    [failed.facts[0]!.value, failed.facts[0]!.tone],
    ["failed: disk", "bad"],
  );
});
