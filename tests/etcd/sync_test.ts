/** The tests of the sync server that take a log, on etcd. */

import { importOnEtcd } from "./suites.ts";

await importOnEtcd("../sync/", [
  "demands_test.ts",
  "server_http_test.ts",
  "server_options_test.ts",
  "server_socket_test.ts",
]);
