/**
 * Checks of the language in which the sources are written: how doc comments
 * open, banned words, error messages without a value or name.
 *
 * Run by hand it prints the findings below the given paths:
 * `deno run -R tests/house/language.ts src/log`.
 *
 * This module needs Deno.
 *
 * @module
 */

import ts from "typescript";

const ROOT = new URL("../../", import.meta.url);

/** First words with which no doc comment opens. */
const RELATIVE =
  /^(What|Whether|Who|Whose|Whom|Where|How|Why|It|That|Those|Told|As|Which)\b/;

/** Fewest characters of a doc comment. */
const DOC_LENGTH_MIN = 12;

/** Words and phrases that have a standard term, or that are calques. */
const BANNED: readonly RegExp[] = [
  /\bis none\b/i,
  /\bbe it\b/i,
  /\banew\b/i,
  /\b(?:come|comes|came|coming) again\b/i,
  /\bfrom afar\b/i,
  /\bas whom\b/i,
  /\bwho waits\b/i,
  /\bfor good\b/i,
  /\bis to be\b/i,
  /\btells? of\b/i,
  /\bmeanwhile\b/i,
  /\b(?:some|no|every)body\b/i,
  /\bwho(?:m)?ever\b/i,
];

/** One thing found, with its position as `path:line`. */
export interface LanguageFinding {
  readonly where: string;
  readonly text: string;
}

/** Paths below a folder, or the path itself, that end in `.ts` or `.md`. */
function* filesAt(path: string): Generator<string> {
  if (!Deno.statSync(new URL(path, ROOT)).isDirectory) {
    yield path;
    return;
  }
  const folder = path.replace(/\/?$/, "/");
  for (const { name, isDirectory } of Deno.readDirSync(new URL(folder, ROOT))) {
    if (isDirectory) yield* filesAt(`${folder}${name}`);
    else if (/(?<!\.d)\.tsx?$|\.md$/.test(name)) yield `${folder}${name}`;
  }
}

/** First banned phrase of a text, undefined if there is no such phrase. */
function bannedIn(text: string): string | undefined {
  const oneLine = text.replace(/\s*\n\s*(?:\*|\/\/)?\s*/g, " ");
  for (const banned of BANNED) {
    const found = banned.exec(oneLine);
    if (found !== null) return found[0];
  }
  return undefined;
}

/** Text of a doc comment without its stars. */
function docText(comment: string): string {
  return comment.slice(3, -2).replace(/^\s*\* ?/gm, "").trim();
}

/** True if a constant message names nothing: no value, no identifier, no number. */
function isBare(message: string): boolean {
  return !/[a-z][A-Z]|[A-Z]{2}|\(|`|\d|\.\w/.test(message);
}

/** Reports what breaks the rules of language in one module. */
function findInModule(path: string, text: string): LanguageFinding[] {
  const file = ts.createSourceFile(
    path,
    text,
    ts.ScriptTarget.ESNext,
    true,
  );
  const findings: LanguageFinding[] = [];
  const add = (at: number, what: string): void => {
    const { line } = file.getLineAndCharacterOfPosition(at);
    findings.push({ where: `${path}:${line + 1}`, text: what });
  };
  const seen = new Set<number>();
  const lookAtComments = (node: ts.Node): void => {
    const ranges = [
      ...ts.getLeadingCommentRanges(text, node.pos) ?? [],
      ...ts.getTrailingCommentRanges(text, node.end) ?? [],
    ];
    for (const { pos, end } of ranges) {
      if (seen.has(pos)) continue;
      seen.add(pos);
      const comment = text.slice(pos, end);
      const banned = bannedIn(comment);
      if (banned !== undefined) add(pos, `uses "${banned}"`);
      if (!comment.startsWith("/**")) continue;
      const doc = docText(comment);
      const opening = RELATIVE.exec(doc);
      if (opening !== null) {
        add(pos, `doc comment opens with "${opening[0]}"`);
      }
      if (doc.length < DOC_LENGTH_MIN) {
        add(pos, `doc comment is too short: "${doc}"`);
      }
    }
  };
  const visit = (node: ts.Node): void => {
    lookAtComments(node);
    if (
      ts.isStringLiteral(node) || ts.isNoSubstitutionTemplateLiteral(node) ||
      ts.isTemplateHead(node) || ts.isTemplateMiddle(node) ||
      ts.isTemplateTail(node)
    ) {
      const banned = bannedIn(node.text);
      if (banned !== undefined) add(node.getStart(), `uses "${banned}"`);
    }
    if (ts.isNewExpression(node) || isSuperCall(node)) {
      const [message] = node.arguments ?? [];
      const isError = ts.isNewExpression(node)
        ? /^Err[A-Z]\w*$|Error$/.test(node.expression.getText())
        : true;
      if (
        isError && message !== undefined && ts.isStringLiteral(message) &&
        message.text.includes(" ") && isBare(message.text)
      ) {
        add(message.getStart(), `error names nothing: "${message.text}"`);
      }
    }
    // Tokens too: a comment may be the last thing in a block.
    for (const child of node.getChildren(file)) visit(child);
  };
  visit(file);
  return findings;
}

function isSuperCall(node: ts.Node): node is ts.CallExpression {
  return ts.isCallExpression(node) &&
    node.expression.kind === ts.SyntaxKind.SuperKeyword;
}

/** Reports what breaks the rules of language in one page of prose. */
function findInProse(path: string, text: string): LanguageFinding[] {
  return text.split("\n").flatMap((line, i) => {
    const banned = bannedIn(line);
    return banned === undefined
      ? []
      : [{ where: `${path}:${i + 1}`, text: `uses "${banned}"` }];
  });
}

/** Reports what breaks the rules of language below a path, from the root of the project. */
export function findLanguage(path: string): LanguageFinding[] {
  return [...filesAt(path)].flatMap((each) => {
    const text = Deno.readTextFileSync(new URL(each, ROOT));
    return each.endsWith(".md")
      ? findInProse(each, text)
      : findInModule(each, text);
  });
}

if (import.meta.main) {
  const findings = Deno.args.flatMap(findLanguage);
  const lines = findings.map(({ where, text }) => `${where}: ${text}`);
  lines.push(`${findings.length} found`, "");
  Deno.stdout.writeSync(new TextEncoder().encode(lines.join("\n")));
}
