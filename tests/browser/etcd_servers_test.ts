import { restartEachServer } from "../etcd/histories/rolling_restart.ts";
import { testIfEtcd } from "../etcd/nodes.ts";

testIfEtcd(
  "U30 H3 a rolling restart of three servers on etcd under load: no application in pages of Chromium sees an error, nothing is lost or doubled, and no read goes back",
  () =>
    restartEachServer({
      clients: 20,
      pages: 3,
      betweenMs: 4_000,
      pauseMsMax: 1_000,
    }),
  true,
);
