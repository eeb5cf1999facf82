// Upgrades from one version to another, whatever XState either has.

import assert from "node:assert/strict";
import { test } from "node:test";
import { bundles } from "./bundles.ts";
import { type Any, Instance, Process } from "./engine.ts";
import { start4, start5 } from "./small.ts";

type Major = 4 | 5;

const WAYS: [Major, Major][] = [[4, 4], [5, 5], [4, 5], [5, 4]];
const SAME = 1;

/** A version of these states, which knows migration 1 that changes nothing. */
async function version(major: Major, config: string, options = "{}"): Promise<Process> {
  const start = major === 5 ? start5 : start4;
  const process = await start(
    `exports.default = createMachine({ predictableActionArguments: true, ${config} }, ${options});`,
  );
  learn(process, SAME, "(path) => path");
  return process;
}

function learn(
  process: Process,
  migration: number,
  upgradeState: string,
  upgradeContext = "(oldPaths, newPaths, context) => context",
): void {
  process.learn(
    migration,
    `exports.upgradeState = ${upgradeState}; exports.upgradeContext = ${upgradeContext};`,
  );
}

async function instanceOf(process: Process, events: string[] = [], given = {}): Promise<Instance> {
  const instance = await new Instance(process).create(given);
  for (const type of events) {
    await instance.send({ type });
  }
  return instance;
}

async function described(process: Process, events: string[] = []): Promise<Any> {
  return JSON.parse((await (await instanceOf(process, events)).describe()).state);
}

/** Pending timers as `event@due`. */
function timers({ timers }: Instance): string[] {
  return timers.map(({ event, due }) => `${event.type}@${due}`).toSorted();
}

function after(major: Major, delay: string, id: string): string {
  return major === 5 ? `xstate.after.${delay}.${id}` : `xstate.after(${delay})#${id}`;
}

async function failure(upgrade: Promise<unknown>): Promise<{ name: string; message: string }> {
  return await upgrade.then(
    () => assert.fail("the upgrade should have failed"),
    (error) => error,
  );
}

// --- X ------------------------------------------------------------------------------------------

const NESTED = `
  id: "m", initial: "a", context: {}, on: { LEAVE: ".b", BACK: ".a.hist", DEEP: ".a.deep" },
  states: {
    a: {
      type: "parallel",
      states: {
        x: { initial: "x1", states: { x1: { on: { GO: "x2" } }, x2: {
          initial: "i", states: { i: { on: { GO: "j" } }, j: {} } } } },
        y: { initial: "y1", after: { 1000: {}, soon: {} }, states: { y1: {} } },
        hist: { type: "history" }, deep: { type: "history", history: "deep" },
      },
    },
    b: { id: "custom", after: { 50: {} } },
  }`;
const SOON = "{ delays: { soon: 10 } }";

for (const major of [4, 5] as const) {
  test(`XState ${major}: a description names leaves, timers, and what would be returned to`, async () => {
    const process = await version(major, NESTED, SOON);

    const inside = await described(process, ["GO", "GO"]);
    const outside = await described(process, ["GO", "GO", "LEAVE"]);

    assert.deepEqual(inside.leaves, [["a", "x", "x2", "j"], ["a", "y", "y1"]]);
    assert.deepEqual(inside.timers, [
      { at: ["a", "y"], delay: "1000", id: after(major, "1000", "m.a.y") },
      { at: ["a", "y"], delay: "soon", id: after(major, "soon", "m.a.y") },
    ]);
    assert.deepEqual(outside, {
      leaves: [["b"]],
      history: [{ at: ["a"], leaves: [["a", "x", "x2", "j"], ["a", "y", "y1"]] }],
      timers: [{ at: ["b"], delay: "50", id: after(major, "50", "custom") }],
      kept: {},
    });
  });

  test(`XState ${major}: what a shallow history remembers is described by initial states`, async () => {
    const process = await version(
      major,
      `initial: "a", on: { LEAVE: ".b" }, states: { a: { initial: "p", states: {
        p: {}, q: { initial: "i", states: { i: {}, j: {} } }, hist: { type: "history" } }, on: { Q: ".q" } }, b: {} }`,
    );

    assert.deepEqual((await described(process, ["Q", "LEAVE"])).history, [
      { at: ["a"], leaves: [["a", "q", "i"]] },
    ]);
  });

  test(`XState ${major}: a machine without states is described by the path of its root`, async () => {
    assert.deepEqual((await described(await version(major, "context: {}"))).leaves, [[]]);
  });

  test(`XState ${major}: what is done or has not settled can't be described`, async () => {
    const process = await version(major, `initial: "end", states: { end: { type: "final" } }`);
    const done = await instanceOf(process);

    assert.equal((await done.describe()).code, 3);
    assert.equal((await process.ask("X", "nobody")).code, 4);
    const { act } = done.copyIn(process);
    process.say("L", "busy", "name", done.state.replace("true", "false"), "", "{}", SERVICE);
    const busy = await process.ask("X", "busy");
    assert.equal(act, "");
    assert.match(JSON.parse(busy.state).message, /has settled/);
  });
}

