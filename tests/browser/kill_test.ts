import { assert } from "@std/assert";
import { newSeed } from "../support/random.ts";
import { stopBundler } from "../../web/bundle.ts";
import { killBrowser } from "./kill.ts";

Deno.test.afterAll(() => stopBundler());

for (
  const [engine, kills] of [["Chromium", 2], ["Firefox", 1], [
    "WebKitGTK",
    2,
  ]] as const
) {
  Deno.test({
    name:
      `D5 H3 ${engine} killed under load loses no answer and does nothing twice`,
    sanitizeOps: false,
    sanitizeResources: false,
    async fn(): Promise<void> {
      const seed = newSeed();
      const { answered } = await killBrowser(engine, kills, seed);
      assert(answered > 0, `Nothing was answered, seed ${seed}`);
    },
  });
}
