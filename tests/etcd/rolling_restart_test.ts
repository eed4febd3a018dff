import { restartEachServer } from "./histories/rolling_restart.ts";
import { testIfEtcd } from "./nodes.ts";

testIfEtcd(
  "U30 H3 a rolling restart of three servers on etcd under load: no application on 100 clients sees an error, nothing is lost or doubled, and no read goes back",
  () =>
    restartEachServer({ clients: 100, betweenMs: 3_000, pauseMsMax: 2_000 }),
  true,
);
