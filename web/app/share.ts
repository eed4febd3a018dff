/**
 * Link to a board, with its QR code. Loaded when it is first opened.
 *
 * This module runs in a browser.
 *
 * @module
 */

import { encode } from "uqr";
import type { Voice } from "./actions.ts";
import { button, h } from "./dom.ts";

/** Draws a text as a QR code. */
function drawQR(text: string): SVGSVGElement {
  const { data, size } = encode(text, { border: 2 });
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", `0 0 ${size} ${size}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", "QR code of the link");
  const path = document.createElementNS(space, "path");
  path.setAttribute(
    "d",
    data.flatMap((row, y) =>
      row.map((isDark, x) => isDark ? `M${x} ${y}h1v1h-1z` : "")
    ).join(""),
  );
  svg.append(path);
  return svg;
}

/** Fills a dialog with the link to a board. */
export function fillShare(
  dialog: HTMLDialogElement,
  url: string,
  voice: Voice,
): void {
  const field = h("input", {
    type: "text",
    readOnly: true,
    value: url,
    onfocus: () => field.select(),
  });
  const copy = button("Copy the link", () => {
    navigator.clipboard.writeText(url).then(
      () => {
        copy.textContent = "Copied";
        voice.say("The link is copied");
      },
      (error) => voice.complain(error),
    );
  });
  dialog.append(
    h(
      "label",
      {},
      h("span", {}, "Everyone with the link can read and edit"),
      field,
    ),
    h(
      "div",
      { className: "choices" },
      copy,
      ...(typeof navigator.share === "function"
        ? [button("Send …", () => {
          // A person may change their mind.
          navigator.share({ title: document.title, url }).catch(() => {});
        })]
        : []),
    ),
    h("div", { className: "qr" }, drawQR(url)),
  );
}
