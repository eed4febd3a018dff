/**
 * Tests of the oracles: each notices a history with the violation that it is
 * for, and a correct history passes.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { packRecords, RecordKind } from "../../src/log/records.ts";
import {
  proposalHeadLength,
  putProposalHead,
  putSessionHead,
  registerRecord,
  sessionHeadLength,
  skipEntryRecord,
} from "../../src/rsm/record_codec.ts";
import { bytes, text } from "../support/bytes.ts";
import {
  type FinalState,
  History,
  type Operation,
  type OperationInit,
} from "./history.ts";
import { judge, type OracleMachine } from "./oracles.ts";
import { replay } from "./reference.ts";
import { shrinkSteps } from "./shrink.ts";

const MACHINE: OracleMachine = {
  apply: text,
  keyOf: (command) => command[0],
  hash: (list) => BigInt(list.length),
};

/** Record of a proposal outside of any session. */
function single(command: string): Uint8Array {
  const head = proposalHeadLength(1);
  const record = new Uint8Array(head + command.length);
  putProposalHead(record, 0, 1, 1, 1);
  record.set(bytes(command), head);
  return record;
}

/** Record of a series of a session. */
function series(
  session: number,
  series: number,
  command: string,
  lag = 0,
): Uint8Array {
  const head = sessionHeadLength(session, series, lag);
  const record = new Uint8Array(head + command.length);
  putSessionHead(
    record,
    0,
    RecordKind.SessionProposal,
    session,
    series,
    lag,
  );
  record.set(bytes(command), head);
  return record;
}

/** Right state of a replica with the log `a1 a2 b1`. */
const END: FinalState = {
  process: "p",
  cluster: 1n,
  machine: "plain",
  stateVersion: 0,
  appliedIndex: 3,
  hash: 3n,
  list: ["a1", "a2", "b1"],
  pending: new Map(),
};

/** History whose log is `a1 a2 b1`, each answered in turn by one process. */
class Sample {
  readonly history: History = new History();

  constructor(...commands: readonly string[]) {
    const records = packRecords(...commands.map(single));
    this.history.committed(1n, { follows: 0, first: 1, records });
  }

  do(
    init: Partial<OperationInit>,
    end?: "unknown" | "rejected" | number | readonly string[],
  ): Operation {
    const operation = this.history.begin({
      process: "p",
      cluster: 1n,
      kind: "propose",
      input: "",
      ...init,
    });
    if (end === "unknown" || end === "rejected") {
      this.history.end(operation, { kind: end, error: new Error(end) });
    } else if (end !== undefined) {
      this.history.end(operation, { kind: "ok", value: end });
    }
    return operation;
  }

  /** Proposes a command of a key. */
  add(input: string, end?: "unknown" | "rejected" | number): Operation {
    return this.do({ input, key: input[0]! }, end);
  }

  get oracles(): string[] {
    const violations = judge(this.history, MACHINE);
    return [...new Set(violations.map(({ oracle }) => oracle))];
  }
}

function correct(): Sample {
  const sample = new Sample("a1", "a2", "b1");
  sample.add("a1", 1);
  sample.add("a2", 2);
  sample.do({ kind: "read", key: "a" }, ["a1", "a2"]);
  sample.add("b1", 1);
  sample.do({ kind: "read" }, ["a1", "a2", "b1"]);
  sample.add("c1", "unknown");
  sample.add("c2", "rejected");
  return sample;
}

function caught(
  name: string,
  expected: readonly string[],
  change: (sample: Sample) => void,
): void {
  Deno.test(`H2 H3 oracles notice ${name}`, () => {
    const sample = correct();
    change(sample);
    assertEquals(sample.oracles, expected);
  });
}

Deno.test("H2 H3 oracles find no violation in a correct history", () => {
  assertEquals(correct().oracles, []);
});

caught(
  "a linearizable read that is stale",
  ["linearizability"],
  (sample) => sample.do({ process: "q", kind: "read", key: "a" }, ["a1"]),
);

caught(
  "a read of a command that was never in the log",
  ["monotonic"],
  (sample) => sample.do({ kind: "staleRead" }, ["a1", "x"]),
);

caught("reads that go back", ["monotonic"], (sample) => {
  sample.do({ process: "q", kind: "staleRead" }, ["a1", "a2"]);
  sample.do({ process: "q", kind: "staleRead" }, ["a1"]);
});

