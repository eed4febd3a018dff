/**
 * Bound on the work of code that is written on the page: a call is inserted into each
 * loop and function, which throws after too many rounds. Counted rather than timed,
 * so that a run that is repeated ends in the same way.
 *
 * Not counted are loops inside of the platform's own functions.
 *
 * @module
 */

/** Largest number of rounds of loops and functions in one call. */
export const ROUNDS_MAX = 100_000;

/** Names that the inserted calls have. */
export const ROUND = "$round";
export const EACH = "$each";

/** Words before a `(` that has no parameters of a function after it. */
const BEFORE_HEAD = new Set("catch for if switch while with".split(" "));

/** Words before which a `/` begins a regular expression. */
const BEFORE_REGEX = new Set(
  "await case delete do else in instanceof new of return throw typeof void yield"
    .split(" "),
);

/** Bracket that is open. */
interface Bracket {
  readonly open: "(" | "[" | "{" | "${";
  /** Set for the head of a loop. */
  readonly loop?: "while" | "for";
  /** True for the parameters of a function, or the arguments of a call. */
  readonly isParameters?: boolean;
  /** Number of semicolons directly within. */
  semicolons: number;
  /** True if something is between the last semicolon and here. */
  isFilled: boolean;
  /** True for the head of `for … of`. */
  isEach: boolean;
}

/** Reader of source text that finds where to insert calls. */
class Scanner {
  readonly #code: string;
  readonly #stack: Bracket[] = [];
  readonly #parts: string[] = [];
  /** Offset up to which the code was copied. */
  #copied = 0;
  #at = 0;
  /** Last token that was read, apart from white space and comments. */
  #before = "";
  #loop: "while" | "for" | undefined;
  /** True if the next brace begins the body of a function. */
  #isBody = false;
  readonly #hasArrows: boolean;

  constructor(code: string, hasArrows: boolean) {
    this.#code = code;
    this.#hasArrows = hasArrows;
  }

  guarded(): string {
    while (this.#at < this.#code.length) this.#next();
    this.#insert("");
    return this.#parts.join("");
  }

  /** Inserts a text before the present offset. */
  #insert(text: string): void {
    this.#parts.push(this.#code.slice(this.#copied, this.#at), text);
    this.#copied = this.#at;
  }

  /** Matches an expression with the flag `y` at the present offset, and goes past it. */
  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const [found] = pattern.exec(this.#code) ?? [];
    if (found !== undefined) this.#at += found.length;
    return found;
  }

  #next(): void {
    if (this.#match(/\s+|\/\/[^\n]*|\/\*[^]*?\*\//y) !== undefined) return;
    if (
      this.#hasArrows && this.#before === "=>" && this.#code[this.#at] !== "{"
    ) this.#insert(`${ROUND}() || `);
    const top = this.#stack.at(-1);
    const word = this.#match(/[\w$\u0080-\uffff]+/y);
    if (word !== undefined) this.#word(word, top);
    else if (this.#match(/"(?:\\[^]|[^"\\])*"|'(?:\\[^]|[^'\\])*'/y)) {
      this.#token('""');
    } else if (this.#code[this.#at] === "`") this.#template();
    else if (
      this.#isRegexNext &&
      this.#match(/\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\[\n])+\/\w*/y)
    ) this.#token("/re/");
    else this.#sign(this.#match(/=>|\?\.|\+\+|--|[^]/y)!, top);
    if (top !== undefined && this.#before !== ";") top.isFilled = true;
  }

  get #isRegexNext(): boolean {
    const before = this.#before;
    if (/^[\w$\u0080-\uffff]/.test(before)) return BEFORE_REGEX.has(before);
    return ![")", "]", "}", '""', "/re/", "++", "--"].includes(before);
  }

  /** Notes a token that is neither a loop nor the body of a function. */
  #token(text: string): void {
    this.#before = text;
    this.#isBody = false;
  }

  #word(word: string, top: Bracket | undefined): void {
    const before = this.#before;
    this.#token(word);
    // The head of a loop follows its word.
    this.#loop = undefined;
    if (before === "." || before === "?.") return;
    if (word === "while" || word === "for") this.#loop = word;
    else if (
      word === "of" && top?.loop === "for" && top.semicolons === 0 &&
      !["(", "const", "let", "var"].includes(before)
    ) {
      top.isEach = true;
      this.#insert(` ${EACH}(`);
    }
  }

  /** Goes to the end of a template, or to the next expression in it. */
  #template(): void {
    const text = this.#match(/[`}](?:\\[^]|\$(?!\{)|[^`\\$])*(?:`|\$\{)/y);
    if (text === undefined) return this.#sign(this.#match(/[^]/y)!, undefined);
    if (text.endsWith("${")) this.#push("${");
    this.#token(text.endsWith("${") ? "(" : '""');
  }

  #push(open: Bracket["open"], more: Partial<Bracket> = {}): void {
    const fresh = { semicolons: 0, isFilled: false, isEach: false };
    this.#stack.push({ open, ...fresh, ...more });
  }

  #sign(sign: string, top: Bracket | undefined): void {
    const before = this.#before;
    const isBody = this.#isBody;
    this.#token(sign);
    if (sign !== "(") this.#loop = undefined;
    if (sign === "=>") this.#isBody = true;
    else if (sign === ";" && top?.open === "(") {
      top.semicolons++;
      top.isFilled = false;
    } else if (sign === "(") this.#open(before);
    else if (sign === "[") this.#push("[");
    else if (sign === "{") {
      this.#push("{");
      if (isBody) this.#insert(`${ROUND}();`);
    } else if (sign === ")") this.#close();
    else if (sign === "]") this.#stack.pop();
    else if (sign === "}") {
      this.#stack.pop();
      if (top?.open !== "${") return;
      this.#at--;
      this.#template();
    }
  }

  #open(before: string): void {
    const loop = this.#loop;
    this.#push("(", {
      ...(loop === undefined ? {} : { loop }),
      // After those of a call there is no brace.
      isParameters: !BEFORE_HEAD.has(before),
    });
    this.#loop = undefined;
    if (loop === "while") this.#insert(`${ROUND}(), `);
  }

  #close(): void {
    const top = this.#stack.pop();
    if (top === undefined) return;
    this.#isBody = top.isParameters === true;
    this.#at--;
    if (top.isEach) this.#insert(")");
    else if (top.loop === "for" && top.semicolons === 2) {
      this.#insert(top.isFilled ? `, ${ROUND}()` : `${ROUND}()`);
    }
    this.#at++;
  }
}

/**
 * Code with a call of `$round()` in each round of its loops and in each of its
 * functions, and `$each()` around what `for … of` goes through. Where the body of an
 * arrow function is an assignment or another arrow function, the code is not valid
 * any more with `hasArrows`, and arrow functions without braces are not counted
 * without it.
 */
export function countRounds(code: string, hasArrows: boolean): string {
  return new Scanner(code, hasArrows).guarded();
}
