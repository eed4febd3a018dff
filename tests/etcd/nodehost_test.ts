/** The tests of hosts that take a log, on etcd. */

import { importOnEtcd } from "./suites.ts";

await importOnEtcd("../nodehost/", [
  "epochs_test.ts",
  "export_test.ts",
  "failures_test.ts",
  "faults_test.ts",
  "on_disk_test.ts",
  "propose_test.ts",
  "reads_test.ts",
  "refusal_test.ts",
  "sessions_test.ts",
  "skip_test.ts",
  "snapshots_test.ts",
  "stop_test.ts",
]);
