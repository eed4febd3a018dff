/**
 * Runner of the mutants: worlds over a copy of the code with one deliberate fault,
 * until an oracle notices.
 *
 * @module
 */

import { WorldRunner } from "../worker.ts";
import { type Mutant, MUTANTS, SURVIVORS } from "./mutants.ts";

/** Parts of the tree that a process which runs worlds needs. */
export const PARTS: readonly string[] = [
  "deno.json",
  "import_map.json",
  "mod.ts",
  "src",
  "tests/bench/report.ts",
  "tests/deno.lock",
  "tests/machines",
  "tests/sim",
  "tests/std",
  "tests/support",
  "tests/tabs",
];

/** Totals of a run over mutants. */
export interface MutantTotals {
  readonly killed: number;
  readonly total: number;
  /** True if a mutant survived that is not listed as a survivor. */
  readonly isWeaker: boolean;
}

/** Applies a mutant to the text of its file; fails unless the text to be replaced is there exactly once. */
export function mutated(
  text: string,
  { name, file, find, replace }: Mutant,
): string {
  const parts = text.split(find);
  if (parts.length !== 2) {
    throw new Error(
      `Mutant "${name}" replaces a text that is ${
        parts.length - 1
      } times in ${file}, not once:\n${find}`,
    );
  }
  return parts.join(replace);
}

async function copy(from: URL, to: URL): Promise<void> {
  const { isDirectory } = await Deno.stat(from);
  if (!isDirectory) {
    await Deno.mkdir(new URL(".", to), { recursive: true });
    return await Deno.copyFile(from, to);
  }
  for await (const { name } of Deno.readDir(from)) {
    await copy(new URL(`${from}/${name}`), new URL(`${to}/${name}`));
  }
}

/** Copies the parts, and checks that a world of the copied code runs: otherwise each mutant would seem to be killed. */
async function copyParts(root: URL, copied: URL): Promise<void> {
  for (const part of PARTS) {
    await copy(new URL(part, root), new URL(part, copied));
  }
  const runner = new WorldRunner(copied);
  const [violation] = (await runner.run({ seed: 1 })).violations;
  await runner.stop();
  if (violation === undefined) return;
  throw new Error(
    `World 1 fails in a copy of the code without a mutant: ${violation.oracle}: ${violation.text}`,
  );
}

/** Runs the worlds of one mutant; returns what killed it. */
async function kill(
  root: URL,
  copied: URL,
  mutant: Mutant,
): Promise<string | undefined> {
  const file = new URL(mutant.file, copied);
  const text = await Deno.readTextFile(file);
  await Deno.writeTextFile(file, mutated(text, mutant));
  const runner = new WorldRunner(copied);
  try {
    for (let seed = 1; seed <= mutant.seeds; seed++) {
      const { changes } = mutant;
      const job = { seed, ...changes === undefined ? {} : { changes } };
      const [violation] = (await runner.run(job)).violations;
      if (violation === undefined) continue;
      const healthy = new WorldRunner(root);
      const { violations: others } = await healthy.run(job);
      await healthy.stop();
      // Another fault, or none of the code's.
      if (others.length > 0) continue;
      return `by ${violation.oracle} at seed ${seed}: ${
        violation.text.split("\n")[0]!.slice(0, 160)
      }`;
    }
    return undefined;
  } finally {
    await runner.stop();
    await Deno.writeTextFile(file, text);
  }
}

/** Runs all mutants, or those with a text in their names. */
export async function runMutants(
  root: URL,
  jobs: number,
  print: (text: string) => void,
  only?: string,
): Promise<MutantTotals> {
  const queue = MUTANTS.filter(({ name }) =>
    only === undefined || name.includes(only)
  );
  const total = queue.length;
  if (total === 0) throw new RangeError(`No mutant has "${only}" in its name`);
  let killed = 0;
  let isWeaker = false;
  await Promise.all(
    Array.from({ length: Math.max(1, jobs) }, async () => {
      const folder = await Deno.makeTempDir({ prefix: "sampan-mutants-" });
      try {
        const copied = new URL(`file://${folder}/`);
        await copyParts(root, copied);
        for (let mutant = queue.shift(); mutant; mutant = queue.shift()) {
          const how = await kill(root, copied, mutant);
          if (how !== undefined) killed++;
          else if (!SURVIVORS.has(mutant.name)) isWeaker = true;
          print(
            `${mutant.name}: ${
              how === undefined
                ? `survives ${mutant.seeds} seeds`
                : `killed ${how}`
            }`,
          );
        }
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    }),
  );
  return { killed, total, isWeaker };
}
