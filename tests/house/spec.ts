/**
 * Keeps `tests/spec.md`: under every rule and every case, the tests that carry
 * its id in their name. Run as a program, it updates the file.
 *
 * @module
 */

const TESTS = new URL("../", import.meta.url);
const CONFORMANCE = new URL("../../src/testing/", import.meta.url);

/** The specification. */
export const SPEC: URL = new URL("spec.md", TESTS);

/** A test, and the rules (`H12`) and cases (`case A2`) in its name. */
interface NamedTest {
  readonly ids: readonly string[];
  readonly name: string;
  readonly file: string;
}

const NAME =
  /(?:\b(?:test|testInMemory|add|worlds|caught|stepsOf)\(\s*|name:\s*|\.step\(\s*)(["`])((?:\\.|(?!\1)[^\\])*)\1/g;
const RULES = /^(?:[TRCDEFHMYU]\d+(?:[ ,/]+|: ))+/;
// Cases and rules share letters, so the name of a case begins with the word;
// the rules it is about follow in brackets, anywhere in the name.
const CASES = /^case ((?:[A-D]\d+(?:, ?)?)+): /;
const CITED_RULES = /\s*\[((?:[TRCDEFHMYU]\d+(?:, ?)?)+)\]/;

const idsIn = (text: string): string[] => text.match(/[A-Z]\d+/g) ?? [];

function* namesIn(text: string): Generator<{ ids: string[]; name: string }> {
  // A conformance suite has the rule of a case apart from its name.
  const named = text.replace(
    /rule: "([^"]+)",\s*name:\s*"/g,
    'name: "$1 ',
  );
  for (const [, , full] of named.matchAll(NAME)) {
    const cases = CASES.exec(full!);
    const head = cases?.[0] ?? RULES.exec(full!)?.[0];
    if (head === undefined) continue;
    const cited = cases === null ? null : CITED_RULES.exec(full!);
    yield {
      ids: cases === null ? idsIn(head) : [
        ...idsIn(cases[1]!).map((id) => `case ${id}`),
        ...idsIn(cited?.[1] ?? ""),
      ],
      name: full!.slice(head.length).replace(cited?.[0] ?? "", "")
        .replace(/\$\{[^}]*\}/g, "…"),
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

/** Every test that names a rule or a case: those of the project, and the cases that every store and log has to pass. */
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
  const byId = new Map<string, Map<string, string[]>>();
  for (const { ids, name, file } of namedTests()) {
    for (const id of ids) {
      const files = byId.get(id) ?? new Map<string, string[]>();
      byId.set(id, files);
      files.set(file, [...files.get(file) ?? [], name]);
    }
  }
  const lines: string[] = [];
  for (const line of spec.split("\n")) {
    if (/^ {2,}- /.test(line)) continue;
    lines.push(line);
    const id = /^- \*\*((?:case )?[A-Z]\d+)\*\*/.exec(line)?.[1];
    for (const [file, names] of byId.get(id ?? "") ?? []) {
      lines.push(`  - \`${file}\``);
      for (const name of new Set(names)) lines.push(`    - ${name}`);
    }
  }
  return lines.join("\n");
}

if (import.meta.main) {
  Deno.writeTextFileSync(SPEC, specWithTests(Deno.readTextFileSync(SPEC)));
}
