import { stopBundler } from "../../web/bundle.ts";
import { checkTransfer, killRecovering, transfer } from "./transfer.ts";

Deno.test.afterAll(() => stopBundler());

Deno.test({
  name:
    "H9 Chromium recovers a snapshot from SQLite into IndexedDB, and SQLite one from there, in bounded memory",
  sanitizeOps: false,
  sanitizeResources: false,
  async fn(): Promise<void> {
    const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
    checkTransfer(await transfer(32, seed), `seed ${seed}`);
  },
});

Deno.test({
  name:
    "D11 Chromium killed in the middle of a recovery has the old state, whole",
  sanitizeOps: false,
  sanitizeResources: false,
  async fn(): Promise<void> {
    const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
    await killRecovering([0.5, 0.95], 1, seed);
  },
});