const SERVICE = '[{"id":"s","src":"s","key":"k"}]';

// --- states ---------------------------------------------------------------------------------------

for (const [from, to] of WAYS) {
  const way = `XState ${from} to ${to}`;

  test(`${way}: nested and parallel states go where the migration says`, async () => {
    const old = await version(from, NESTED, SOON);
    const next = await version(
      to,
      `id: "other", initial: "z", context: {}, states: { z: {}, top: { initial: "w", states: { w: {}, a: { type: "parallel", states: {
          x: { initial: "one", tags: ["red"], states: { one: { tags: ["blue"] }, two: { on: { GO: "one" } } } },
          y: { initial: "y1", states: { y1: {} } },
          added: { initial: "new", tags: ["green"], states: { new: {} } } } } } } }`,
    );
    learn(
      next,
      2,
      `(path, context) => path[1] === "x" ? ["top", "a", "x", context.x] : ["top", ...path]`,
      `(oldPaths, newPaths, context) => ({ ...context, oldPaths, newPaths })`,
    );
    const instance = await instanceOf(old, ["GO", "GO"], { x: "two" });

    const upgraded = await instance.upgraded(next, [2]);

    assert.deepEqual(upgraded.value, { top: { a: { x: "two", y: "y1", added: "new" } } });
    assert.deepEqual(upgraded.tags.toSorted(), ["green", "red"]);
    assert.deepEqual(upgraded.data.oldPaths, [["a", "x", "x2", "j"], ["a", "y", "y1"]]);
    assert.deepEqual(upgraded.data.newPaths, [["top", "a", "x", "two"], ["top", "a", "y", "y1"]]);
    const { code, children, report } = upgraded.last;
    assert.deepEqual([code, children, report], [0, "[]", ""]);
    await upgraded.send({ type: "GO" });
    assert.equal(upgraded.value.top.a.x, "one");
    assert.deepEqual(upgraded.tags.toSorted(), ["blue", "green", "red"]);
  });

  test(`${way}: an upgrade enters no state`, async () => {
    const config = `initial: "a", context: {}, states: { a: {
      always: "never", entry: () => { throw new Error("entered"); },
      invoke: { src: () => { throw new Error("started"); } } }, never: {} }`;
    const old = await version(from, `initial: "a", context: {}, states: { a: {} }`);

    const upgraded = await (await instanceOf(old)).upgraded(await version(to, config), [SAME]);

    assert.equal(upgraded.value, "a");
    assert.deepEqual(upgraded.effects, []);
    assert.deepEqual(upgraded.trace, ["COMMIT"]);
  });

  test(`${way}: a path that ends before a leaf begins with the initial states`, async () => {
    const old = await version(from, `initial: "a", states: { a: {}, b: {} }`);
    const next = await version(
      to,
      `initial: "b", states: { b: {}, a: { initial: "i", states: { i: { type: "parallel", states: { r: {}, s: { initial: "t", states: { t: {}, u: {} } } } } } } }`,
    );
    learn(next, 2, `() => ["a", "i", "s"]`);
    learn(next, 3, `() => []`);
    const instance = await instanceOf(old);

    const value = async (migration: number) => (await instance.upgraded(next, [migration])).value;

    assert.deepEqual(await value(SAME), { a: { i: { r: {}, s: "t" } } });
    assert.deepEqual(await value(2), { a: { i: { s: "t", r: {} } } });
    assert.deepEqual(await value(3), "b");
  });

  test(`${way}: an instance whose state is final now is at its end`, async () => {
    const parent = {
      type: "statebacked.instance",
      id: "p",
      machineName: "parents",
      machineInstanceName: "p1",
    };
    const old = await version(
      from,
      `id: "m", initial: "a", context: {}, states: { a: { after: { 10: {} } } }`,
    );
    const output = to === 5
      ? `states: { a: { type: "final", output: ({ context }) => context.n } },
         output: ({ context, event }) => ({ sum: context.n + event.output })`
      : `states: { a: { type: "final", data: { sum: (context) => context.n * 2 } } }`;
    const next = await version(to, `id: "m", initial: "a", context: {}, ${output}`);
    const instance = await new Instance(old).create({ n: 3 }, parent);

    const upgraded = await instance.upgraded(next, [SAME]);

    assert.equal(upgraded.done, true);
    assert.deepEqual(upgraded.effects, [{ t: "done", output: { sum: 6 } }]);
    assert.deepEqual(upgraded.timers, []);
    assert.deepEqual(JSON.parse(upgraded.extra).output, { sum: 6 });
    await upgraded.send({ type: "GO" });
    assert.equal(upgraded.last.code, 1);
  });

  test(`${way}: history leads back to where the migration says`, async () => {
    const old = await version(
      from,
      `initial: "a", on: { LEAVE: ".b" }, states: { b: {}, a: { initial: "p", states: { p: { on: { GO: "q" } },
        q: { initial: "i", states: { i: { on: { GO: "j" } }, j: {} } }, hist: { type: "history", history: "deep" } } } }`,
    );
    const next = await version(
      to,
      `initial: "home", on: { SHALLOW: ".top.a.s", DEEP: ".top.a.d" }, states: { home: {}, top: { initial: "a", states: { a: { initial: "p", states: { p: {},
        r: { initial: "i", states: { i: {}, k: {} } }, s: { type: "history" }, d: { type: "history", history: "deep" } } } } } }`,
    );
    learn(
      next,
      2,
      `(path) => path[0] === "b" ? ["home"]
        : ["top", "a", ...path.slice(1).map((key) => ({ q: "r", j: "k" })[key] ?? key)]`,
    );
    const instance = await instanceOf(old, ["GO", "GO", "LEAVE"]);

    const shallow = await instance.upgraded(next, [2]);
    await shallow.send({ type: "SHALLOW" });
    const deep = await instance.upgraded(next, [2]);
    deep.drop();
    await deep.send({ type: "DEEP" });

    assert.deepEqual(shallow.value, { top: { a: { r: "i" } } });
    assert.deepEqual(deep.value, { top: { a: { r: "k" } } });
  });

  test(`${way}: history inside of a state without one lasts while other events come`, async () => {
    const config =
      `initial: "p", context: {}, on: { LEAVE: ".out", BACK: ".p.x.hist", TICK: ".out" },
      states: { out: { on: { TICK: "out" } }, p: { type: "parallel", states: {
        x: { initial: "x1", states: { x1: { on: { GO: "x2" } }, x2: {}, hist: { type: "history" } } }, y: {} } } }`;
    const instance = await instanceOf(await version(from, config), ["GO", "LEAVE"]);

    const upgraded = await instance.upgraded(await version(to, config), [SAME]);
    for (const type of ["TICK", "TICK", "BACK"]) {
      await upgraded.send({ type });
    }

    assert.deepEqual(upgraded.value, { p: { x: "x2", y: {} } });
  });

  test(`${way}: history of a state that is no more is forgotten`, async () => {
    const old = await version(
      from,
      `initial: "a", on: { LEAVE: ".b" }, states: { b: {}, a: { initial: "p", states: {
        p: { on: { GO: "q" } }, q: {}, hist: { type: "history" } } } }`,
    );
    const next = await version(to, `initial: "b", states: { b: {} }`);
    learn(next, 2, `() => ["b"]`);
    const instance = await instanceOf(old, ["GO", "LEAVE"]);

    const upgraded = await instance.upgraded(next, [2]);

    assert.equal(upgraded.value, "b");
    assert.equal(upgraded.extra, "");
  });
}

