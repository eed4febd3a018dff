/**
 * Elements of the page, made in one call.
 *
 * This module runs in a browser.
 *
 * @module
 */

/** Properties, attributes (with a dash) and data (in `dataset`) of an element. */
type Properties<T> = Partial<Omit<T, "style" | "dataset" | "children">> & {
  readonly dataset?: Readonly<Record<string, string>>;
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
    if (name === "dataset") Object.assign(element.dataset, value);
    else if (name.includes("-")) element.setAttribute(name, value as string);
    else (element as unknown as Record<string, unknown>)[name] = value;
  }
  element.append(...children);
  return element;
}

/** Sets the text of an element, unless it has it: the same text set once more would be laid out and painted again. */
export function setText(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Creates a button with a text. */
export function button(
  text: string,
  onclick: () => void,
  properties: Properties<HTMLButtonElement> = {},
): HTMLButtonElement {
  return h("button", { type: "button", onclick, ...properties }, text);
}

const ICONS = {
  undo: "M6 3 2.5 6.5 6 10M3 6.5h6a4 4 0 0 1 0 8H6",
  redo: "m10 3 3.5 3.5L10 10m3-3.5H7a4 4 0 0 0 0 8h3",
  more: "M3.5 8h.01M8 8h.01M12.5 8h.01",
  plug: "M5.5 2v3.5m5-3.5v3.5M3.5 5.5h9V8a4.5 4.5 0 0 1-9 0zM8 12.5V15",
  share: "M11 5.5 8 2.5l-3 3M8 3v7M3.5 8.5v5h9v-5",
  archive: "M2 3h12v3H2zm1 3v7.5h10V6M6.5 9h3",
  close: "m4 4 8 8m0-8-8 8",
  boat: "M1.5 9.5h13l-2.4 3.8a1 1 0 0 1-.9.5H4.8a1 1 0 0 1-.9-.5zM7.5 7V2l5 5z",
  two: "M2 3h5v10H2zm7 0h5v10H9z",
} as const;

/** Draws an icon, which says nothing to a screen reader. */
export function icon(name: keyof typeof ICONS): SVGSVGElement {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("icon", name);
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** Creates a button that shows an icon; its name is its tooltip, too. */
export function iconButton(
  name: keyof typeof ICONS,
  label: string,
  onclick: () => void,
  properties: Properties<HTMLButtonElement> = {},
): HTMLButtonElement {
  return h(
    "button",
    {
      type: "button",
      className: `quiet ${name}`,
      title: label,
      ariaLabel: label,
      onclick,
      ...properties,
    },
    icon(name),
  );
}
