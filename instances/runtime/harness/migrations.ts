// Customers' migrations: what a bundle has to export, and what its functions may return.

import { isPromise } from "./authorize.ts";
import { describeError } from "./errors.ts";
import { parse, stringify } from "./primordials.ts";
import { type Description, InvalidMigration, type Moved, type Path, quoted } from "./upgrade.ts";

export interface Migration {
  upgradeState(path: string[], context: unknown): unknown;
  upgradeContext(oldPaths: string[][], newPaths: string[][], context: unknown): unknown;
}

/** Where an instance is once all migrations have had their say. */
export interface Migrated {
  leaves: Moved[];
  history: { at: Path; moved: Moved[] }[];
  /** JSON */
  context: string;
}

/** Throws InvalidMigration, or what a migration threw. */
export function migrate(
  migrations: readonly Migration[],
  { leaves, history }: Description,
  context: string,
): Migrated {
  const stays = (path: Path): Moved => ({ from: path, to: path, asked: path });
  const migrated: Migrated = {
    leaves: leaves.map(stays),
    history: history.map(({ at, leaves }) => ({ at, moved: leaves.map(stays) })),
    context,
  };
  for (const migration of migrations) {
    apply(migration, migrated);
  }
  return migrated;
}

function apply(migration: Migration, migrated: Migrated): void {
  const before = migrated.context;
  const known = new Map<string, Path>(); // leaves may be in several histories
  const move = ({ from, to: asked }: Moved): Moved => {
    const key = quoted(asked);
    const to = known.get(key) ?? nextPath(migration, asked, before);
    known.set(key, to);
    return { from, to, asked };
  };
  migrated.leaves = migrated.leaves.map(move);
  for (const entry of migrated.history) {
    entry.moved = entry.moved.map(move);
  }
  migrated.context = nextContext(migration, migrated.leaves, before);
}

/** The functions get copies of their own: what they write into them does not stay. */
function nextPath(migration: Migration, asked: Path, context: string): Path {
  const path: unknown = migration.upgradeState([...asked], parse(context));
  refusePromise("upgradeState", path);
  if (!Array.isArray(path) || !path.every((key) => typeof key === "string")) {
    throw new InvalidMigration(
      `upgradeState(${quoted(asked)}) returned ${
        shown(path)
      }. It must return the path of a state ` +
        'of the new version: an array of strings, as ["parent", "child"]',
    );
  }
  return [...path];
}

function nextContext(migration: Migration, leaves: readonly Moved[], context: string): string {
  const next: unknown = migration.upgradeContext(
    leaves.map(({ asked }) => [...asked]),
    leaves.map(({ to }) => [...to]),
    parse(context),
  );
  refusePromise("upgradeContext", next);
  let json: string | undefined;
  try {
    json = stringify(next);
  } catch (error) {
    throw new InvalidMigration(
      `upgradeContext returned a context that can't be stored: ${describeError(error).message}`,
    );
  }
  if (json === undefined || !json.startsWith("{")) {
    throw new InvalidMigration(
      `upgradeContext returned ${shown(next)}. It must return the new context, an object`,
    );
  }
  return json;
}

function refusePromise(name: string, result: unknown): void {
  if (isPromise(result)) {
    result.then(undefined, () => {}); // it may be rejected later, and nobody would listen
    throw new InvalidMigration(
      `${name} returned a promise. Migrations can't wait: it must not be an async function`,
    );
  }
}

function shown(value: unknown): string {
  try {
    const json = typeof value === "bigint" ? `${value}n` : stringify(value) ?? String(value);
    return json.length > SHOWN_CHARACTERS ? `${json.slice(0, SHOWN_CHARACTERS)}…` : json;
  } catch {
    return "something that can't be shown";
  }
}

const SHOWN_CHARACTERS = 200;
