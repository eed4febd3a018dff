import { assert, assertEquals } from "@std/assert";
import compat from "@mdn/browser-compat-data" with { type: "json" };
import ts from "typescript";
import { EXCEPTIONS, FLOORS, type Runtime, runtimesOf } from "./floors.ts";
import { openSources, type Sources } from "./program.ts";

let opened: Sources | undefined;

/** The sources, read once for all tests: that takes seconds. */
function sources(): Sources {
  return opened ??= openSources();
}

/** Every node of every source file, with the path of the file. */
function* nodes(): Generator<readonly [path: string, node: ts.Node]> {
  const { files, pathOf } = sources();
  for (const file of files) {
    const path = pathOf(file);
    const waiting: ts.Node[] = [file];
    for (let node = waiting.pop(); node !== undefined; node = waiting.pop()) {
      yield [path, node];
      ts.forEachChild(node, (child) => void waiting.push(child));
    }
  }
}

/** Compatibility data of one built-in. */
interface Compat {
  readonly __compat?: {
    readonly support: Partial<Record<Runtime, Support | readonly Support[]>>;
  };
}

interface Support {
  readonly "version_added": string | false;
  readonly flags?: unknown;
  readonly prefix?: string;
  readonly "version_removed"?: string;
}

type CompatTree = Readonly<Record<string, Readonly<Record<string, Compat>>>>;

const API = compat.api as unknown as CompatTree;
const BUILTINS = compat.javascript.builtins as unknown as CompatTree;

/** Interfaces of TypeScript's library that are aliases of entries in the data. */
const OWNERS: Readonly<Record<string, string>> = {
  Body: "Response",
  CallableFunction: "Function",
  NavigatorLocks: "Navigator",
  NavigatorStorage: "Navigator",
  ReadonlyArray: "Array",
  ReadonlyMap: "Map",
  ReadonlySet: "Set",
};

/** Built-in, with its name and its support in the data. */
interface Builtin {
  readonly name: string;
  readonly compat: Compat | undefined;
}

/** Returns the built-in that an identifier in code refers to, if any. */
function builtinAt(node: ts.Node): Builtin | undefined {
  if (!ts.isIdentifier(node)) return undefined;
  const symbol = sources().checker.getSymbolAtLocation(node);
  const declaration = symbol?.declarations?.find((one) =>
    /\/lib\.[^/]*\.d\.ts$/.test(one.getSourceFile().fileName)
  );
  if (symbol === undefined || declaration === undefined) return undefined;
  const { name } = symbol;
  const { parent } = declaration;
  if (ts.isInterfaceDeclaration(parent)) {
    const constructed = /^(\w+)Constructor$/.exec(parent.name.text)?.[1];
    const given = constructed ?? parent.name.text;
    const owner = OWNERS[given] ?? given;
    const typed = /^(?:Big)?(?:Uint|Int|Float)\d+Array$/.test(owner)
      ? BUILTINS["TypedArray"]?.[name]
      : undefined;
    return {
      name: `${owner}.${name}`,
      compat: BUILTINS[owner]?.[name] ?? typed ?? API[owner]?.[name],
    };
  }
  if (
    ts.isTypeLiteralNode(parent) && ts.isVariableDeclaration(parent.parent)
  ) {
    const owner = parent.parent.name.getText();
    return {
      name: `${owner}.${name}`,
      compat: API[owner]?.[`${name}_static`] ?? API[owner]?.[name],
    };
  }
  // A global; a type alone needs nothing at run time.
  if (!ts.isVariableDeclaration(declaration)) return undefined;
  const tree = (API[name] ?? BUILTINS[name]) as Compat | undefined;
  return { name, compat: tree ?? BUILTINS["globals"]?.[name] };
}

/** The first version of a runtime that has a built-in, without a flag or a prefix. */
function firstVersion(
  { __compat }: Compat,
  runtime: Runtime,
): number | undefined {
  const support = __compat?.support[runtime];
  if (support === undefined) return undefined;
  const versions = [support].flat()
    .filter(({ flags, prefix, ["version_removed"]: removed }) =>
      flags === undefined && prefix === undefined &&
      removed === undefined
    )
    .map(({ ["version_added"]: added }) =>
      added === false
        ? Infinity
        : Number.parseFloat(added.replace("≤", "")) || Infinity
    );
  return Math.min(Infinity, ...versions);
}

Deno.test("case B4: no built-in is newer than the stated floors, unless something makes up for it", () => {
  const known = new Set<string>();
  const excused = new Set<string>();
  const tooNew = new Set<string>();
  for (const [path, node] of nodes()) {
    const builtin = builtinAt(node);
    if (builtin?.compat?.__compat === undefined) continue;
    const { name, compat } = builtin;
    known.add(name);
    for (const runtime of runtimesOf(path, sources().isForDeno(path))) {
      const version = firstVersion(compat, runtime);
      if (version === undefined || version <= FLOORS[runtime]) continue;
      const exception = EXCEPTIONS.find(({ builtin, modules }) =>
        (name === builtin || name.startsWith(`${builtin}.`)) &&
        modules.test(path)
      );
      if (exception !== undefined) excused.add(exception.builtin);
      else {
        tooNew.add(
          `${
            sources().where(node)
          } uses ${name}, in ${runtime} from ${version}`,
        );
      }
    }
  }
  assert(known.size > 150, `Only ${known.size} built-ins were recognised`);
  assertEquals([...tooNew], []);
  assertEquals(
    EXCEPTIONS.map(({ builtin }) => builtin).filter((one) => !excused.has(one)),
    [],
    "Exceptions that nothing needs",
  );
});

