import { ClusterProcess } from "../etcd/cluster_process.ts";
import { withoutEtcd } from "../etcd/nodes.ts";
import { launch, removeFolder } from "./browser.ts";
import { Person } from "./sync_demo.ts";

const reason = withoutEtcd();
const name =
  "U30 a page of the cluster to play with goes on with another server when its own is killed, and each edit is there once";

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
    } finally {
      for (const browser of browsers) await browser.close();
      await cluster.stop();
      await removeFolder(folder);
    }
  },
});
