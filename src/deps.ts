/**
 * The one place that names an npm package for `src/`.
 *
 * @module
 */

export * as fc from "npm:fast-check@4.10.2";
export { promisifyRequest, type UseStore } from "npm:idb-keyval@6.3.0";
export { decode, encode } from "npm:@msgpack/msgpack@3.1.3";
export * as otel from "npm:@opentelemetry/api@1.9.0";
