// A live instance behaves as one that was loaded: each of these differs if its snapshot is kept as
// it is in memory.

import assert from "node:assert/strict";
import { test } from "node:test";
import { type Any, Instance, type Process } from "./engine.ts";
import { start4, start5 } from "./small.ts";

/** Sends the events twice, to an instance that stays in memory and to one loaded for each. */
async function bothWays(
  process: Process,
  events: string[],
  given: Any = {},
): Promise<[Instance, Instance]> {
  const hot = await new Instance(process, "hot").create(given);
  const cold = await new Instance(process, "cold").create(given);
  for (const type of events) {
    await hot.send({ type });
    cold.drop();
    await cold.send({ type });
    assert.deepEqual(
      [hot.value, hot.data, hot.last.code],
      [cold.value, cold.data, cold.last.code],
      `after ${type}`,
    );
  }
  assert.equal(cold.loads, events.length);
  return [hot, cold];
}

const VERSIONS = [
  {
    name: "XState 5",
    start: start5,
    context: "({ context })",
    event: "({ event })",
    guard: "guard",
  },
  { name: "XState 4", start: start4, context: "(context)", event: "(_, event)", guard: "cond" },
];

for (const { name, start, context, guard } of VERSIONS) {
  const machine = (contextOf: string, on: string) =>
    `exports.default = createMachine({
    predictableActionArguments: true, initial: "a", context: ${contextOf}, states: { a: { on: { ${on} } }, b: {} } });`;

  test(`${name}: what JSON can't hold is gone for the next event`, async () => {
    const process = await start(machine(
      "{ date: new Date(0), nothing: undefined, map: new Map([[1, 2]]), nan: NaN, seen: null }",
      `LOOK: { actions: assign({ seen: ${context} => [typeof context.date, "nothing" in context, typeof context.map.get, context.nan] }) },
       AGAIN: { actions: assign({ date: () => new Date(1), nothing: () => undefined }) }`,
    ));

    const [hot] = await bothWays(process, ["LOOK", "AGAIN", "LOOK"]);

    assert.deepEqual(hot.data.seen, ["string", false, "undefined", null]);
    assert.equal(hot.data.date, "1970-01-01T00:00:00.001Z");
  });

  test(`${name}: what a guard writes into the context does not stay`, async () => {
    const process = await start(machine(
      "{ n: 0, list: [] }",
      `GO: { ${guard}: ${context} => { context.n = 100; context.list.push(1); return false; }, target: "b" },
       LOOK: { actions: assign({ n: ${context} => context.n + context.list.length + 1 }) }`,
    ));

    const [hot] = await bothWays(process, ["GO", "LOOK", "GO", "LOOK"]);

    assert.deepEqual(hot.data, { n: 2, list: [] });
  });

  test(`${name}: what an action writes into the context does not stay`, async () => {
    const process = await start(machine(
      "{ n: 0 }",
      `GO: { actions: ${context} => { context.n = 100; } }, LOOK: { actions: assign({ n: ${context} => context.n + 1 }) }`,
    ));

    const [hot] = await bothWays(process, ["GO", "LOOK"]);

    assert.equal(hot.data.n, 1);
  });

  test(`${name}: instances of one version don't share their initial context`, async () => {
    const process = await start(
      machine(
        "{ deep: { list: [] } }",
        `GO: { actions: assign(${context} => { context.deep.list.push(1); return { deep: context.deep }; }) }`,
      ) + `exports.allowWrite = ({ type }) => true;`,
    );
    const first = await new Instance(process, "first").create();
    await first.send({ type: "GO" });

    const second = await new Instance(process, "second").create();

    assert.deepEqual([first.data.deep.list, second.data.deep.list], [[1], []]);
  });

  test(`${name}: a context with a BigInt fails its event, and nothing else`, async () => {
    const process = await start(
      machine("{ n: 0 }", `BIG: { target: "b", actions: assign({ n: () => 10n }) }, GO: "b"`),
    );

    const [hot] = await bothWays(process, ["BIG", "GO"]);

    assert.equal(hot.value, "b");
    assert.match(JSON.parse(hot.steps[1]!.state).message, /BigInt/);
  });

  test(`${name}: a context past 400 kB fails its event, and nothing else`, async () => {
    const process = await start(machine(
      "{ text: '' }",
      `BIG: { target: "b", actions: assign({ text: () => "é".repeat(200_001) }) },
       FITS: { target: "b", actions: assign({ text: () => "é".repeat(199_900) }) }`,
    ));

    const [hot] = await bothWays(process, ["BIG", "FITS"]);

    assert.equal(JSON.parse(hot.steps[1]!.state).name, "ContextTooLarge");
    assert.equal(hot.value, "b");
  });

  test(`${name}: after a throw the context is as before`, async () => {
    const process = await start(machine(
      "{ n: 0, list: [] }",
      `BAD: { actions: assign(${context} => { context.list.push(1); context.n = 7; throw new Error("no"); }) },
       LOOK: { actions: assign({ n: ${context} => context.n + context.list.length }) }`,
    ));

    const [hot] = await bothWays(process, ["BAD", "LOOK"]);

    assert.deepEqual(hot.data, { n: 0, list: [] });
  });
}