// --- timers ---------------------------------------------------------------------------------------

for (const [from, to] of WAYS) {
  const way = `XState ${from} to ${to}`;
  const waiting = (states: string, id = "m") =>
    `id: "${id}", initial: "a", context: {},
    on: { NOTHING: {} }, states: { ${states} }`;

  test(`${way}: the timer of a renamed state keeps its time`, async () => {
    const old = await version(
      from,
      waiting(`a: { after: { 1000: "b", 2000: "c" } }, b: {}, c: {}`),
    );
    const next = await version(
      to,
      waiting(`z: { after: { 1000: "b", 3000: "c" } }, a: {}, b: {}, c: {}`),
    );
    learn(next, 2, `() => ["z"]`);
    const instance = await instanceOf(old);
    instance.now = 400;

    const upgraded = await instance.upgraded(next, [2]);

    assert.deepEqual(JSON.parse(upgraded.last.effects), [
      { t: "cancel", id: after(from, "2000", "m.a") },
      {
        t: "rename",
        id: after(from, "1000", "m.a"),
        to: after(to, "1000", "m.z"),
        event: { type: after(to, "1000", "m.z") },
      },
      {
        t: "timer",
        id: after(to, "3000", "m.z"),
        delay: 3000,
        event: { type: after(to, "3000", "m.z") },
      },
    ]);
    assert.deepEqual(timers(upgraded), [
      `${after(to, "1000", "m.z")}@1000`,
      `${after(to, "3000", "m.z")}@3400`,
    ]);
    await upgraded.fireNext();
    assert.equal(upgraded.value, "b");
    assert.deepEqual(upgraded.timers, []);
  });

  test(`${way}: a timer that has fired is not started again`, async () => {
    const config = waiting(`a: { after: { 1000: { actions: [] }, 2000: "b" } }, b: {}`);
    const instance = await instanceOf(await version(from, config));
    await instance.fireNext();

    const upgraded = await instance.upgraded(await version(to, config), [SAME]);

    assert.deepEqual(timers(upgraded), [`${after(to, "2000", "m.a")}@2000`]);
  });

  test(`${way}: timers of states around the leaf go with them, to another level too`, async () => {
    const old = await version(
      from,
      `id: "m", initial: "a", context: {}, after: { 9000: {} }, states: {
        a: { after: { 100: {} }, initial: "i", states: { i: { after: { 100: {} } } } } }`,
    );
    const next = await version(
      to,
      `id: "n", initial: "wrap", context: {}, after: { 9000: {} }, states: {
        wrap: { initial: "a", states: { a: { after: { 100: {} }, initial: "j", states: { j: { after: { 100: {} } } } } } } }`,
    );
    learn(next, 2, `() => ["wrap", "a", "j"]`);
    const instance = await instanceOf(old);
    instance.now = 60;

    const upgraded = await instance.upgraded(next, [2]);

    assert.deepEqual(
      timers(upgraded),
      [
        `${after(to, "100", "n.wrap.a")}@100`,
        `${after(to, "100", "n.wrap.a.j")}@100`,
        `${after(to, "9000", "n")}@9000`,
      ].toSorted(),
    );
    assert.deepEqual(JSON.parse(upgraded.last.effects).map(({ t }: Any) => t), [
      "rename",
      "rename",
      "rename",
    ]);
  });

  test(`${way}: a state that became a leaf, or was one, keeps its timer`, async () => {
    const flat = waiting(`a: { after: { 100: {} } }`);
    const nested = waiting(`a: { after: { 100: {} }, initial: "i", states: { i: {} } }`);

    for (const [one, other] of [[flat, nested], [nested, flat]] as const) {
      const next = await version(to, other);
      learn(next, 2, `() => ["a"]`);
      const instance = await instanceOf(await version(from, one));
      instance.now = 60;

      const upgraded = await instance.upgraded(next, [2]);

      assert.deepEqual(timers(upgraded), [`${after(to, "100", "m.a")}@100`]);
    }
  });

  test(`${way}: named delays are kept by name, and worked out for new timers`, async () => {
    const states = waiting(`a: { after: { soon: "b", later: "b" } }, b: {}`);
    const later = to === 5 ? "({ context }) => context.wait" : "(context) => context.wait";
    const old = await version(from, waiting(`a: { after: { soon: "b" } }, b: {}`), SOON);
    const next = await version(to, states, `{ delays: { soon: 77, later: ${later} } }`);
    learn(next, 2, `(path) => path`, `() => ({ wait: 500 })`);
    const instance = await instanceOf(old);
    instance.now = 4;

    const upgraded = await instance.upgraded(next, [2]);

    assert.deepEqual(timers(upgraded), [
      `${after(to, "later", "m.a")}@504`,
      `${after(to, "soon", "m.a")}@10`,
    ]);
  });

  test(`${way}: user's own delayed sends are left alone`, async () => {
    const own = from === 5
      ? `require("npm:xstate@5").raise({ type: "PING" }, { delay: 300, id: "own" })`
      : `actions.send({ type: "PING" }, { delay: 300, id: "own" })`;
    const old = await version(from, `initial: "a", context: {}, states: { a: { entry: ${own} } }`);
    const next = await version(to, waiting(`a: { on: { PING: "b" } }, b: {}`));

    const upgraded = await (await instanceOf(old)).upgraded(next, [SAME]);

    assert.equal(upgraded.last.effects, "");
    await upgraded.fireNext();
    assert.equal(upgraded.value, "b");
  });
}

