import { assert, assertMatch } from "@std/assert";
import { stopBundler } from "../../web/bundle.ts";
import { ENGINES } from "./browser.ts";
import { newSeed } from "../support/random.ts";
import {
  editOffline,
  firstVisit,
  killUnsent,
  PAIRS,
  Scene,
  startOver,
  whatIsRefused,
} from "./sync.ts";

let scene: Scene | undefined;

Deno.test.afterAll(async () => {
  await scene?.[Symbol.asyncDispose]();
  await stopBundler();
});

/** Registers a test in the shared scene. */
function test(name: string, run: (scene: Scene) => Promise<void>): void {
  Deno.test({
    name,
    sanitizeOps: false,
    sanitizeResources: false,
    async fn(): Promise<void> {
      await run(scene ??= await Scene.start());
    },
  });
}

for (const engine of ENGINES) {
  test(`U21 U38 H3 ${engine} killed before it could send keeps what was submitted, shows it with no network, and sends it once`, async (scene) => {
    await killUnsent(scene, engine, 50, newSeed());
  });
}

for (const engines of PAIRS) {
  test(`H1 H3 ${engines.join(", ")} and Deno edit offline and end equal, with every command there once and in order`, async (scene) => {
    const { cuts } = await editOffline(scene, engines, 1_000, newSeed());
    assert(cuts > 0, "Nothing was cut");
  });
}

for (const engine of ENGINES) {
  test(`U29 ${engine} far behind recovers from a snapshot, reports its progress, and is live`, async (scene) => {
    await firstVisit(scene, engine, 10_000, 1024);
  });

  test(`case B2: ${engine} whose server has lost its log reports that, exports its data, starts over with unsent submissions, and leaves no old data [H19, U33, U35, U36]`, async (scene) => {
    await startOver(scene, engine);
  });

  test(`H11 ${engine} gets the reason why its origin, or its version, is refused`, async (scene) => {
    const [origin, version] = await whatIsRefused(scene, engine);
    assertMatch(origin, /^ErrForbidden: Pages of http.* are not allowed/);
    assertMatch(version, /^ErrVersion: This server speaks version/);
  });
}
