import "fake-indexeddb/auto";
import { cases } from "./conformance.ts";
import { cases as hosts } from "./hosts.ts";

for (const { name, run } of [...cases, ...hosts]) {
  Deno.test(name, async () => await run());
}