test("nothing is said of timers that stay as they are", async () => {
  for (const major of [4, 5] as const) {
    const config = `id: "m", initial: "a", states: { a: { after: { 1000: "b" } }, b: {} }`;
    const instance = await instanceOf(await version(major, config));

    const upgraded = await instance.upgraded(await version(major, config), [SAME]);

    assert.equal(upgraded.last.effects, "");
    assert.equal(upgraded.timers.length, 1);
  }
});

test("XState 4: a delay that is a function is known by its place", async () => {
  const config = (id: string) =>
    `id: "${id}", initial: "a", context: {}, states: { a: { after: [
      { delay: (context) => context.n, target: "b" }, { delay: 50, target: "b" }] }, b: {} }`;
  const next = await version(4, config("new"));
  const instance = await instanceOf(await version(4, config("old")), [], { n: 20 });
  instance.now = 5;

  const upgraded = await instance.upgraded(next, [SAME]);

  assert.deepEqual(timers(upgraded), [
    "xstate.after(50)#new.a@50",
    "xstate.after(new.a:delay[0])#new.a@20",
  ]);
});

// --- what goes over as it is ------------------------------------------------------------------------

const PARENT = {
  type: "statebacked.instance",
  id: "par",
  machineName: "parents",
  machineInstanceName: "p1",
};

