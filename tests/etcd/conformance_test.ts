import { EtcdLogDB } from "../../src/etcd/mod.ts";
import { logDBConformance } from "../../src/testing/log_conformance.ts";
import { test } from "./nodes.ts";

for (const count of [1, 3]) {
  const what = `EtcdLogDB, ${count === 1 ? "one node" : `${count} nodes`}`;
  test(`${what}, conforms to the port of the log`, async (nodes, t) => {
    let made = 0;
    const prefixes = new WeakMap<object, string>();
    const open = (prefix: string): EtcdLogDB => {
      const { endpoints } = nodes;
      const db = new EtcdLogDB({ endpoints, prefix });
      prefixes.set(db, prefix);
      return db;
    };
    const cases = logDBConformance({
      create: () => open(`case${made++}`),
      reopen: (db) => open(prefixes.get(db)!),
    });
    for (const { name, run } of cases) await t.step(name, run);
  }, { count });
}
