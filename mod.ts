export * from "./src/statemachine/mod.ts";
