import "fake-indexeddb/auto";
import { cases } from "./life_cycle.ts";

for (const { name, run } of cases) {
  Deno.test(`IndexedDBBlockStore: ${name}`, async () => await run());
}
