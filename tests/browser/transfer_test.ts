import { newSeed } from "../support/random.ts";
import { stopBundler } from "../../web/bundle.ts";
import { checkTransfer, transfer } from "./transfer.ts";

Deno.test.afterAll(() => stopBundler());

Deno.test({
  name:
    "H9 Chromium recovers a snapshot from SQLite into IndexedDB, and SQLite one from there, in bounded memory",
  sanitizeOps: false,
  sanitizeResources: false,
  async fn(): Promise<void> {
    const seed = newSeed();
    checkTransfer(await transfer(32, seed), `seed ${seed}`);
  },
});
