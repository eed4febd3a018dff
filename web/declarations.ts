/**
 * The types of a bundle, as declaration files.
 *
 * This module needs Deno.
 *
 * @module
 */

import ts from "typescript";
import { ROOT } from "./bundle.ts";

/** Relative import of a declaration file, in code, not in examples. */
const REFERENCE = /^(?! \*)(.*?(?:from |import\()")(\.[^"\n]+)\.ts"/gm;

/** A method with a symbol for a name, which the compiler lists as a property once more when it sees one module alone. */
const TWICE =
  /(?: +\/\*\*(?:(?!\*\/)[\s\S])*\*\/\n)? +(?:static )?\[Symbol\.\w+\]: .*=>.*;\n/g;

/** The declarations of one module. Every type is written where it is exported, so that one module suffices. */
export function declare(path: string, text: string): string {
  const { outputText, diagnostics = [] } = ts.transpileDeclaration(text, {
    fileName: path,
    reportDiagnostics: true,
    compilerOptions: {
      isolatedDeclarations: true,
      target: ts.ScriptTarget.ESNext,
    },
  });
  const [wrong] = diagnostics;
  if (wrong !== undefined) {
    const what = ts.flattenDiagnosticMessageText(wrong.messageText, "\n");
    throw new Error(`${path} cannot be declared: ${what}`);
  }
  return outputText.replace(TWICE, "");
}

/**
 * The declaration files of a bundle made of this module: `name.d.ts`, and below
 * `types/` one for each module it comes from. Path to content.
 */
export function declarations(name: string, text: string): Map<string, string> {
  const files = new Map<string, string>();
  const waiting: string[] = [];
  const add = (
    from: string,
    path: string,
    into: string,
    text: string,
  ): void => {
    const rewritten = declare(path, text).replaceAll(
      REFERENCE,
      (_, before: string, to: string) => {
        waiting.push(new URL(`${to}.ts`, new URL(path, ROOT)).href);
        // TypeScript finds the types beside a module that is not there, Deno by the comment.
        const specifier = to.replace(/^\.\//, from);
        return `// @ts-types="${specifier}.d.ts"\n${before}${specifier}.js"`;
      },
    );
    files.set(into, rewritten);
  };
  add("./types/", "entry.ts", `${name}.d.ts`, text);
  for (let url = waiting.pop(); url !== undefined; url = waiting.pop()) {
    const path = url.slice(ROOT.href.length);
    const into = `types/${path.replace(/\.ts$/, ".d.ts")}`;
    if (!files.has(into)) {
      add("./", path, into, Deno.readTextFileSync(new URL(url)));
    }
  }
  return files;
}
