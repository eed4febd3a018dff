import { newSeed } from "../support/random.ts";
import { killRun } from "./kill.ts";

Deno.test("D5 a process killed under load loses no acknowledged command, and applies none twice", async () => {
  await killRun(5, newSeed());
});
