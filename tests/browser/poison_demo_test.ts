import { assertEquals, assertMatch } from "@std/assert";
import { launch, removeFolder } from "./browser.ts";
import { DemoServer, Person } from "./sync_demo.ts";

Deno.test(
  "case A10: the page says that the server has failed and why, keeps its edits, and continues by itself once the entry is skipped [R5, H17, H18]",
  async () => {
    const folder = await Deno.makeTempDir({ prefix: "poison-" });
    const server = new DemoServer(
      `${folder}/data`,
      "browser/poison_demo_server.ts",
    );
    await server.start();
    const profile = `${folder}/profile`;
    await Deno.mkdir(profile);
    const browser = await launch("Chromium", { profile });
    try {
      const person = new Person(
        "Chromium",
        await browser.open(`${server.url}#demo`),
      );
      await person.until(({ state }) => state === "live");
      await person.add("bread");
      await person.until(({ items, pending }) =>
        pending === "0" && items.join() === "bread"
      );
      await person.add("poison");
      // The words for a trouble are loaded with it.
      const failed = await person.until(({ state, messages }) =>
        state === "failed" && messages["connection"] !== undefined
      );
      assertMatch(
        failed.messages["connection"]!,
        /entry \d+ cannot be applied: Cannot read properties.*Edits are kept/,
      );
      await person.add("milk");
      await person.until(({ items }) => items.includes("milk…"));
      // The restarted server fails at the same edit.
      await server.stop("SIGKILL");
      await server.start();
      await person.until(({ state }) => state === "failed");
      const health = await fetch(new URL("health", server.url));
      assertEquals(health.status, 503);
      await health.body?.cancel();
      const skipped = await fetch(new URL("skip?reason=no+poison", server.url));
      assertEquals(skipped.status, 200);
      await skipped.body?.cancel();
      // The page runs other code and had applied the edit; it must drop it. The
      // list may be drawn a moment later than the state above it.
      await person.until(({ state, items, pending, messages }) =>
        state === "live" && pending === "0" &&
        messages["connection"] === undefined &&
        [...items].sort().join() === "bread,milk"
      );
    } finally {
      await browser.close();
      await server.stop("SIGTERM");
      await removeFolder(folder);
    }
  },
);
