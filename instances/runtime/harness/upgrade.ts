// Where an instance is after an upgrade, as far as that is the same for all versions of XState.
//
// The version that is left says where the instance is, in paths of keys from the root (Description).
// The migrations say where each path leads (migrations.ts). What is here finds these states in the
// version that is entered, and which timers and histories go with them. An upgrade enters no state:
// nothing is run, started or raised.

import { stringify } from "./primordials.ts";
import type { Effect, InstanceRef, StateValue } from "./protocol.ts";

/** The keys that lead from the root to a state. */
export type Path = readonly string[];

/** A state of a machine, as both major versions have it. */
export interface StateShape {
  readonly path: Path;
  readonly id: string;
  /** atomic, compound, parallel, final or history */
  readonly type: string;
  /** Of a history state. */
  readonly isDeep: boolean;
  /** The key of the child that a compound state begins with. */
  readonly initial: string | undefined;
  /** In the order of the document. */
  readonly children: ReadonlyMap<string, StateShape>;
  readonly after: readonly After[];
}

/** A delay of a state's `after`. */
export interface After {
  /** As the machine has it: a number, a name, or `delay[0]` for a function of XState 4. */
  readonly delay: string;
  /** Of the delayed send, and the type of its event. */
  readonly id: string;
  /** What each adapter needs to work out the milliseconds. */
  readonly source: unknown;
}

/** The answer to `X`: where an instance is, in words that no version has of its own. */
export interface Description {
  leaves: Path[];
  /** What history states would lead back to: the active leaves that were left inside of `at`. */
  history: { at: Path; leaves: Path[] }[];
  /** Of the active states; they may have fired already. */
  timers: Timer[];
  kept: Kept;
}

export interface Timer {
  at: Path;
  delay: string;
  id: string;
}

/** What goes over as it is; the names are those of `extra` in both adapters. */
export interface Kept {
  parent?: InstanceRef;
  persistent?: Record<string, InstanceRef>;
  /** Services that came to an end, and that the context may refer to. */
  ended?: Record<string, unknown>;
}

export function keptOf(extra: any): Kept { // any: as in Snapshot
  const { parent, persistent, ended } = extra ?? {};
  return { parent, persistent, ended }; // what is undefined goes with the JSON
}

/** Where a leaf state has gone. */
export interface Moved {
  readonly from: Path;
  /** As the last migration gave it: it may be a state around the leaf. */
  readonly to: Path;
  /** What that migration was asked. */
  readonly asked: Path;
}

/** An active state, with the active ones inside of it. */
export interface Active {
  readonly shape: StateShape;
  readonly children: readonly Active[];
}

/** What was active inside of a state when it was left. */
export interface Remembered {
  readonly parent: StateShape;
  readonly inside: Active;
}

/** What functions are given that want to know the event of a step. */
export const UPGRADE_EVENT = { type: "statebacked.upgrade" } as const;

/** What a person can act on: a migration gave something that can't be. */
export class InvalidMigration extends Error {
  override name = "InvalidMigration";
}

// --- states -------------------------------------------------------------------------------------

export function leavesOf(value: StateValue, at: Path = []): Path[] {
  if (typeof value === "string") {
    return [[...at, value]];
  }
  const regions = Object.entries(value);
  return regions.length === 0
    ? [at]
    : regions.flatMap(([key, inner]) => leavesOf(inner, [...at, key]));
}

/** Leaves that stay where they are. */
export function unmoved(leaves: readonly Path[]): Moved[] {
  return leaves.map((path) => ({ from: path, to: path, asked: path }));
}

/**
 * What is active inside of `top` if these leaves have come there. What they leave open begins with
 * its initial states: the inside of a state, and regions that none of them is in.
 *
 * Throws InvalidMigration if one has come to no state, or if two can't be active at the same time.
 */
export function activeIn(top: StateShape, moved: readonly Moved[]): Active {
  const choice: Choice = { shape: top, by: moved[0], inner: new Map() };
  for (const one of moved) {
    let place = choice;
    for (const key of one.to.slice(top.path.length)) {
      place = choose(place, key, one);
    }
  }
  return complete(choice);
}

/** A state that has to be active, and those inside of it that have to be. */
interface Choice {
  shape: StateShape;
  by: Moved | undefined;
  inner: Map<string, Choice>;
}

