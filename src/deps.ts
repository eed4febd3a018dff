/**
 * The one place that names an npm package for `src/`.
 *
 * @module
 */

export * as fc from "npm:fast-check@4.10.2";
