/**
 * The npm package `aws4fetch`: signatures of requests to S3.
 *
 * This module needs Deno.
 *
 * @module
 */

export { AwsClient } from "npm:aws4fetch@1.0.20";
