/**
 * Elements made in one call, and lists whose rows are reused.
 *
 * Needs a page once it is used.
 * This module is browser compatible.
 *
 * @module
 */

/** Properties of an element, and attributes whose names have a dash. */
type Properties<T> = Partial<Omit<T, "style" | "children">> & {
  readonly [attribute: `${string}-${string}`]: string;
};

/** Creates an element. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Properties<HTMLElementTagNameMap[K]> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) element.setAttribute(name, value as string);
    else (element as unknown as Record<string, unknown>)[name] = value;
  }
  element.append(...children);
  return element;
}

/** Sets the text of an element, if it is another one: what does not change is not announced again. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** List whose rows are created once for each key: a key has to name all that a row shows. */
export class KeyedList<T> {
  /** Element with the rows. */
  readonly element: HTMLElement;
  readonly #rows = new Map<string, HTMLElement>();
  readonly #keyOf: (item: T) => string;
  readonly #rowOf: (item: T) => HTMLElement;

  /** Creates an empty list. */
  constructor(
    element: HTMLElement,
    keyOf: (item: T) => string,
    rowOf: (item: T) => HTMLElement,
  ) {
    this.element = element;
    this.#keyOf = keyOf;
    this.#rowOf = rowOf;
  }

  /** Shows these items in their order. */
  show(items: readonly T[]): void {
    const keys = new Set(items.map(this.#keyOf));
    for (const [key, row] of this.#rows) {
      if (keys.has(key)) continue;
      row.remove();
      this.#rows.delete(key);
    }
    let next: Element | null = this.element.firstElementChild;
    for (const item of items) {
      const key = this.#keyOf(item);
      const row = this.#rows.get(key) ?? this.#rowOf(item);
      this.#rows.set(key, row);
      if (row === next) next = next.nextElementSibling;
      else this.element.insertBefore(row, next);
    }
  }
}

/** Has the browser save a file. */
export function saveFile(name: string, content: Blob): void {
  const href = URL.createObjectURL(content);
  h("a", { download: name, href }).click();
  // The browser has to have begun.
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}
