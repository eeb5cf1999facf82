// Turns a bundle into something that can be run, or says what is wrong with it.
//
// The bundle comes as CommonJS (esbuild made it so when it was uploaded) and is evaluated, not
// imported: Deno's module loader parses every module with a parser of its own first, which takes
// seconds and 0.7 GB for 10 MB of source; eval takes 0.15 s and 20 MB. Top-level await does not
// survive as CommonJS and is refused at upload.
//
// eval is called from a `data:` module, because the code inherits its referrer: `import()` in it
// falls under the import map's scope for `data:`, where every built-in module is blocked. Without
// that, `import("node:process")` would give back what lockdown.ts removed.
//
// What this stops: files, network, environment, subprocesses (no permission), built-in modules,
// other npm packages. What it does not: the code shares this realm with the harness, so it can break
// its own process, and the engine must take every line of it for hostile.

import type { Adapter } from "./adapter.ts";
import type { Bundle } from "./activation.ts";
import { namesDrawnAtLoad } from "./effects.ts";
import { randomUUID } from "./primordials.ts";
import type { Migration } from "./migrations.ts";
import type { LoadMessage } from "./protocol.ts";

type Modules = Record<string, unknown>;

/** Each platform module is bundled once; the host's adapters use the same copies. */
const PLATFORM: Record<string, () => Promise<unknown>> = {
  "npm:xstate": () => import("./platform/xstate4.ts"),
  "npm:xstate@4": () => import("./platform/xstate4.ts"),
  "npm:xstate@5": () => import("./platform/xstate5.ts"),
  "npm:xstate/lib/actions": () => import("./platform/xstate4_actions.ts"),
  "npm:xstate/lib/utils": () => import("./platform/xstate4_utils.ts"),
};

/** `npm:xstate@4/lib/actions.js` and `npm:xstate/lib/actions` are the same module. */
function platformModule(name: string): (() => Promise<unknown>) | undefined {
  return PLATFORM[name.replace(/^npm:xstate@4\//, "npm:xstate/").replace(/\.js$/, "")];
}

/** What a person can act on; everything else that loading throws comes from the bundle itself. */
export class InvalidBundle extends Error {
  override name = "InvalidBundle";
}

export interface LoadedBundle extends Bundle {
  exports: string[];
}

export interface LoadedMigration extends Migration {
  exports: string[];
}

type Exports = Record<string, unknown>;

type Evaluate = (source: string) => (exports: object, require: unknown, module: object) => void;

export class Loader {
  readonly #evaluate: Promise<{ default: Evaluate }>;

  constructor() {
    this.#evaluate = import(
      "data:text/javascript,export default (source) => (0, eval)(source);" as string
    );
  }

  /** Loads what loading a bundle of either major version will need. */
  async warmUp(): Promise<void> {
    await Promise.all([this.#evaluate, import("./xstate5.ts"), import("./xstate4.ts")]);
  }

  /** Evaluates and checks a bundle. Throws InvalidBundle, or whatever the bundle threw. */
  async load(message: LoadMessage): Promise<LoadedBundle> {
    const exported = await this.#evaluated(message, "machine.js");
    const allowRead = requireFunction(exported, "allowRead", RULE);
    const allowWrite = requireFunction(exported, "allowWrite", RULE);
    const adapter = await makeAdapter(exported.default);
    return { adapter, allowRead, allowWrite, exports: Object.keys(exported) };
  }

  /** The same for a migration, whose functions may also be those of its default export. */
  async loadMigration(message: LoadMessage): Promise<LoadedMigration> {
    const exported = await this.#evaluated(message, "migration.js");
    const functions = { ...functionsOf(exported.default), ...functionsOf(exported) };
    const upgradeState = requireFunction(functions, "upgradeState", UPGRADE_STATE);
    const upgradeContext = requireFunction(functions, "upgradeContext", UPGRADE_CONTEXT);
    return { upgradeState, upgradeContext, exports: Object.keys(exported) };
  }

  async #evaluated({ cjs, externals }: LoadMessage, file: string): Promise<Exports> {
    const modules: Modules = {};
    for (const name of externals) {
      const load = platformModule(name);
      if (load === undefined) {
        throw new InvalidBundle(cannotImport(name));
      }
      modules[name] = await load();
    }
    const { default: evaluate } = await this.#evaluate;
    return recordingUUIDs(() => run(evaluate, cjs, modules, file));
  }
}

const RULE = "({ … }) { … }";
const UPGRADE_STATE = "(path, context) { return path; }";
const UPGRADE_CONTEXT = "(oldPaths, newPaths, context) { return context; }";

function run(evaluate: Evaluate, source: string, modules: Modules, file: string): Exports {
  const module: { exports: Exports } = { exports: {} };
  const require = (name: string): unknown => {
    if (!Object.hasOwn(modules, name)) {
      throw new InvalidBundle(cannotImport(name));
    }
    return modules[name];
  };
  // The line breaks keep a comment at the end of the source from hiding our closing bracket.
  const wrapped = `(function (exports, require, module) {${source}\n})\n//# sourceURL=${file}`;
  evaluate(wrapped)(module.exports, require, module);
  return module.exports;
}

function cannotImport(name: string): string {
  return `The bundle imports "${name}", which is not available here. Bundle it with your code; only ` +
    '"npm:xstate", "npm:xstate@4" and "npm:xstate@5" are provided.';
}

/** Runs `load` with a crypto.randomUUID that remembers what it gave out (see spawnSource()). */
function recordingUUIDs<T>(load: () => T): T {
  crypto.randomUUID = () => {
    const id = randomUUID() as ReturnType<typeof crypto.randomUUID>;
    namesDrawnAtLoad.add(id);
    return id;
  };
  try {
    return load();
  } finally {
    delete (crypto as { randomUUID?: unknown }).randomUUID; // the prototype's is there again
  }
}

function requireFunction<F extends (...args: any[]) => unknown>( // any: user code
  exported: Exports,
  name: string,
  example: string,
): F {
  const value = exported[name];
  if (typeof value !== "function") {
    const problem = value === undefined ? "does not export" : "must export a function as";
    throw new InvalidBundle(
      `The bundle ${problem} ${name}. Add: export function ${name}${example}`,
    );
  }
  return value as F;
}

/** What is exported as the functions of a migration, or as something else under their names. */
function functionsOf(exported: any): Exports { // any: user code
  const functions: Exports = {};
  for (const name of ["upgradeState", "upgradeContext"]) {
    const value = exported?.[name];
    if (typeof value === "function") {
      functions[name] = (...args: unknown[]) => value.apply(exported, args);
    } else if (value !== undefined) {
      functions[name] = value;
    }
  }
  return functions;
}

async function makeAdapter(machine: unknown): Promise<Adapter> {
  if (machine === undefined) {
    throw new InvalidBundle(
      "The bundle has no default export. Export your machine: export default createMachine({ … })",
    );
  }
  const { isMachine5, XState5 } = await import("./xstate5.ts");
  if (isMachine5(machine)) {
    return new XState5(machine);
  }
  const { isMachine4, XState4 } = await import("./xstate4.ts");
  if (isMachine4(machine)) {
    return new XState4(machine);
  }
  throw new InvalidBundle(
    "The default export is not an XState 4 or 5 machine. Export what createMachine() returns.",
  );
}
