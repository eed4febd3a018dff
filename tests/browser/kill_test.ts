import { assertEquals } from "@std/assert";
import { soak } from "../soak/soak.ts";
import { newSeed } from "../support/random.ts";
import { stopBundler } from "../../web/bundle.ts";

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
      const { violations } = await soak({
        seed,
        kills,
        devices: 1,
        engines: [engine],
        victims: [engine],
      });
      assertEquals(violations, [], `seed ${seed}`);
    },
  });
}