function choose({ shape, inner }: Choice, key: string, by: Moved): Choice {
  const chosen = inner.get(key);
  if (chosen !== undefined) {
    return chosen;
  }
  const child = shape.children.get(key);
  if (child === undefined) {
    throw new InvalidMigration(`${said(by)}, but ${noSuchState(shape, key)}`);
  }
  if (child.type === "history") {
    throw new InvalidMigration(`${said(by)}, but a history state can't be active`);
  }
  const [rival] = inner.values();
  if (shape.type === "compound" && rival !== undefined) {
    throw new InvalidMigration(
      `${said(rival.by!)} and ${said(by)}, but only one state inside of ${
        quoted(shape.path)
      } can ` +
        "be active at a time",
    );
  }
  const choice: Choice = { shape: child, by, inner: new Map() };
  inner.set(key, choice);
  return choice;
}

function complete({ shape, inner }: Choice): Active {
  const children = [...inner.values()].map(complete);
  if (shape.type === "compound" && children.length === 0) {
    const initial = shape.children.get(shape.initial ?? "");
    if (initial === undefined || initial.type === "history") {
      throw new InvalidMigration(
        `the state ${quoted(shape.path)} has no initial state: return the path of a state in it`,
      );
    }
    children.push(begun(initial));
  }
  if (shape.type === "parallel") {
    for (const [key, region] of shape.children) {
      if (!inner.has(key) && region.type !== "history") {
        children.push(begun(region));
      }
    }
  }
  return { shape, children };
}

function begun(shape: StateShape): Active {
  return complete({ shape, by: undefined, inner: new Map() });
}

function said({ asked, to }: Moved): string {
  return `upgradeState(${quoted(asked)}) returned ${quoted(to)}`;
}

function noSuchState({ path, children }: StateShape, key: string): string {
  const where = path.length === 0 ? "the new version" : `the new version's state ${quoted(path)}`;
  const keys = [...children.values()].filter(({ type }) => type !== "history")
    .map(({ path }) => path.at(-1)!);
  const known = keys.length === 0
    ? "it has no states inside"
    : `it has ${quoted(keys.slice(0, KEYS_SHOWN))}${keys.length > KEYS_SHOWN ? " and others" : ""}`;
  return `${where} has no state ${quoted(key)}: ${known}`;
}

const KEYS_SHOWN = 20;

export function quoted(value: unknown): string {
  return stringify(value)!;
}

/** The state value of what is active, as XState writes it. */
export function valueOf({ shape, children }: Active): StateValue {
  const [first] = children;
  if (shape.type === "compound" && first !== undefined && isLeaf(first.shape)) {
    return first.shape.path.at(-1)!;
  }
  return Object.fromEntries(children.map((child) => [child.shape.path.at(-1)!, valueOf(child)]));
}

function isLeaf({ type }: StateShape): boolean {
  return type === "atomic" || type === "final";
}

/** Each active state, those around it before it. */
export function* statesIn({ shape, children }: Active): Generator<StateShape> {
  yield shape;
  for (const child of children) {
    yield* statesIn(child);
  }
}

export function leafStatesIn({ shape, children }: Active): StateShape[] {
  return children.length === 0 ? [shape] : children.flatMap(leafStatesIn);
}

/** Whether it is at its end, as XState 5 sees it. */
export function isFinal({ shape, children }: Active): boolean {
  switch (shape.type) {
    case "compound":
      return children[0]?.shape.type === "final";
    case "parallel":
      return children.every(isFinal);
    default:
      return shape.type === "final";
  }
}

export function stateAt(root: StateShape, path: Path): StateShape | undefined {
  let shape: StateShape | undefined = root;
  for (const key of path) {
    shape = shape?.children.get(key);
  }
  return shape;
}

/** All states of a machine. */
export function* allStates(shape: StateShape): Generator<StateShape> {
  yield shape;
  for (const child of shape.children.values()) {
    yield* allStates(child);
  }
}

export function hasHistory({ children }: StateShape): boolean {
  return [...children.values()].some(({ type }) => type === "history");
}

// --- which state takes the place of another -------------------------------------------------------

/** Finds the state that has taken the place of `at`, given where the leaves inside of it have gone. */
type Alignment = (at: Path, inside: readonly Moved[]) => Path | undefined;

