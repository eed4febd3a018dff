/**
 * URL of snapshots on S3, as it is written on a command line.
 *
 * This module needs Deno.
 *
 * @module
 */

import type { S3SnapshotStoreOptions } from "./s3_snapshot_store.ts";

/**
 * Parses the URL of a place for snapshots on S3:
 * `s3://bucket/prefix?endpoint=https://host&region=eu-central-1`. The prefix may be
 * left out; without `endpoint` it is that of Amazon for the region. Credentials are not
 * part of it.
 *
 * @throws TypeError if it is not such a URL
 */
export function parseS3URL(
  text: string,
): Pick<S3SnapshotStoreOptions, "bucket" | "endpoint" | "prefix" | "region"> {
  const url = URL.parse(text);
  const { searchParams: query } = url ?? new URL("s3://none");
  const others = [...query.keys()].filter((name) =>
    name !== "endpoint" && name !== "region"
  );
  if (
    url === null || url.protocol !== "s3:" || url.host === "" ||
    url.username !== "" || others.length > 0
  ) {
    throw new TypeError(
      `Snapshots are at "${
        text.replace(/\/\/.*@/, "//…@")
      }": give s3://bucket/prefix?endpoint=https://host&region=eu-central-1`,
    );
  }
  const region = query.get("region") ?? undefined;
  const prefix = url.pathname.replace(/^\/|\/$/g, "");
  return {
    bucket: url.host,
    endpoint: query.get("endpoint") ??
      `https://s3.${region ?? "us-east-1"}.amazonaws.com`,
    prefix: prefix === "" ? undefined : prefix,
    region,
  };
}
