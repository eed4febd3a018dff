import { assertEquals } from "@std/assert";
import { anySignal } from "../src/async.ts";

Deno.test("case B4: anySignal() aborts with the first of several signals, until it is released", () => {
  const one = new AbortController();
  const other = new AbortController();
  const { signal } = anySignal(one.signal, undefined, other.signal);
  assertEquals(signal.aborted, false);
  other.abort("second");
  one.abort("first");
  assertEquals(signal.reason, "second");

  assertEquals(anySignal(one.signal).signal.reason, "first");

  const third = new AbortController();
  const released = anySignal(third.signal);
  released.release();
  third.abort();
  assertEquals(released.signal.aborted, false);
});
