import { assertEquals, assertStringIncludes } from "@std/assert";
import { History } from "./history.ts";
import type { Line, Operation, ReplicaReport, Series, Way } from "./record.ts";

/** History of one client that writes, with short names for its lines. */
class Story {
  readonly history = new History();
  #ms = 0;

  add(line: Line, client = "a", life = 1): this {
    this.history.add(client, life, line);
    return this;
  }

  call(
    name: string,
    operation: Operation,
    way?: Way,
    series?: Series,
  ): this {
    const ms = this.#ms += 10;
    const key = "r/0";
    return this.add({
      type: "call",
      cluster: 1,
      name,
      key,
      operation,
      way,
      series,
      ms,
    });
  }

  result(name: string, found?: string | null): this {
    return this.add({ type: "result", name, found, ms: this.#ms += 10 });
  }

  write(name: string, way?: Way, series?: Series): this {
    return this.call(
      name,
      { type: "write", value: name },
      way ?? "alone",
      series,
    );
  }

  read(name: string, found: string | null): this {
    return this.call(name, { type: "read" }).result(name, found);
  }

  started(submitted: number, life: number): this {
    const line: Line = { type: "started", cluster: 1, submitted, pending: [] };
    return this.add(line, "a", life);
  }

  /** Violations once everything is checked; the log has these commands. */
  violations(names: readonly string[], report?: ReplicaReport): string {
    const { history } = this;
    history.checkRegisters();
    const state = report ?? { index: 9, hash: "1", series: {}, pending: 0 };
    history.checkReports(1, new Map([["server", state]]));
    history.checkReplay(1, "server", state, { hash: "1", names });
    return history.violations.join("\n");
  }
}

const submission = { key: "n/a", number: 1 };

Deno.test("D5 a history in which all is well has no violations", () => {
  const story = new Story().write("a1").result("a1").read("a2", "a1")
    .write("a3", "outbox", submission).add({ type: "durable", name: "a3" })
    .started(1, 2).result("a3").read("a4", "a3");
  const report = { index: 9, hash: "1", series: { "n/a": 1 }, pending: 0 };
  assertEquals(story.violations(["a1", "a3"], report), "");
});

Deno.test("D5 an acknowledged command that is not in the log is a violation", () => {
  const story = new Story().write("a1").result("a1");
  assertStringIncludes(story.violations([]), "a1 was acknowledged");
});

Deno.test("H2 a stale read is a violation", () => {
  const story = new Story().write("a1").result("a1").write("a2").result("a2")
    .read("a3", "a1");
  assertStringIncludes(story.violations(["a1", "a2"]), "Register 1 r/0");
});

Deno.test("H3 a command that was applied twice, or out of order, is a violation", () => {
  const twice = new Story().write("a1").result("a1");
  assertStringIncludes(twice.violations(["a1", "a1"]), "more than once");
  const turned = new Story().write("a1", "session").write("a2", "session")
    .result("a1").result("a2");
  assertStringIncludes(
    turned.violations(["a2", "a1"]),
    "a2 was applied before a1",
  );
  const late = new Story().write("a1").result("a1").write("b1").result("b1");
  assertStringIncludes(late.violations(["b1", "a1"]), "had ended");
});

Deno.test("H5 a command that was rejected and is in the log is a violation", () => {
  const story = new Story().write("a1")
    .add({ type: "rejected", name: "a1", error: "busy" });
  assertStringIncludes(story.violations(["a1"]), "a1 was rejected");
  const read = new Story().write("a1")
    .add({ type: "rejected", name: "a1", error: "busy" }).read("a2", "a1");
  assertStringIncludes(read.violations([]), "no call has written");
});

Deno.test("U21 a durable submission that the next life does not show is a violation", () => {
  const story = new Story().write("a1", "outbox", submission)
    .add({ type: "durable", name: "a1" }).started(0, 2);
  assertStringIncludes(
    story.history.violations.join(),
    "starts life 2 with 0 submissions",
  );
});

Deno.test("H12 replicas that end with different states are a violation", () => {
  const history = new History();
  const state = { index: 9, hash: "1", series: {}, pending: 0 };
  history.checkReports(
    1,
    new Map([["server", state], ["device", { ...state, hash: "2" }]]),
  );
  assertStringIncludes(history.violations.join(), "with hash 2");
});
