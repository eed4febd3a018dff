/**
 * The npm package `cli-progress`: progress bars on a terminal.
 *
 * This module needs Deno.
 *
 * @module
 */

// @ts-types="./cli_progress.d.ts"
export { SingleBar } from "npm:cli-progress@3.12.0";