caught(
  "a process that does not see what it was answered",
  ["monotonic", "own writes"],
  (sample) => sample.do({ kind: "staleRead" }, ["a1"]),
);

caught(
  "a command answered and not in the log",
  ["durability"],
  (sample) => sample.add("a3", 3),
);

caught(
  "a wrong result",
  ["results"],
  (sample) => {
    const records = packRecords(single("d1"));
    sample.history.committed(1n, { follows: 3, first: 4, records });
    sample.add("d1", 2);
  },
);

caught("a command applied though it was rejected", ["rejected"], (sample) => {
  const records = packRecords(single("c2"));
  sample.history.committed(1n, { follows: 3, first: 4, records });
});

caught("a command applied twice", ["once", "linearizability"], (sample) => {
  const records = packRecords(single("c1"), single("c1"));
  sample.history.committed(1n, { follows: 3, first: 4, records });
});

caught("commands in the log against real time", [
  "linearizability",
  "order",
], (sample) => {
  const records = packRecords(single("d2"), single("d1"));
  sample.history.committed(1n, { follows: 3, first: 4, records });
  sample.add("d1", 2);
  sample.add("d2", 1);
});

caught("commands of a session out of order", ["sessions"], (sample) => {
  const records = packRecords(single("e2"), single("e1"));
  sample.history.committed(1n, { follows: 3, first: 4, records });
  sample.do({ input: "e1", kind: "submit", session: "s" });
  sample.do({ input: "e2", kind: "submit", session: "s" });
});

caught("a submission that is lost", ["durability"], (sample) => {
  const { history } = sample;
  history.stored(sample.do({ input: "e1", kind: "submit", session: "s" }));
  history.final(END);
});

caught("a replica with another state", ["replay"], ({ history }) => {
  history.final({ ...END, list: ["a1", "b1", "a2"] });
});

caught("a replica with another hash", ["hashes"], ({ history }) => {
  history.final({ ...END, hash: 4n });
});

caught(
  "a view that lacks a pending command",
  ["views"],
  (sample) =>
    sample.do({ kind: "view", expected: ["a1", "a2", "b1", "c1"] }, [
      "a1",
      "a2",
      "b1",
    ]),
);

caught(
  "a view with a command of another device that is not committed",
  ["views"],
  (sample) => {
    sample.do({ input: "f1", kind: "submit", session: "s" });
    sample.do({ kind: "view", session: "t" }, ["a1", "f1"]);
  },
);

caught("a record of the log that changed", ["log"], ({ history }) => {
  const records = packRecords(single("x1"));
  history.committed(1n, { follows: 0, first: 1, records });
});

caught("a log that is compacted too far", ["compaction"], ({ history }) => {
  const at = { cluster: 1n, process: "p" };
  history.compacted({ ...at, upTo: 5, snapshots: [9, 5, 1] });
  history.compacted({ ...at, upTo: 6, snapshots: [9, 5, 1] });
});

caught("a queue over its limit, and a rejection without a handler", [
  "rejections",
  "queues",
], ({ history }) => {
  history.queue("appends", 17, 16);
  history.rejected(new Error("Promise has no handler (simulated)"));
});

Deno.test("H2 H3 oracles judge the log of a restored server by itself", () => {
  const sample = correct();
  const { history } = sample;
  history.restored(1n, 1);
  sample.add("a4", 2);
  const records = packRecords(single("a4"));
  history.committed(1n, { follows: 1, first: 2, records });
  sample.do({ process: "q", kind: "read", key: "a" }, ["a1", "a4"]);
  assertEquals(sample.oracles, []);
  sample.do({ process: "q", kind: "read", key: "a" }, ["a1", "a2"]);
  assertEquals(sample.oracles, ["monotonic"]);
});

Deno.test("H18 oracles do not miss an own command in a lookup after a restore that took it back", () => {
  const sample = correct();
  sample.history.restored(1n, 1);
  sample.do({ kind: "staleRead", key: "b" }, []);
  assertEquals(sample.oracles, []);
});

Deno.test("H2 H18 oracles take back with a restore what a process has read, and nothing after it", () => {
  const sample = correct();
  sample.do({ kind: "read", key: "a" }, ["a1", "a2"]);
  sample.history.restored(1n, 1);
  const records = packRecords(single("a4"));
  sample.history.committed(1n, { follows: 1, first: 2, records });
  sample.do({ kind: "staleRead", key: "a" }, ["a1"]);
  sample.do({ kind: "staleRead", key: "a" }, ["a1", "a4"]);
  assertEquals(sample.oracles, []);
  sample.do({ kind: "staleRead", key: "a" }, ["a1"]);
  assertEquals(sample.oracles, ["monotonic"]);
});

