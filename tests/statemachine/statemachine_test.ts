import { assert, assertEquals, assertFalse } from "@std/assert";
import type * as mod from "../../mod.ts";
import {
  ConcurrentStateMachine,
  type Entry,
  ErrOpenStopped,
  ErrSnapshotAborted,
  OnDiskStateMachine,
  RegularStateMachine,
  type Result,
  SampanError,
} from "../../mod.ts";

Deno.test("T1 the kinds of machine have the numbers of Dragonboat", () => {
  assertEquals(
    [RegularStateMachine, ConcurrentStateMachine, OnDiskStateMachine],
    [1, 2, 3],
  );
});

Deno.test("T2 an entry carries index, command and result, a result value and data", () => {
  const result: Result = { value: 1n, data: new Uint8Array(1) };
  const entry: Entry = { index: 1, cmd: new Uint8Array(), result };
  assertEquals(Object.keys(entry), ["index", "cmd", "result"]);
  assertEquals(Object.keys(result), ["value", "data"]);
});

Deno.test("T5 instanceof holds between two copies of the code", async () => {
  // A query makes the loader take the same file for another module.
  const url = new URL("../../src/statemachine/errors.ts", import.meta.url);
  const copy = await import(`${url.href}?copy`) as typeof mod;
  const theirs = new copy.ErrOpenStopped();
  assert(copy.ErrOpenStopped !== (ErrOpenStopped as unknown));
  assert(theirs instanceof ErrOpenStopped);
  assert(theirs instanceof SampanError);
  assert(new ErrOpenStopped() instanceof copy.ErrOpenStopped);
  assertFalse(theirs instanceof ErrSnapshotAborted);
  assertEquals(theirs.name, "ErrOpenStopped");
});

Deno.test("T5 instanceof tells a class derived from an error from the error", () => {
  class Mine extends ErrSnapshotAborted {}
  assert(new Mine() instanceof ErrSnapshotAborted);
  assertFalse(new ErrSnapshotAborted() instanceof Mine);
  assertFalse((null as unknown) instanceof ErrSnapshotAborted);
});
