// The modules of @std/assert as npm carries them, for places where only npm is in
// reach. Remove `links` from the root deno.json to use the registry's own.
// @ts-types="./mod.d.ts"
export * from "npm:deno-std@1.4.0/assert/mod.js";
