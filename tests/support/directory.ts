/**
 * Directories for tests on real files.
 *
 * @module
 */

/** A directory that is gone when the test is over. */
export function makeDirectory(): Disposable & { path(name: string): string } {
  const directory = Deno.makeTempDirSync();
  return {
    path: (name) => `${directory}/${name}`,
    [Symbol.dispose]: () => Deno.removeSync(directory, { recursive: true }),
  };
}
