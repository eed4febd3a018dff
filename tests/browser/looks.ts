/**
 * Look of a page: the screen it is shown on, screenshots, and what axe finds.
 *
 * @module
 */

import axe from "axe-core";
import { sleep, WAIT_MS_MAX } from "../sync/server_process.ts";
import type { Page } from "./browser.ts";

/** Folder in which the last screenshots stay, for a look at them. */
const SHOTS = new URL("../../.cache/screenshots/", import.meta.url);

/** Screen on which a page is shown. */
export interface Screen {
  /** Width in pixels; below 600 the screen is a phone's. */
  readonly width: number;
  /** Height in pixels; by default that of a phone or a desktop. */
  readonly height?: number;
  readonly isDark?: boolean;
}

/** Sets what a page is shown on. */
export async function emulate(page: Page, screen: Screen): Promise<void> {
  const mobile = screen.width < 600;
  await page.devtools!("Emulation.setDeviceMetricsOverride", {
    width: screen.width,
    height: screen.height ?? (mobile ? 844 : 860),
    deviceScaleFactor: 1,
    mobile,
  });
  await page.devtools!("Emulation.setEmulatedMedia", {
    features: [{
      name: "prefers-color-scheme",
      value: screen.isDark ? "dark" : "light",
    }],
  });
}

/** Ends the animations of a page that have an end. */
async function endAnimations(page: Page): Promise<void> {
  await page.evaluate(
    `document.getAnimations()
      .filter(({ effect }) => effect.getComputedTiming().endTime !== Infinity)
      .forEach((animation) => animation.finish())`,
    WAIT_MS_MAX,
  );
}

/** Ways to look at a page. */
export interface Look {
  /** True if animations go on, of a page that is made of them; otherwise they end first. */
  readonly isMoving?: boolean;
  /** Number of looks in which axe may find nothing: colours of a shadow tree settle after a moment. */
  readonly tries?: number;
}

/** Keeps a screenshot. */
export async function shoot(
  page: Page,
  name: string,
  { isMoving = false }: Look = {},
): Promise<void> {
  await Deno.mkdir(SHOTS, { recursive: true });
  if (!isMoving) await endAnimations(page);
  const { data } = await page.devtools!("Page.captureScreenshot", {
    format: "png",
  }) as { data: string };
  await Deno.writeFile(
    new URL(`${name}.png`, SHOTS),
    Uint8Array.from(atob(data), (character) => character.charCodeAt(0)),
  );
}

/** Finds what axe objects to in a page. */
export async function findings(
  page: Page,
  { tries = 1 }: Pick<Look, "tries"> = {},
): Promise<unknown> {
  for (let left = tries;;) {
    // Colours have settled, and what fades is gone.
    await endAnimations(page);
    const found = await page.evaluate(
      `(async () => {
        if (!("axe" in globalThis)) { ${axe.source} }
        const { violations } = await axe.run(document, { iframes: false });
        return violations.flatMap(({ id, nodes }) =>
          nodes.map(({ target, failureSummary }) => [id, target.join(), failureSummary]));
      })()`,
      WAIT_MS_MAX,
    );
    if ((found as unknown[]).length === 0 || --left === 0) return found;
    await sleep(500);
  }
}
