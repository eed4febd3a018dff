import { assertEquals, assertMatch } from "@std/assert";
import { ClusterProcess } from "../etcd/cluster_process.ts";
import { withoutEtcd } from "../etcd/nodes.ts";
import { launch, removeFolder } from "./browser.ts";
import { Person } from "./sync_demo.ts";

/** Opens the inspector of a page; returns the text of the card of each server, once one is known not to answer. */
const LOOK_AT_SERVERS = `async () => {
  const wait = async (find) => {
    for (let waited = 0; waited < 30_000; waited += 100) {
      const found = find();
      if (found) return found;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error("not found: " + find);
  };
  const named = (root, text) => [...root.querySelectorAll("button")]
    .find((button) => button.textContent.startsWith(text));
  document.getElementById("menu").click();
  (await wait(() => named(document, "Inspect"))).click();
  const root = (await wait(() => document.querySelector("sampan-inspector")))
    .shadowRoot;
  (await wait(() => named(root, "Servers"))).click();
  return await wait(() => {
    const cards = [...root.querySelectorAll(".card")]
      .filter((card) => card.checkVisibility())
      .map((card) => card.innerText);
    return cards.length === 3 && cards.some((card) =>
      card.includes("does not answer")) &&
      cards.some((card) => card.includes("this page")) && cards;
  });
}`;

const reason = withoutEtcd();
const name =
  "U30 a page of the cluster to play with goes on with another server when its own is killed, each edit is there once, and the inspector shows all three";

Deno.test({
  name: reason === undefined ? name : `${name}: skipped, ${reason}`,
  ignore: reason !== undefined,
  fn: async (): Promise<void> => {
    const folder = await Deno.makeTempDir({ prefix: "cluster-" });
    const cluster = new ClusterProcess(`${folder}/data`);
    await cluster.read("Ctrl-C");
    const servers = [...cluster.said.matchAll(/(http:\S+) \(process (\d+)\)/g)];
    const [[, first = "", pid] = [], [, second = ""] = []] = servers;
    const profiles = [`${folder}/first`, `${folder}/second`];
    for (const profile of profiles) await Deno.mkdir(profile);
    const browsers = [];
    try {
      const people: Person[] = [];
      for (const [i, url] of [first, second].entries()) {
        const browser = await launch("Chromium", { profile: profiles[i]! });
        browsers.push(browser);
        people.push(
          new Person(`page ${i + 1}`, await browser.open(`${url}#demo`)),
        );
      }
      const [one, two] = people as [Person, Person];
      for (const person of people) {
        await person.until(({ state }) => state === "live");
      }
      await one.add("bread");
      await two.until(({ items }) => items.join() === "bread");
      Deno.kill(Number(pid), "SIGKILL");
      await one.add("milk");
      await one.until(({ state, pending }) =>
        state === "live" && pending === "0"
      );
      await two.add("tea");
      for (const person of people) {
        await person.until(({ items, pending }) =>
          pending === "0" && [...items].sort().join() === "bread,milk,tea"
        );
      }
      const cards = await two.do(LOOK_AT_SERVERS) as string[];
      assertMatch(
        cards[0]!,
        /^Server 2 · this page\n[^]*running[^]*Applied\n#/,
      );
      assertMatch(cards[0]!, /Code\n[0-9a-f]{16}/);
      assertEquals(
        cards.map((card) => card.includes("does not answer")),
        [false, true, false],
      );
    } finally {
      for (const browser of browsers) await browser.close();
      await cluster.stop();
      await removeFolder(folder);
    }
  },
});
