import { cases } from "./browser_suite.ts";

for (const { name, run } of cases) {
  Deno.test(name, async () => {
    await run();
  });
}
