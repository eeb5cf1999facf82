// The mathematics of upgrades, without any XState.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type Active,
  activeIn,
  isFinal,
  leavesOf,
  type Moved,
  type Path,
  renames,
  retime,
  type StateShape,
  timersIn,
  unmoved,
  valueOf,
} from "../../instances/runtime/harness/upgrade.ts";

/** `{ a: { after: […], … } }` as states; those with children are compound unless they say otherwise. */
interface Config {
  type?: string;
  after?: string[];
  states?: Record<string, Config>;
}

function shape(config: Config, path: Path = []): StateShape {
  const states = Object.entries(config.states ?? {});
  const id = ["m", ...path].join(".");
  return {
    path,
    id,
    type: config.type ?? (states.length > 0 ? "compound" : "atomic"),
    isDeep: false,
    initial: states[0]?.[0],
    children: new Map(states.map(([key, child]) => [key, shape(child, [...path, key])])),
    after: (config.after ?? []).map((delay) => ({ delay, id: `${delay}@${id}`, source: delay })),
  };
}

function at(...paths: string[]): Path[] {
  return paths.map((path) => path.split("."));
}

function moved(...ways: [string, string][]): Moved[] {
  return ways.map(([from, to]) => ({
    from: from.split("."),
    to: to.split("."),
    asked: from.split("."),
  }));
}

function fate(old: StateShape, next: StateShape, ways: Moved[]): Record<string, string[]> {
  const timers = timersIn(activeIn(old, unmoved(ways.map(({ from }) => from))));
  const { kept, cancelled, started } = retime(timers, ways, activeIn(next, ways));
  return {
    kept: kept.map(({ timer, as }) => `${timer.id} ${as.id}`),
    cancelled: cancelled.map(({ id }) => id),
    started: started.map(({ id }) => id),
  };
}

const leaf = {};
const timed = { after: ["9"] };

test("leaves of a state value, and the value of leaves", () => {
  const root = shape({
    states: { a: { type: "parallel", states: { x: { states: { i: leaf, j: leaf } }, y: leaf } } },
  });
  const value = { a: { y: {}, x: "j" } };

  assert.deepEqual(leavesOf(value), at("a.y", "a.x.j"));
  assert.deepEqual(
    JSON.stringify(valueOf(activeIn(root, unmoved(leavesOf(value))))),
    JSON.stringify(value),
    "regions stay in their order",
  );
  assert.deepEqual(valueOf(activeIn(root, [])), { a: { x: "i", y: {} } });
  assert.deepEqual([leavesOf({}), valueOf(activeIn(shape(leaf), unmoved([[]])))], [[[]], {}]);
});

test("a machine is at its end in a final child, or if all regions are", () => {
  const final = { type: "final" };
  const ends = (config: Config, ...paths: string[]) =>
    isFinal(activeIn(shape(config), unmoved(at(...paths))) as Active);
  const regions = {
    type: "parallel",
    states: { x: { states: { i: leaf, end: final } }, y: { states: { i: leaf, end: final } } },
  };

  assert.equal(ends({ states: { a: leaf, end: final } }, "end"), true);
  assert.equal(ends({ states: { a: { states: { end: final } } } }, "a.end"), false);
  assert.equal(ends(regions, "x.end", "y.i"), false);
  assert.equal(ends(regions, "x.end", "y.end"), true);
});

test("a wrapper that is gone does not take the timer of what was in it", () => {
  const old = shape({
    states: { w: { ...timed, states: { a: { ...timed, states: { i: leaf } } } } },
  });
  const next = shape({ states: { a: { ...timed, states: { i: leaf } } } });

  assert.deepEqual(fate(old, next, moved(["w.a.i", "a.i"])), {
    kept: ["9@m.w.a 9@m.a"],
    cancelled: ["9@m.w"],
    started: [],
  });
});

test("a state around regions goes where all of them have gone, or its timer ends", () => {
  const regions = { type: "parallel", states: { x: leaf, y: leaf } };
  const old = shape({ states: { a: { ...timed, ...regions } } });
  const next = shape({
    type: "parallel",
    states: { b: { ...timed, ...regions }, c: { ...timed, states: { y: leaf } } },
  });

  assert.deepEqual(fate(old, next, moved(["a.x", "b.x"], ["a.y", "b.y"])), {
    kept: ["9@m.a 9@m.b"],
    cancelled: [],
    started: ["9@m.c"],
  });
  assert.deepEqual(fate(old, next, moved(["a.x", "b.x"], ["a.y", "c.y"])), {
    kept: [],
    cancelled: ["9@m.a"],
    started: ["9@m.b", "9@m.c"],
  });
});

test("two states that become one leave it one of their timers", () => {
  const old = shape({ type: "parallel", states: { x: timed, y: timed } });

  assert.deepEqual(
    fate(old, shape({ states: { z: timed } }), moved(["x", "z"], ["y", "z"])),
    { kept: ["9@m.x 9@m.z"], cancelled: ["9@m.y"], started: [] },
  );
});

test("the root's timers are the root's", () => {
  const old = shape({ ...timed, states: { a: leaf } });
  const next = shape({ states: { a: timed } });

  assert.deepEqual(fate(old, next, moved(["a", "a"])), {
    kept: [],
    cancelled: ["9@m"],
    started: ["9@m.a"],
  });
  const nested = shape({ states: { a: { ...timed, states: { i: leaf } } } });
  assert.deepEqual(fate(nested, shape({ ...timed, states: { b: leaf } }), moved(["a.i", "b"])), {
    kept: [],
    cancelled: ["9@m.a"],
    started: ["9@m"],
  });
});

test("renames may be done one after the other, except for a swap", () => {
  const rename = (...pairs: [string, string][]) =>
    renames(pairs.map(([id, to]) => ({
      timer: { at: [], delay: "9", id },
      as: { delay: "9", id: to, source: 9 },
    }))).map((effect) => effect.t === "rename" ? `${effect.id}>${effect.to}` : "");

  assert.deepEqual(rename(["a", "b"], ["b", "c"], ["c", "d"], ["e", "e"]), ["c>d", "b>c", "a>b"]);
  assert.deepEqual(rename(["a", "b"], ["b", "a"], ["c", "a"]).toSorted(), ["a>b", "b>a", "c>a"]);
});