for (const old of bundles("persistent5", "persistent4").filter(({ name }) => !/,/.test(name))) {
  for (const next of bundles("persistent5", "persistent4")) {
    test(`${old.name} to ${next.name}: children and the parent stay known`, async () => {
      const target = await Process.start(next.cjs, next.externals);
      learn(target, SAME, "(path) => path");
      const instance = await new Instance(await Process.start(old.cjs, old.externals))
        .create({}, PARENT);
      await instance.send({ type: "run" });
      await instance.send({ type: "adopt" });
      const child = instance.effects.find(({ t, id }) => t === "spawn" && id === "child");

      const upgraded = await instance.upgraded(target, [SAME]);
      const told = async (type: string) => {
        upgraded.effects = [];
        await upgraded.send({ type });
        return upgraded.effects;
      };

      assert.equal(upgraded.last.effects, "");
      const [again] = await told("childSaysHi");
      assert.equal(again.to.machineInstanceName, child.src.machineInstanceName);
      assert.equal((await told("call"))[0].to.machineInstanceName, "ward-1");
      assert.deepEqual((await told("leave")).at(-1), { t: "stop", id: "child" });
      assert.deepEqual(await told("up"), [{ t: "send", to: PARENT, event: { type: "UP" } }]);
    });
  }
}

for (const old of bundles("features5", "features4").filter(({ name }) => !/,/.test(name))) {
  for (const next of bundles("features5", "features4")) {
    test(`${old.name} to ${next.name}: timers and deep history, of any copy`, async () => {
      const source = await Process.start(old.cjs, old.externals);
      const target = await Process.start(next.cjs, next.externals);
      learn(target, SAME, "(path) => path");
      const main = ({ value }: Instance) => value.main;

      const timed = await instanceOf(source, ["TIMED"]);
      const description = JSON.parse((await timed.describe()).state);
      const later = await timed.upgraded(target, [SAME]);
      await later.fireNext();
      const left = await instanceOf(source, ["HIST", "NEXT", "NEXT", "OUT"]);
      const back = await left.upgraded(target, [SAME]);
      await back.send({ type: "RET" });

      assert.deepEqual(
        description.timers.map(({ id }: Any) => id).toSorted(),
        timed.timers.map(({ id }) => id).toSorted(),
      );
      assert.equal(main(later), "idle");
      assert.deepEqual(later.timers, []);
      assert.deepEqual(main(back), { deep: { h2: "d2" } });
    });
  }
}

