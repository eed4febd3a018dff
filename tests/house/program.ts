/**
 * The sources as the TypeScript compiler sees them, for checks that need types.
 *
 * This module needs Deno.
 *
 * @module
 */

import ts from "typescript";

const ROOT = new URL("../../", import.meta.url);

/** Sources of the project, with their types. */
export interface Sources {
  /** Modules of `src/`, and `mod.ts`. */
  readonly files: readonly ts.SourceFile[];
  /** Resolves the types of expressions. */
  readonly checker: ts.TypeChecker;
  /** True if the module at a path says that it needs Deno, or Deno or Node. */
  isForDeno(path: string): boolean;
  /** Path of a file, from the root. */
  pathOf(file: ts.SourceFile): string;
  /** Position of a node, as `path:line`. */
  where(node: ts.Node): string;
}

/** The modules below a folder, as paths from the root. */
function* modules(folder: string): Generator<string> {
  for (const { name, isDirectory } of Deno.readDirSync(new URL(folder, ROOT))) {
    if (isDirectory) yield* modules(`${folder}${name}/`);
    else if (name.endsWith(".ts")) yield `${folder}${name}`;
  }
}

/** Reads and resolves all of `src/`. */
export function openSources(): Sources {
  const root = decodeURIComponent(ROOT.pathname);
  const program = ts.createProgram(
    ["mod.ts", ...modules("src/")].map((path) => root + path),
    {
      allowImportingTsExtensions: true,
      exactOptionalPropertyTypes: true,
      lib: [
        "lib.esnext.d.ts",
        "lib.dom.d.ts",
        "lib.dom.iterable.d.ts",
        "lib.dom.asynciterable.d.ts",
      ],
      module: ts.ModuleKind.ESNext,
      moduleResolution: ts.ModuleResolutionKind.Bundler,
      noEmit: true,
      strict: true,
      target: ts.ScriptTarget.ESNext,
      types: [],
    },
  );
  return {
    files: program.getSourceFiles().filter(({ fileName }) =>
      fileName.startsWith(root) && !fileName.endsWith(".d.ts")
    ),
    checker: program.getTypeChecker(),
    isForDeno: (path) =>
      /This module needs Deno(?: or Node)?\./.test(
        program.getSourceFile(root + path)!.text,
      ),
    pathOf: ({ fileName }) => fileName.slice(root.length),
    where(node): string {
      const file = node.getSourceFile();
      const { line } = file.getLineAndCharacterOfPosition(node.getStart());
      return `${file.fileName.slice(root.length)}:${line + 1}`;
    },
  };
}
