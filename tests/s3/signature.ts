/**
 * Comparison of the signature of a request to S3 with the one that Amazon's
 * documentation of signature version 4 prescribes.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { createHash, createHmac } from "node:crypto";

function hmac(key: string | Uint8Array, text: string): Uint8Array {
  return createHmac("sha256", key).update(text).digest();
}

/** Percent-encodes all but unreserved characters. */
function encoded(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

/** Fails if a request does not have the signature made with a secret, or its body another hash than it says. */
export async function verifySignature(
  request: Request,
  secret: string,
): Promise<void> {
  const { headers, method } = request;
  const url = new URL(request.url);
  const [, scope = "", names = "", signature] =
    /^AWS4-HMAC-SHA256 Credential=[^/]+\/([^,]+), SignedHeaders=([^,]+), Signature=([0-9a-f]{64})$/
      .exec(headers.get("authorization") ?? "") ?? [];
  const query = [...url.searchParams]
    .map(([name, value]) => `${encoded(name)}=${encoded(value)}`).sort();
  const lines = names.split(";").map((name) =>
    `${name}:${name === "host" ? url.host : headers.get(name)?.trim()}\n`
  );
  const body = new Uint8Array(await request.clone().arrayBuffer());
  const hash = createHash("sha256").update(body).digest("hex");
  assertEquals(headers.get("x-amz-content-sha256"), hash);
  const canonical = [
    method,
    decodeURIComponent(url.pathname).split("/").map(encoded).join("/"),
    query.join("&"),
    lines.join(""),
    names,
    hash,
  ].join("\n");
  const [date = "", region = "", service = "", end = ""] = scope.split("/");
  const text = [
    "AWS4-HMAC-SHA256",
    headers.get("x-amz-date"),
    scope,
    createHash("sha256").update(canonical).digest("hex"),
  ].join("\n");
  const key = [region, service, end].reduce<Uint8Array>(
    hmac,
    hmac(`AWS4${secret}`, date),
  );
  assertEquals(
    signature,
    createHmac("sha256", key).update(text).digest("hex"),
    `${method} ${url.href}`,
  );
}
