import { assertEquals } from "@std/assert";
import {
  type SeenServer,
  serversCards,
} from "../../src/inspector/servers_panel.ts";
import type { ClusterReport } from "../../src/sync/inspector_report.ts";

function seen(
  name: string,
  cluster: Partial<ClusterReport>,
  more: Partial<SeenServer> = {},
): SeenServer {
  return {
    source: `http://${name}.example:8000/inspector`,
    problem: undefined,
    answeredMs: 100,
    report: {
      uptimeMs: 1000,
      name,
      clients: [],
      clientCount: 0,
      may: { commands: false, act: false },
      reach: { hasQuorum: true },
      clusters: [{
        clusterID: "1",
        nodeID: "1",
        state: "running",
        appliedIndex: 12,
        committedIndex: 12,
        sessions: 0,
        clients: 0,
        snapshots: [],
        hash: "aa",
        hashIndex: 12,
        ...cluster,
      }],
    },
    ...more,
  };
}

Deno.test("H18 the inspector shows servers beside each other: this page's, roles, lag, equal hashes, and one that is cut off or does not answer as such", () => {
  const first = seen("one", { hasTurn: true, code: "c0de" });
  const { report } = first;
  const here: SeenServer = {
    ...first,
    report: {
      ...report!,
      isOnDuty: true,
      clientCount: 1,
      clients: [{
        connection: 1,
        connectedMs: 0,
        clusters: ["1"],
        nodes: ["77"],
        streams: 1,
        queuedBytes: 0,
        isAppending: false,
      }],
    },
  };
  const two = seen("two", {
    hasTurn: false,
    turnWait: { waitedMs: 3_000, holder: "one", heldMs: 60_000 },
  });
  const cut = seen("three", {
    hasTurn: false,
    appliedIndex: 10,
    hashIndex: 10,
    hash: "bb",
  });
  const cards = serversCards([
    here,
    two,
    {
      ...cut,
      report: { ...cut.report!, reach: { hasQuorum: false, lostMs: 8_000 } },
    },
    seen("four", {}, { problem: "Failed to fetch", answeredMs: 9_000 }),
    seen("five", {}, { problem: "Failed to fetch", report: undefined }),
    seen("six", { clusterID: "2" }, { answeredMs: 9_000 }),
  ], { clusterID: 1n, nodeID: 77n });
  const words = cards.map(({ title, facts }) => [
    title,
    ...facts.map(({ label, value, tone = "" }) =>
      `${label}: ${value} ${tone}`.trim()
    ),
  ]);
  assertEquals(words, [
    [
      "one · this page",
      "Address: one.example:8000",
      "State: running good",
      "Role: has the turn to append; takes the snapshots",
      "Applied: #12, the newest",
      "Hash at #12: aa, equal on 1 other server good",
      "Code: c0de",
      "Clients: 1 client, this page among them",
    ],
    [
      "two",
      "Address: two.example:8000",
      "State: running good",
      "Role: waits 3.0 s for its turn to append, which one has for 1 min",
      "Applied: #12, the newest",
      "Hash at #12: aa, equal on 1 other server good",
      "Clients: 0 clients",
    ],
    [
      "three",
      "Address: three.example:8000",
      "State: cut off from the log for 8.0 s warn",
      "Role: appends when its turn comes",
      "Applied: #10, 2 entries behind warn",
      "Hash at #10: bb",
      "Clients: 0 clients",
    ],
    [
      "four",
      "Address: four.example:8000",
      "State: does not answer, last answer 9 s ago bad",
      "Applied: #12 at its last answer",
    ],
    [
      "five.example:8000",
      "Address: five.example:8000",
      "State: does not answer bad",
    ],
    [
      "six",
      "Address: six.example:8000",
      "State: answers late, last 9 s ago warn",
      "Applied: has not opened this cluster",
      "Clients: 0 clients",
    ],
  ]);
});