Deno.test("H2 H3 oracles take a command that was sent again after a restore as answered there, and one of the copy as before", () => {
  const sample = correct();
  const { history } = sample;
  history.restored(1n, 1);
  sample.add("a4", 2);
  const records = packRecords(single("a4"), single("a2"));
  history.committed(1n, { follows: 1, first: 2, records });
  assertEquals(sample.oracles, []);
  sample.add("a5", 4);
  sample.add("a6", 3);
  const late = packRecords(single("a6"), single("a5"));
  history.committed(1n, { follows: 3, first: 4, records: late });
  assertEquals(sample.oracles.includes("order"), true);
});

Deno.test("H2 H3 oracles take an answer that was on its way when the server was restored as one of the log before", () => {
  for (
    const [value, oracles] of [[3, []], [4, [
      "order",
      "linearizability",
    ]]] as const
  ) {
    const sample = correct();
    const { history } = sample;
    const records = packRecords(single("a7"));
    history.committed(1n, { follows: 3, first: 4, records });
    const late = history.begin({
      process: "p",
      cluster: 1n,
      kind: "propose",
      input: "a7",
      key: "a",
    });
    history.restored(1n, 1);
    history.end(late, { kind: "ok", value });
    sample.add("a8", 2);
    sample.add("a9", 3);
    const again = packRecords(single("a8"), single("a9"), single("a7"));
    history.committed(1n, { follows: 1, first: 2, records: again });
    assertEquals(sample.oracles.toSorted(), oracles.toSorted());
  }
});

Deno.test("H10 oracles notice a call without an answer in a process that is well, and count an answer of a history that is gone", () => {
  const sample = correct();
  const { history } = sample;
  const view = sample.do({ kind: "view" });
  history.final(END);
  assertEquals(sample.oracles, ["answers"]);
  history.answered(view);
  assertEquals(sample.oracles, ["answers"]);

  const other = correct();
  other.history.answered(other.do({ kind: "view" }));
  other.history.final(history.finals[0]!);
  assertEquals(other.oracles, []);
});

Deno.test("H2 H17 oracles accept that the log before a restore has applied what is skipped after it", () => {
  const { history } = new Sample("a1", "a2");
  const sample = (
    init: Partial<OperationInit>,
    value: number | string[],
  ): void => {
    const operation = history.begin({
      process: "p",
      cluster: 1n,
      kind: "propose",
      input: "",
      key: "a",
      ...init,
    });
    history.end(operation, { kind: "ok", value });
  };
  sample({ input: "a1" }, 1);
  sample({ input: "a2" }, 2);
  sample({ kind: "read" }, ["a1", "a2"]);
  history.restored(1n, 1);
  history.committed(1n, {
    follows: 1,
    first: 2,
    records: packRecords(skipEntryRecord(1, "reason"), single("a3")),
  });
  sample({ input: "a3" }, 1);
  sample({ kind: "read" }, ["a3"]);
  assertEquals(judge(history, MACHINE), []);
});

Deno.test("H3 H4 H17 reference replay applies each series once, in order, and no skipped entry", () => {
  const history = new History();
  const records = packRecords(
    registerRecord(7n, bytes("owner")),
    series(1, 1, "a1"),
    series(1, 1, "a1"),
    series(1, 3, "a3", 2),
    series(1, 2, "a2", 1),
    series(1, 3, "a3"),
    single("a4"),
    skipEntryRecord(7, "reason"),
    series(9, 1, "a5"),
  );
  history.committed(1n, { follows: 0, first: 1, records });
  const { list, indexes } = replay(history.logs.get(1n)![0]!, text);
  assertEquals(list, ["a1", "a2", "a3"]);
  assertEquals(indexes, [2, 5, 6]);
});

Deno.test("shrinking finds the smallest list of steps that fails", async () => {
  let runs = 0;
  const fewest = await shrinkSteps(60, (steps) => {
    runs++;
    return Promise.resolve([7, 8, 41].every((step) => steps.includes(step)));
  });
  assertEquals(fewest, [7, 8, 41]);
  assertEquals(runs < 150, true, `${runs} runs`);
});
