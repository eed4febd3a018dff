/**
 * Import graph of the sources: which file imports which, type-only imports
 * included, and the circles in it.
 *
 * This module needs Deno.
 *
 * @module
 */

const ROOT = new URL("../../", import.meta.url);

function* modulesBelow(folder: string): Generator<string> {
  for (const { name, isDirectory } of Deno.readDirSync(new URL(folder, ROOT))) {
    if (isDirectory) yield* modulesBelow(`${folder}${name}/`);
    else if (/(?<!\.d)\.ts$/.test(name)) yield `${folder}${name}`;
  }
}

/** Paths that a module imports or re-exports, from the root, without its documentation's examples. */
function importsOf(path: string): string[] {
  const text = Deno.readTextFileSync(new URL(path, ROOT))
    .replace(/\/\*[\s\S]*?\*\//g, "");
  return [...text.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*"(\.[^"]+)"/g)]
    .map(([, specifier]) =>
      new URL(specifier!, new URL(path, ROOT)).pathname
        .slice(ROOT.pathname.length)
    );
}

/** Import graph of `mod.ts` and of everything below a folder. */
export function importGraph(folder = "src/"): Map<string, readonly string[]> {
  return new Map(
    ["mod.ts", ...modulesBelow(folder)].map((path) => [path, importsOf(path)]),
  );
}

/** Sets of two and more files that import each other, each sorted (Tarjan's strongly connected components). */
export function circlesIn(
  graph: ReadonlyMap<string, readonly string[]>,
): string[][] {
  const order = new Map<string, number>();
  const low = new Map<string, number>();
  const stack: string[] = [];
  const circles: string[][] = [];
  const visit = (path: string): void => {
    order.set(path, order.size);
    low.set(path, order.get(path)!);
    stack.push(path);
    for (const next of graph.get(path) ?? []) {
      if (!order.has(next)) visit(next);
      if (stack.includes(next)) {
        low.set(path, Math.min(low.get(path)!, low.get(next)!));
      }
    }
    if (low.get(path) !== order.get(path)) return;
    const circle = stack.splice(stack.indexOf(path)).sort();
    if (circle.length > 1) circles.push(circle);
  };
  for (const path of graph.keys()) if (!order.has(path)) visit(path);
  return circles;
}
