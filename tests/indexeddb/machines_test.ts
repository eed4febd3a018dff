import "fake-indexeddb/auto";
import { casesOf } from "./machines.ts";

for (const { name, run } of casesOf(6)) {
  Deno.test(name, async () => await run());
}
