import { assertMatch } from "@std/assert";
import { launch, removeFolder } from "./browser.ts";
import { DemoServer, Person } from "./sync_demo.ts";

Deno.test({
  name:
    "U1 U2 the demo says that the browser has cleared what it kept, and has again what the server had (Chromium)",
  sanitizeOps: false,
  sanitizeResources: false,
  async fn(): Promise<void> {
    const folder = await Deno.makeTempDir({ prefix: "purge-" });
    const server = new DemoServer(`${folder}/data`);
    await server.start();
    const browser = await launch("Chromium");
    try {
      const page = await browser.open(`${server.url}#demo`);
      const person = new Person("Chromium", page);
      await person.add("rice");
      await person.until(({ state, pending, items }) =>
        state === "live" && pending === "0" && items[0] === "rice"
      );
      const { origin } = new URL(server.url);
      // Leave the page first, since it has its stores open.
      await page.devtools!("Page.navigate", { url: "about:blank" });
      await page.devtools!("Storage.clearDataForOrigin", {
        origin,
        storageTypes:
          "indexeddb,local_storage,file_systems,service_workers,cache_storage",
      });
      await page.devtools!("Page.navigate", { url: `${server.url}#demo` });
      const seen = await person.until(({ state, items, messages }) =>
        state === "live" && items[0] === "rice" &&
        messages["purged"] !== undefined
      );
      assertMatch(seen.messages["purged"]!, /has cleared .* \(2 edits\)/);
      // The page keeps working.
      await person.add("tea");
      await person.until(({ pending, items }) =>
        pending === "0" && items.includes("tea")
      );
    } finally {
      await browser.close();
      await server.stop("SIGTERM");
      await removeFolder(folder);
    }
  },
});