/** As far above the leaves as it was, if that is one state for all of them. */
const fromBelow: Alignment = (at, inside) =>
  agreed(inside.map(({ from, to }) => {
    const height = from.length - at.length;
    return height > to.length ? undefined : to.slice(0, to.length - height);
  }));

/** As deep below the root as it was. */
const fromAbove: Alignment = (at, inside) =>
  agreed(inside.map(({ to }) => at.length > to.length ? undefined : to.slice(0, at.length)));

/** Both are the same unless states have moved to another level. */
const ALIGNMENTS = [fromBelow, fromAbove];

function agreed(paths: (Path | undefined)[]): Path | undefined {
  const [first] = paths;
  return paths.every((path) => path !== undefined && isSame(path, first!)) ? first : undefined;
}

function isSame(a: Path, b: Path): boolean {
  return a.length === b.length && isInside(a, b);
}

function isInside(path: Path, around: Path): boolean {
  return around.every((key, i) => path[i] === key);
}

/** Only the root takes the place of the root. */
function placesFor(at: Path, moved: readonly Moved[], align: Alignment): Path | undefined {
  const inside = moved.filter(({ from }) => isInside(from, at));
  const place = align(at, inside);
  return place !== undefined && (place.length === 0) === (at.length === 0) ? place : undefined;
}

// --- timers -------------------------------------------------------------------------------------

export function timersIn(active: Active): Timer[] {
  return [...statesIn(active)].flatMap(({ path, after }) =>
    after.map(({ delay, id }) => ({ at: path, delay, id }))
  );
}

export interface Retimed {
  /** Old timers that go on as one of the new states'. */
  kept: { timer: Timer; as: After }[];
  cancelled: Timer[];
  /** Those of the new states that take nobody's place. */
  started: After[];
}

/** A timer goes on if the state in the place of its own has one with the same delay. */
export function retime(
  timers: readonly Timer[],
  moved: readonly Moved[],
  active: Active,
): Retimed {
  const kept: Retimed["kept"] = [];
  let cancelled = [...timers];
  let started = [...statesIn(active)].flatMap(({ path, after }) =>
    after.map((one) => ({ path, one }))
  );
  for (const align of ALIGNMENTS) {
    for (const timer of cancelled) {
      const place = placesFor(timer.at, moved, align);
      const next = started.find(({ path, one }) =>
        one.delay === timer.delay && place !== undefined && isSame(path, place)
      );
      if (next !== undefined) {
        kept.push({ timer, as: next.one });
        started = started.filter((other) => other !== next);
        cancelled = cancelled.filter((other) => other !== timer);
      }
    }
  }
  return { kept, cancelled, started: started.map(({ one }) => one) };
}

/**
 * Timers that get another id. They all do at once; in this order they may also do so one after the
 * other, unless two swap their ids.
 */
export function renames(kept: Retimed["kept"]): Effect[] {
  let open = kept.filter(({ timer, as }) => timer.id !== as.id);
  const ordered: Effect[] = [];
  while (open.length > 0) {
    const free = open.filter(({ as }) => !open.some(({ timer }) => timer.id === as.id));
    const next = free.length > 0 ? free : open;
    for (const { timer, as } of next) {
      ordered.push({ t: "rename", id: timer.id, to: as.id, event: { type: as.id } });
    }
    open = open.filter((one) => !next.includes(one));
  }
  return ordered;
}

// --- history ------------------------------------------------------------------------------------

/** What the new version remembers, each parent once. Throws as activeIn() does. */
export function rememberedIn(
  root: StateShape,
  history: readonly { at: Path; moved: readonly Moved[] }[],
): Remembered[] {
  const remembered = new Map<StateShape, Remembered>();
  for (const { at, moved } of history) {
    for (const one of moved) {
      activeIn(root, [one]); // also those that are of no use here have to be states
    }
    const places = ALIGNMENTS.map((align) => agreedParent(root, at, moved, align));
    const parent = places.find((place) => place !== undefined);
    if (parent !== undefined && !remembered.has(parent)) {
      remembered.set(parent, { parent, inside: activeIn(parent, moved) });
    }
  }
  return [...remembered.values()];
}

function agreedParent(
  root: StateShape,
  at: Path,
  moved: readonly Moved[],
  align: Alignment,
): StateShape | undefined {
  const place = placesFor(at, moved, align);
  const state = place && stateAt(root, place);
  return state !== undefined && hasHistory(state) ? state : undefined;
}
