/**
 * Parts that all HTTP responses of a server share.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SERVER_HEADER } from "../transport.ts";
import type { OriginPolicy } from "./origin_policy.ts";

/** Headers of a response in plain text. */
export const TEXT = { "content-type": "text/plain; charset=utf-8" } as const;

const HOST = /^(?:\[[\da-f:.]+\]|[\w.~!$&'()*+;=%-]+)(?::\d{0,5})?$/i;

/** URL of a request; undefined if its target or its `Host` header is malformed, or the two differ. */
export function urlOf(request: Request): URL | undefined {
  const url = URL.parse(request.url);
  if (url === null || url.username !== "" || url.password !== "") {
    return undefined;
  }
  // HTTP/2 and HTTP/1.0 requests may have no Host header.
  const host = request.headers.get("host");
  if (host === null) return url;
  // A slash in the header would change the path.
  if (!HOST.test(host)) return undefined;
  return URL.parse(`${url.protocol}//${host}`)?.host === url.host
    ? url
    : undefined;
}

/** Response headers that a page of another origin may read. */
const EXPOSED = [
  SERVER_HEADER,
  "allow",
  "content-disposition",
  "content-length",
  "retry-after",
  "www-authenticate",
].join(", ");

/** Adds the headers that let a permitted page of another origin read a response (CORS), and keep it out of caches. */
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

/** Response to a method that a path does not support; to OPTIONS, the methods it supports. */
export function methodNotAllowed(
  { method }: Request,
  methods: readonly string[],
): Response {
  const allow = [...methods, "OPTIONS"].join(", ");
  if (method !== "OPTIONS") {
    return new Response(
      `Method ${method} is not supported here; use ${allow}\n`,
      {
        status: 405,
        headers: { ...TEXT, allow },
      },
    );
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
