import { stopBundler } from "../../web/bundle.ts";
import { newSeed } from "../support/random.ts";
import { killDuringRecovery } from "./recovery.ts";

Deno.test.afterAll(() => stopBundler());

for (
  const [taker, what] of [
    ["machine", "D11 Chromium killed in the middle of a recovery"],
    [
      "replica",
      "D11 Chromium killed while a replica that fell behind recovers",
    ],
    ["import", "H9 Chromium killed in the middle of an import"],
  ] as const
) {
  Deno.test({
    name: `${what} has the old state or the new one, whole`,
    sanitizeOps: false,
    sanitizeResources: false,
    async fn(): Promise<void> {
      await killDuringRecovery(taker, [0.5, 0.95], 1, newSeed());
    },
  });
}