Deno.test("case B4: Symbol.asyncDispose only names methods, and no stream is iterated", () => {
  const { checker, where } = sources();
  const found: string[] = [];
  for (const [path, node] of nodes()) {
    if (!runtimesOf(path, sources().isForDeno(path)).includes("safari")) {
      continue;
    }
    if (
      ts.isPropertyAccessExpression(node) &&
      node.getText() === "Symbol.asyncDispose" &&
      !ts.isComputedPropertyName(node.parent) &&
      // The conformance suites call it as a runtime would.
      !path.endsWith("_conformance.ts")
    ) found.push(`${where(node)} uses Symbol.asyncDispose`);
    if (ts.isForOfStatement(node) && node.awaitModifier !== undefined) {
      const type = checker.getTypeAtLocation(node.expression);
      // Safari and WebKitGTK cannot iterate them.
      if (type.symbol?.name === "ReadableStream") {
        found.push(`${where(node)} iterates a stream`);
      }
    }
  }
  assertEquals(found, []);
});

/** Built-ins that pages over plain http lack, other than on localhost. */
const SECURE_ONLY: ReadonlySet<string> = new Set([
  "Crypto.randomUUID",
  "Crypto.subtle",
  "NavigatorLocks.locks",
  "Navigator.locks",
  "Navigator.storage",
  "Navigator.serviceWorker",
  "caches",
]);

Deno.test("case B4, B5: only what stores on the device needs a secure context", () => {
  const found: string[] = [];
  const known = new Set<string>();
  for (const [path, node] of nodes()) {
    if (!runtimesOf(path, sources().isForDeno(path)).includes("safari")) {
      continue;
    }
    const name = builtinAt(node)?.name;
    if (name === undefined || !SECURE_ONLY.has(name)) continue;
    known.add(name);
    // The stores there say what is missing, and pages run on memory instead.
    if (/^src\/(indexeddb|tabs)\/|^src\/inspector\/storage/.test(path)) {
      continue;
    }
    found.push(`${sources().where(node)} uses ${name}`);
  }
  assert(known.size > 1);
  assertEquals(found, []);
});

/** True if a value of this type may be a promise. */
function mayBePromise(type: ts.Type): boolean {
  return (type.isUnion() ? type.types : [type]).some((one) => {
    if ((one.flags & ts.TypeFlags.Any) !== 0) return false;
    const then = one.getProperty("then");
    return then !== undefined && one.getProperty("catch") !== undefined;
  });
}

/** True if a rejection of what this expression evaluates to is handled in it. */
function handlesRejection(node: ts.Expression): boolean {
  if (ts.isParenthesizedExpression(node) || ts.isVoidExpression(node)) {
    return handlesRejection(node.expression);
  }
  if (!ts.isCallExpression(node)) return false;
  const { expression, arguments: given } = node;
  if (!ts.isPropertyAccessExpression(expression)) return false;
  const method = expression.name.text;
  return method === "catch" || (method === "then" && given.length === 2) ||
    (method === "finally" && handlesRejection(expression.expression));
}

/** Comment before a statement whose promise cannot reject, with the reason. */
const NEVER_REJECTS = /\/\/ Never rejects: \S/;

/** Operators that keep a promise for code that awaits it later. */
const ASSIGNMENTS: ReadonlySet<ts.SyntaxKind> = new Set([
  ts.SyntaxKind.EqualsToken,
  ts.SyntaxKind.QuestionQuestionEqualsToken,
]);

Deno.test("no promise is left floating", () => {
  const { checker, where } = sources();
  const found: string[] = [];
  let statements = 0;
  for (const [, node] of nodes()) {
    if (!ts.isExpressionStatement(node)) continue;
    statements++;
    const { expression } = node;
    if (ts.isAwaitExpression(expression) || handlesRejection(expression)) {
      continue;
    }
    if (
      ts.isBinaryExpression(expression) &&
      ASSIGNMENTS.has(expression.operatorToken.kind)
    ) continue;
    const inner = ts.isVoidExpression(expression)
      ? expression.expression
      : expression;
    if (!mayBePromise(checker.getTypeAtLocation(inner))) continue;
    const before = node.getFullText().slice(0, node.getLeadingTriviaWidth());
    if (NEVER_REJECTS.test(before)) continue;
    found.push(`${where(node)} ${node.getText().split("\n")[0]}`);
  }
  assert(statements > 1000);
  assertEquals(
    found,
    [],
    "Await them, handle their rejection, or say why they never reject: // Never rejects: …",
  );
});
