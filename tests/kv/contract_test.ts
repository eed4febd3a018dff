import {
  ConcurrentKVStateMachine,
  kv,
  KVStateMachine,
} from "../../src/kv/mod.ts";
import {
  checkConcurrentStateMachine,
  checkStateMachine,
} from "../../src/testing/mod.ts";

const samples = {
  commands: [
    kv.put("a", "1"),
    kv.put("b", "2"),
    kv.put("a", ""),
    kv.delete("a"),
    kv.compareAndSwap("b", "2", "3"),
    kv.compareAndSwap("c", undefined, "4"),
    kv.batch([kv.put("a", "5"), kv.delete("b")]),
    new Uint8Array([255]),
  ],
  queries: [kv.get("a"), kv.range({ reverse: true, limit: 2 }), kv.count()],
  naQueries: [kv.encodeQuery(kv.get("a")), kv.encodeQuery(kv.count())],
};

Deno.test("C6 KVStateMachine keeps the contract", async () => {
  await checkStateMachine({ ...samples, create: () => new KVStateMachine() });
});

Deno.test("C6 ConcurrentKVStateMachine keeps the contract", async () => {
  await checkConcurrentStateMachine({
    ...samples,
    create: () => new ConcurrentKVStateMachine(),
  });
});
