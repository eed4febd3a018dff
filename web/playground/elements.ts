/**
 * Small helpers for elements of the page.
 *
 * @module
 */

/** Returns the element with an id. */
export function byID<T extends HTMLElement = HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

/** Creates an element with a class and its content. */
export function create<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className = "",
  ...content: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (className !== "") element.className = className;
  element.append(...content);
  return element;
}

/** Creates text that only screen readers find. */
export function hiddenText(text = ""): HTMLSpanElement {
  return create("span", "hidden", text);
}

/** Sets the text of an element, if it is another one: what does not change is not announced again. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}