test("a string that looks like a reference to a service stays a string", async () => {
  const process = await start5(
    `exports.default = createMachine({ context: { text: '{"xstate$$type":1,"id":"x"}', n: 0 },
    on: { GO: { actions: assign({ n: ({ context }) => context.n + context.text.length }) } } });`,
  );

  const [hot] = await bothWays(process, ["GO", "GO"]);

  assert.equal(hot.data.n, 2 * hot.data.text.length);
});

test("XState 5: what a service left behind is the same after a reload", async () => {
  const process = await start5(
    `exports.default = setup({ actors: { job: fromPromise(async () => 42) } }).createMachine({
    context: { ref: null, seen: [] }, on: {
      SPAWN: { actions: assign({ ref: ({ spawn }) => spawn("job", { id: "job" }) }) },
      LOOK: { actions: assign({ seen: ({ context }) => {
        const { status, output } = context.ref.getSnapshot(); return [status, output, context.ref.id]; } }) },
      SEND: { actions: sendTo(({ context }) => context.ref, { type: "HELLO" }) },
      STOP: { actions: ({ context }) => context.ref.send({ type: "x" }) } } });`,
  );

  const [hot] = await bothWays(process, ["SPAWN", "LOOK", "SEND", "STOP", "LOOK"]);

  assert.deepEqual(hot.data.seen, ["done", 42, "job"]);
  assert.deepEqual(hot.inbox, [], "what is sent to a service that is gone goes nowhere");
});

test("XState 4: what a service left behind is the same after a reload", async () => {
  const process = await start4(`exports.default = createMachine({ predictableActionArguments: true,
    context: { ref: null, seen: null }, on: {
      SPAWN: { actions: assign({ ref: () => spawn(Promise.resolve(42), "job") }) },
      LOOK: { actions: assign({ seen: ({ ref }) => [ref.id, typeof ref.send, String(ref.getSnapshot())] }) },
      SEND: { actions: send({ type: "HELLO" }, { to: ({ ref }) => ref }) } } });`);

  const [hot] = await bothWays(process, ["SPAWN", "LOOK", "SEND", "LOOK"]);

  assert.deepEqual(hot.data.seen, ["job", "function", "undefined"]);
});

test("XState 4: a guard that looks at the last event finds it after a reload", async () => {
  const process = await start4(`exports.default = createMachine({ predictableActionArguments: true,
    context: { seen: [] }, on: { "*": { actions: assign({
      seen: ({ seen }, event, { state }) => [...seen, state ? state.event.type : "none"] }) },
      ASK: { cond: (_, __, meta) => { console.log(meta.state.event.type); return false; } } } });`);

  const [hot, cold] = await bothWays(process, ["ONE", "ASK", "TWO", "ASK"]);

  for (const instance of [hot, cold]) {
    assert.deepEqual(
      process.logs(undefined).filter((text) => text === "ONE").length,
      2,
      instance.name,
    );
  }
});

test("XState 5: given context extends a static one, and is the input of a function", async () => {
  const fixed = await start5(`exports.default = createMachine({ context: { a: 1, b: { c: 1 } },
    entry: assign({ saw: ({ event }) => event.input }) });`);
  const computed = await start5(
    `exports.default = createMachine({ context: ({ input }) => ({ twice: input.n * 2 }) });`,
  );

  const one = await new Instance(fixed).create({ b: 2, d: 3 });
  const two = await new Instance(computed).create({ n: 21 });
  const none = await new Instance(computed).create();

  assert.deepEqual(one.data, { a: 1, b: 2, d: 3, saw: { b: 2, d: 3 } });
  assert.deepEqual(two.data, { twice: 42 });
  assert.deepEqual(none.data, { twice: null });
});

test("XState 4: given context extends a static one, and what a function gives", async () => {
  const fixed = await start4(
    `exports.default = createMachine({ context: { a: 1, b: { c: 1 } } });`,
  );
  const computed = await start4(
    `exports.default = createMachine({ context: () => ({ made: true }) });`,
  );
  const none = await start4(`exports.default = createMachine({});`);

  assert.deepEqual((await new Instance(fixed).create({ b: 2 })).data, { a: 1, b: 2 });
  assert.deepEqual((await new Instance(computed).create({ b: 2 })).data, { made: true, b: 2 });
  assert.deepEqual((await new Instance(none).create()).data, {});
});

test("simple machines store nothing extra", async () => {
  const on = "initial: 'off', states: { off: { on: { GO: 'on' } }, on: { on: { GO: 'off' } } }";
  for (
    const process of [
      await start5(`exports.default = createMachine({ ${on} });`),
      await start4(`exports.default = createMachine({ predictableActionArguments: true, ${on} });`),
    ]
  ) {
    const [hot] = await bothWays(process, ["GO", "GO", "GO"]);

    assert.equal(hot.extra, "");
    assert.equal(hot.last.effects + hot.last.report, "");
    assert.equal(hot.last.children, "[]");
  }
});
