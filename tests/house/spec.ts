/**
 * Keeps `tests/spec.md`: under every rule, the tests that carry it in their
 * name. Run as a program, it writes the file anew.
 *
 * @module
 */

const TESTS = new URL("../", import.meta.url);
const CONFORMANCE = new URL("../../src/testing/", import.meta.url);

/** The specification. */
export const SPEC: URL = new URL("spec.md", TESTS);

/** A test and the rules in its name. */
interface NamedTest {
  readonly rules: readonly string[];
  readonly name: string;
  readonly file: string;
}

const NAME =
  /(?:\b(?:test|add|simulate)\(\s*|name:\s*|\.step\(\s*)(["`])((?:\\.|(?!\1)[^\\])*)\1/g;
const RULES = /^(?:[TRCDEFHU]\d+[ ,/]+)+/;

function* namesIn(text: string): Generator<{ rules: string[]; name: string }> {
  for (const [, , full] of text.matchAll(NAME)) {
    const head = RULES.exec(full!)?.[0];
    if (head === undefined) continue;
    yield {
      rules: head.match(/[A-Z]\d+/g)!,
      name: full!.slice(head.length).replace(/\$\{[^}]*\}/g, "…"),
    };
  }
}

function* filesIn(folder: URL, suffix: string): Generator<URL> {
  const entries = [...Deno.readDirSync(folder)].sort((a, b) =>
    a.name < b.name ? -1 : 1
  );
  for (const { name, isDirectory } of entries) {
    if (isDirectory) yield* filesIn(new URL(`${name}/`, folder), suffix);
    else if (name.endsWith(suffix)) yield new URL(name, folder);
  }
}

/** Every test that names a rule: those of the project, and the cases that every store and log has to pass. */
export function namedTests(): NamedTest[] {
  const found: NamedTest[] = [];
  for (
    const file of [
      ...filesIn(TESTS, "_test.ts"),
      ...filesIn(CONFORMANCE, "_conformance.ts"),
      // Run by Deno over a twin, and by the three browsers.
      ...["life_cycle.ts", "hosts.ts", "machines.ts"].map((name) =>
        new URL(`indexeddb/${name}`, TESTS)
      ),
    ]
  ) {
    const text = Deno.readTextFileSync(file);
    const name = file.pathname.slice(
      new URL("../../", import.meta.url).pathname.length,
    );
    for (const test of namesIn(text)) found.push({ ...test, file: name });
  }
  return found;
}

/** The specification with the tests under each rule, as they are now. */
export function specWithTests(spec: string): string {
  const byRule = new Map<string, Map<string, string[]>>();
  for (const { rules, name, file } of namedTests()) {
    for (const rule of rules) {
      const files = byRule.get(rule) ?? new Map<string, string[]>();
      byRule.set(rule, files);
      files.set(file, [...files.get(file) ?? [], name]);
    }
  }
  const lines: string[] = [];
  for (const line of spec.split("\n")) {
    if (/^ {2,}- /.test(line)) continue;
    lines.push(line);
    const rule = /^- \*\*([A-Z]\d+)\*\*/.exec(line)?.[1];
    for (const [file, names] of byRule.get(rule ?? "") ?? []) {
      lines.push(`  - \`${file}\``);
      for (const name of new Set(names)) lines.push(`    - ${name}`);
    }
  }
  return lines.join("\n");
}

if (import.meta.main) {
  Deno.writeTextFileSync(SPEC, specWithTests(Deno.readTextFileSync(SPEC)));
}