test("references to services that are gone stay references", async () => {
  const old = await start5(
    `exports.default = setup({ actors: { job: fromPromise(async () => 42) } }).createMachine({
      context: { ref: null }, on: { SPAWN: { actions: assign({ ref: ({ spawn }) => spawn("job", { id: "job" }) }) } } });`,
  );
  const look = (major: Major) =>
    major === 5
      ? `({ context }) => [context.ref.id, context.ref.getSnapshot().output ?? null]`
      : `({ ref }) => [ref.id, typeof ref.send]`;
  for (const [major, seen] of [[5, ["job", 42]], [4, ["job", "function"]]] as const) {
    const next = await version(
      major,
      `context: {}, on: { LOOK: { actions: assign({ seen: ${look(major)} }) } }`,
    );
    const instance = await instanceOf(old, ["SPAWN"]);

    const upgraded = await instance.upgraded(next, [SAME]);
    await upgraded.send({ type: "LOOK" });

    assert.deepEqual(upgraded.data.seen, seen);
  }
});

test("XState 4: a guard that looks at the last event finds the upgrade", async () => {
  const old = await version(4, `context: {}, on: { ONE: { actions: assign({ n: 1 }) } }`);
  const next = await version(
    4,
    `context: {}, on: { ASK: { cond: (_, __, { state }) => state.event.type === "statebacked.upgrade",
      actions: assign({ asked: true }) } }`,
  );

  const upgraded = await (await instanceOf(old, ["ONE"])).upgraded(next, [SAME]);
  await upgraded.send({ type: "ASK" });

  assert.equal(upgraded.data.asked, true);
});

// --- migrations -----------------------------------------------------------------------------------

const ONE = `initial: "a", context: {}, states: { a: {}, b: { type: "parallel", states: {
  r: { initial: "x", states: { x: {}, y: {}, h: { type: "history" } } }, s: {} } } }`;

test("migrations follow one another; each sees the context of before, and copies of its own", async () => {
  const next = await version(5, `initial: "end", states: { end: {} }`);
  learn(
    next,
    7,
    `(path, context) => { context.seen = "not kept"; return [...path, context.n]; }`,
    `(oldPaths, newPaths, context) => ({ n: "two", was: [oldPaths, newPaths, context] })`,
  );
  learn(
    next,
    8,
    `(path, context) => { if (path.join() !== "a,one" || context.n !== "two") throw new Error(path); return ["end"]; }`,
    `(oldPaths, newPaths, context) => ({ ...context, then: [oldPaths, newPaths] })`,
  );
  const instance = await instanceOf(await version(4, ONE), [], { n: "one" });

  const upgraded = await instance.upgraded(next, [7, 8]);

  assert.equal(upgraded.value, "end");
  assert.deepEqual(upgraded.data, {
    n: "two",
    was: [[["a"]], [["a", "one"]], { n: "one" }],
    then: [[["a", "one"]], [["end"]]],
  });
});

test("what upgradeState writes into the context is not there for the next path", async () => {
  const regions = `type: "parallel", context: { list: [] }, states: { x: {}, y: {} }`;
  const next = await version(5, regions);
  learn(
    next,
    2,
    `(path, { list }) => { if (list.push(1) > 1) throw new Error("shared"); path.reverse(); return path; }`,
  );

  const upgraded = await (await instanceOf(await version(4, regions))).upgraded(next, [2]);

  assert.deepEqual(upgraded.data, { list: [] });
});

