// The bundles that bundles.py has made of the machines in machines/.

export interface TestBundle {
  name: string;
  machine: string;
  major: 4 | 5;
  /** XState 4 without predictableActionArguments. */
  legacy: boolean;
  cjs: string;
  externals: string[];
}

const DIRECTORY = new URL("../../build/test-bundles/", import.meta.url);

export function bundles(...machines: string[]): TestBundle[] {
  const manifest = JSON.parse(Deno.readTextFileSync(new URL("manifest.json", DIRECTORY)));
  return manifest
    .filter(({ machine }: TestBundle) => machines.includes(machine))
    .map((entry: TestBundle & { file: string }) => ({
      ...entry,
      cjs: Deno.readTextFileSync(new URL(entry.file, DIRECTORY)),
    }));
}
