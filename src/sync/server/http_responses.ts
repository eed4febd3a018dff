/**
 * Parts that all of a server's answers over HTTP have in common.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SERVER_HEADER } from "../transport.ts";
import type { OriginPolicy } from "./origin_policy.ts";

/** Header of an answer in plain text. */
export const TEXT = { "content-type": "text/plain; charset=utf-8" } as const;

const HOST = /^(?:\[[\da-f:.]+\]|[\w.~!$&'()*+;=%-]+)(?::\d{0,5})?$/i;

/** The address of a request; undefined if its target or its `Host` is malformed, or the two differ. */
export function urlOf(request: Request): URL | undefined {
  const url = URL.parse(request.url);
  if (url === null || url.username !== "" || url.password !== "") {
    return undefined;
  }
  // HTTP/2 has none, nor need HTTP/1.0 have one.
  const host = request.headers.get("host");
  if (host === null) return url;
  // A slash in it would make the path another one.
  if (!HOST.test(host)) return undefined;
  return URL.parse(`${url.protocol}//${host}`)?.host === url.host
    ? url
    : undefined;
}

/** Headers of answers that a page of another origin may read. */
const EXPOSED = [
  SERVER_HEADER,
  "allow",
  "content-disposition",
  "content-length",
  "retry-after",
  "www-authenticate",
].join(", ");

/** Lets a page of another origin read an answer, if it may talk to the server, and no cache keep it. */
export function share(
  response: Response,
  request: Request,
  origins: OriginPolicy,
): Response {
  const { headers } = response;
  headers.set("vary", "origin");
  headers.set("cache-control", "no-store");
  const origin = request.headers.get("origin");
  if (origin === null || !origins.allow(request)) return response;
  headers.set("access-control-allow-origin", origin);
  headers.set("access-control-allow-credentials", "true");
  headers.set("access-control-expose-headers", EXPOSED);
  return response;
}

/** Answer to a method that a path does not have; to OPTIONS, which methods it has. */
export function methodNotAllowed(
  { method }: Request,
  methods: readonly string[],
): Response {
  const allow = [...methods, "OPTIONS"].join(", ");
  if (method !== "OPTIONS") {
    return new Response(`Method ${method} is not known here; use ${allow}\n`, {
      status: 405,
      headers: { ...TEXT, allow },
    });
  }
  return new Response(null, {
    status: 204,
    headers: {
      allow,
      "access-control-allow-methods": methods.join(", "),
      "access-control-allow-headers": "authorization, content-type",
      "access-control-max-age": "600",
    },
  });
}
