import {
  assert,
  assertEquals,
  assertGreater,
  assertRejects,
} from "@std/assert";
import { recorded } from "./recorded.ts";
import { replay, type ReplayReport } from "./replay.ts";
import { loadTrace, recordTyping, type Trace } from "./trace.ts";

const TEXT = "Sampans carry what dragon boats cannot: 🐉.\n".repeat(60);

function assertSame(report: ReplayReport, trace: Trace): void {
  const [first, second, third] = report.replicas;
  assert(first && second && third && report.replicas.length === 3);
  assert(report.same);
  assertEquals(report.refused, 0);
  const length = [...trace.endContent].length;
  for (const replica of report.replicas) {
    assert(replica.sameText);
    assertEquals(replica.length, length);
    assertEquals(replica.index, first.index);
    assertEquals(replica.hash, first.hash);
  }
}

/**
 * Checks that the replicas started in the three ways, two of them from a
 * snapshot taken during the replay.
 */
function assertCameUp(report: ReplayReport): void {
  const [first, second, third] = report.replicas.map(({ start }) => start);
  assertEquals(first, { how: "start", snapshot: undefined });
  assertEquals(second?.how, "restart");
  assertGreater(second?.snapshot ?? 0, report.edits / 2);
  assertEquals(third?.how, "late");
  assertGreater(third?.snapshot ?? 0, report.edits / 2);
  // Without a snapshot, the third replica could not have started.
  assertGreater(report.logStart, report.edits / 4);
  assertGreater(third?.snapshot ?? 0, report.logStart);
}

Deno.test("replay() leads three replicas to the recorded text", async () => {
  const trace = recordTyping(TEXT);
  const progress: number[] = [];
  const report = await replay(trace, {
    onProgress: ({ done, total }) => {
      assertEquals(total, trace.txns.length);
      progress.push(done);
    },
  });
  assertSame(report, trace);
  assertCameUp(report);
  assertEquals(report.edits, trace.txns.length);
  assertEquals(progress.at(-1), trace.txns.length);
  assertEquals(progress, progress.toSorted((a, b) => a - b));
});

Deno.test("replay() inserts what a history starts with", async () => {
  const { txns, endContent } = recordTyping(TEXT);
  const trace = { name: "", startContent: "", endContent, txns };
  const startContent = "🐉 before\n";
  const more = {
    ...trace,
    startContent,
    endContent: endContent + startContent,
  };
  assertSame(await replay(more), more);
});

Deno.test("replay() does a history of a few edits or none", async () => {
  for (const text of ["", "a", "ab"]) {
    const trace = recordTyping(text);
    assertSame(await replay(trace), trace);
  }
});

Deno.test("replay() reports replicas that do not hold the recorded text", async () => {
  const trace = { ...recordTyping(TEXT), endContent: "something else" };
  const report = await replay(trace);
  assertEquals(report.same, false);
  assertEquals(report.replicas.map(({ sameText }) => sameText), [
    false,
    false,
    false,
  ]);
});

Deno.test("replay() reports refused edits", async () => {
  const { txns, ...trace } = recordTyping(TEXT);
  const report = await replay({
    ...trace,
    txns: [[[5, 0, "out of range"]], ...txns],
  });
  assertEquals(report.refused, 1);
  assertEquals(report.same, false);
  assert(report.replicas.every(({ sameText }) => sameText));
});

Deno.test("replay() ends early with the signal's reason", async () => {
  const reason = new Error("Enough");
  const trace = recordTyping(TEXT.repeat(20));
  await assertRejects(
    () => replay(trace, { signal: AbortSignal.abort(reason) }),
    Error,
    "Enough",
  );
  const controller = new AbortController();
  let done = 0;
  await assertRejects(
    () =>
      replay(trace, {
        signal: controller.signal,
        onProgress: (progress): void => {
          done = progress.done;
          if (done > 2000) controller.abort(reason);
        },
      }),
    Error,
    "Enough",
  );
  assert(done < trace.txns.length);
});

for (const name of ["automerge-paper", "sveltecomponent"]) {
  const { url, ignore, note } = recorded(name);
  Deno.test({
    name: `replay() leads three replicas through ${name}${note}`,
    ignore,
    async fn(): Promise<void> {
      const trace = await loadTrace(url);
      const report = await replay(trace);
      assertSame(report, trace);
      assertCameUp(report);
    },
  });
}
