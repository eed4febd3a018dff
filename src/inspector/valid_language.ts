/**
 * Language of the page while a library is loaded that gives it to `Intl` unchecked:
 * a valid one. Import this module before the library, and call `restoreLanguage()`
 * after it; both are loaded in one turn of the event loop, in which no other code
 * runs.
 *
 * WebKitGTK with the locale `C`, and settings of some browsers, have languages that
 * `Intl` refuses with a `RangeError`.
 *
 * This module is browser compatible.
 *
 * @module
 */

const { navigator } = globalThis as { readonly navigator?: Navigator };

/** True if the page has a language that `Intl` refuses. */
const isShadowed = navigator !== undefined && !isValid(navigator.language);

if (isShadowed) {
  Object.defineProperty(navigator, "language", {
    value: "en",
    configurable: true,
  });
}

function isValid(language: string): boolean {
  try {
    Intl.getCanonicalLocales(language);
    return true;
  } catch {
    return false;
  }
}

/** Gives the page its own language back. */
export function restoreLanguage(): void {
  if (isShadowed) Reflect.deleteProperty(navigator!, "language");
}