const BIG = "é".repeat(200_001);
const REFUSED: Record<string, [string, string, RegExp]> = {
  "a path of a state that does not exist": [
    `() => ["c"]`,
    "",
    /upgradeState\(\["a"\]\) returned \["c"\], but the new version has no state "c": it has \["a","b"\]/,
  ],
  "a path below a leaf": [
    `() => ["b", "s", "t"]`,
    "",
    /returned \["b","s","t"\], but the new version's state \["b","s"\] has no state "t": it has no states inside/,
  ],
  "a path of a history state": [`() => ["b", "r", "h"]`, "", /a history state can't be active/],
  "the name of a property": [`() => ["constructor"]`, "", /has no state "constructor"/],
  "no path": [
    `() => {}`,
    "",
    /upgradeState\(\["a"\]\) returned undefined. It must return the path/,
  ],
  "a string": [`() => "a"`, "", /returned "a". It must return the path/],
  "a path of numbers": [`() => [1]`, "", /returned \[1\]/],
  "what can't be shown": [`() => { const a = {}; a.a = a; return a; }`, "", /can't be shown/],
  "a BigInt": [`() => 1n`, "", /returned 1n/],
  "an async upgradeState": [
    `async () => { throw new Error(); }`,
    "",
    /upgradeState returned a promise/,
  ],
  "a throw": [`() => { throw new RangeError("no way"); }`, "", /no way/],
  "no context": [`(p) => p`, `() => {}`, /upgradeContext returned undefined. It must return/],
  "a context of null": [`(p) => p`, `() => null`, /returned null/],
  "an array": [`(p) => p`, `() => [1, 2]`, /returned \[1,2\]/],
  "a date": [`(p) => p`, `() => new Date(0)`, /returned "1970/],
  "a context with a BigInt": [`(p) => p`, `() => ({ n: 1n })`, /can't be stored: .*BigInt/],
  "an async upgradeContext": [`(p) => p`, `async () => ({})`, /upgradeContext returned a promise/],
  "a context past 400 kB": [`(p) => p`, `() => ({ text: "${BIG}" })`, /400000 are allowed/],
};

for (const [what, [upgradeState, upgradeContext, message]] of Object.entries(REFUSED)) {
  test(`refused: ${what}`, async () => {
    const next = await version(5, ONE);
    learn(next, 2, upgradeState, upgradeContext || undefined);
    const instance = await instanceOf(await version(4, ONE));
    const description = (await instance.describe()).state;
    const copy = instance.copyIn(next);

    const answer = await copy.arrive([2], description);

    assert.equal(answer.code, 3);
    assert.match(JSON.parse(answer.state).message, message);
    const event = ["S", copy.act, '{"type":"GO"}', "{}"] as const;
    assert.equal((await next.ask(...event)).code, 4, "the activation is forgotten");
  });
}

test("two states that can't be active together are refused, whatever they are part of", async () => {
  const old = await version(4, `type: "parallel", context: {}, states: { p: {}, q: {} }`);
  const next = await version(5, ONE);
  learn(next, 2, `([key]) => key === "p" ? ["b", "r", "x"] : ["b", "r", "y"]`);
  learn(next, 3, `([key]) => key === "p" ? ["a"] : ["b", "s"]`);
  learn(next, 4, `([key]) => key === "p" ? ["b", "s"] : ["b", "r", "y"]`);
  learn(next, 5, `([key]) => ["b", "r", "y"]`);
  const instance = await instanceOf(old);

  assert.equal(
    (await failure(instance.upgraded(next, [2]))).message,
    'upgradeState(["p"]) returned ["b","r","x"] and upgradeState(["q"]) returned ["b","r","y"], ' +
      'but only one state inside of ["b","r"] can be active at a time',
  );
  assert.match((await failure(instance.upgraded(next, [3]))).message, /inside of \[\] can be/);
  assert.deepEqual((await instance.upgraded(next, [4])).value, { b: { s: {}, r: "y" } });
  assert.deepEqual((await instance.upgraded(next, [5])).value, { b: { r: "y", s: {} } });
});

test("a history that leads to no state is refused, even if nobody would look at it", async () => {
  const old = await version(
    5,
    `initial: "a", on: { LEAVE: ".b" }, states: { b: {}, a: { initial: "p", states: { p: {}, h: { type: "history" } } } }`,
  );
  const next = await version(5, `initial: "b", states: { b: {} }`);

  const error = await failure((await instanceOf(old, ["LEAVE"])).upgraded(next, [SAME]));

  assert.match(error.message, /upgradeState\(\["a","p"\]\) returned \["a","p"\]/);
});

test("what a migration logs belongs to its instance, and waits for the commit", async () => {
  const next = await version(5, ONE);
  learn(next, 2, `(path) => { console.info("moving", path); return path; }`);
  learn(next, 3, `(path) => { console.warn("trying", path); throw new Error("no"); }`);
  const instance = await instanceOf(await version(4, ONE));
  const description = (await instance.describe()).state;

  const one = instance.copyIn(next);
  const answer = await one.arrive([2], description);
  assert.deepEqual(one.trace, []);
  await one.commit(answer);
  const other = instance.copyIn(next);
  await other.arrive([3], description);

  assert.deepEqual(one.trace, ["COMMIT", 'moving ["a"]']);
  assert.deepEqual(other.trace, ['trying ["a"]']);
});

test("after D nothing of an upgrade is left", async () => {
  const next = await version(5, ONE);
  learn(next, 2, `(path) => { console.info("moving"); return path; }`);
  const instance = await instanceOf(await version(4, ONE));
  const copy = instance.copyIn(next);
  await copy.arrive([2], (await instance.describe()).state);

  next.say("D", copy.act);
  next.say("K", copy.act);

  assert.equal((await next.ask("T", copy.act, '{"type":"GO"}')).code, 4);
  assert.deepEqual(copy.trace, []);
});

test("spawning is no part of a migration", async () => {
  const next = await version(5, ONE);
  learn(next, 2, `() => __statebacked_rt.spawn({ machineName: "m" })`);

  const error = await failure((await instanceOf(await version(5, ONE))).upgraded(next, [2]));

  assert.match(error.message, /only be spawned while a transition/);
});

const UNLOADABLE: Record<string, [string, RegExp]> = {
  "no upgradeState": [
    "exports.upgradeContext = () => ({})",
    /does not export upgradeState. Add: export function upgradeState\(path, context\)/,
  ],
  "no upgradeContext": [
    "exports.upgradeState = () => []",
    /does not export upgradeContext. Add: export function upgradeContext\(oldPaths, newPaths, context\)/,
  ],
  "an upgradeState that is no function": [
    "exports.upgradeState = []; exports.upgradeContext = () => ({})",
    /must export a function as upgradeState/,
  ],
  "a syntax error": ["exports.upgradeState = (", /Unexpected/],
  "code that throws": ["null.x", /reading 'x'/],
  "a package that is not provided": ['require("lodash")', /imports "lodash"/],
};

for (const [what, [cjs, message]] of Object.entries(UNLOADABLE)) {
  test(`a migration with ${what} does not load, and each upgrade says so`, async () => {
    const empty = await Process.startEmpty();
    const next = await version(5, ONE);
    next.learn(2, cjs);
    const instance = await instanceOf(await version(5, ONE));

    const checked = await empty.load(cjs, [], "migration");

    assert.equal(checked.ok, false);
    assert.match(checked.error.message, message);
    for (let i = 0; i < 2; i++) {
      assert.match((await failure(instance.upgraded(next, [2]))).message, message);
    }
    assert.equal((await instance.upgraded(next, [SAME])).value, "a", "others still work");
  });
}

test("a migration that the runner was not told of fails its upgrade only", async () => {
  const next = await version(5, ONE);

  const error = await failure((await instanceOf(await version(5, ONE))).upgraded(next, [SAME, 9]));

  assert.match(error.message, /not told of migration 9/);
});

test("a migration may export both functions as one object, and use XState", async () => {
  const cjs = `const { createMachine } = require("npm:xstate@5");
    exports.default = { to: "b", upgradeState() { return [this.to]; }, upgradeContext: (o, n, c) => c };`;
  const next = await version(5, ONE);
  next.learn(2, cjs, ["npm:xstate@5"]);

  const checked = await (await Process.startEmpty()).load(cjs, ["npm:xstate@5"], "migration");
  const upgraded = await (await instanceOf(await version(5, ONE))).upgraded(next, [2]);

  assert.deepEqual(checked, { ok: true, xstate: 0, exports: ["default"], warnings: [] });
  assert.deepEqual(upgraded.value, { b: { r: "x", s: {} } });
});

test("what comes while a migration loads waits for it", async () => {
  const next = await version(5, ONE);
  const instance = await instanceOf(await version(5, ONE));
  const description = (await instance.describe()).state;
  const copy = instance.copyIn(next);

  next.runner.feed([
    `I\t2\t${JSON.stringify({ cjs: "exports.upgradeState = () => ['b'];", externals: [] })}`,
    `I\t3\t${
      JSON.stringify({
        cjs: "exports.upgradeState = () => ['b']; exports.upgradeContext = () => ({ n: 1 });",
        externals: ["npm:xstate@5"],
      })
    }`,
    `U\tu1\t901\tname\t[3]\t${description}\t${copy.context}`,
    `S\tu1\t902\t{"type":"GO"}\t{}`,
  ]);

  assert.deepEqual(JSON.parse((await next.answer("901")).context), { n: 1 });
  assert.equal((await next.answer("902")).code, 1);
});
