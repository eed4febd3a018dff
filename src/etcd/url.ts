/**
 * URL of an etcd cluster, as it is written on a command line.
 *
 * This module needs Deno.
 *
 * @module
 */

import type { EtcdLogOptions } from "./etcd_log_db.ts";

/**
 * Parses the URL of an etcd cluster: `etcd://user:password@host:2379,host:2379/prefix`,
 * where user, further hosts and prefix may be left out; `etcds` for TLS.
 *
 * @throws TypeError if it is not such a URL
 */
export function parseEtcdURL(
  url: string,
): Pick<EtcdLogOptions, "endpoints" | "prefix" | "user"> {
  const match = /^etcd(s?):\/\/(?:([^:@/]+):([^@/]*)@)?([^@/]+)(?:\/(.+?))?\/?$/
    .exec(url);
  if (match === null) {
    throw new TypeError(
      `Log is "${
        url.replace(/\/\/.*@/, "//…@")
      }": give etcd://host:2379,host:2379/prefix`,
    );
  }
  const [, secure, name, password = "", hosts = "", prefix] = match;
  return {
    endpoints: hosts.split(",").map((host) => `http${secure}://${host}`),
    prefix,
    user: name === undefined ? undefined : {
      name: decodeURIComponent(name),
      password: decodeURIComponent(password),
    },
  };
}
