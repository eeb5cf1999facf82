// Ephemeral services: what `children` says of them, how they end, and what is owed to the machine.

import assert from "node:assert/strict";
import { test } from "node:test";
import { type Answer, Instance, type Process } from "./engine.ts";
import { start4, start5 } from "./small.ts";

const AUTH = "{}";

function childrenOf(answer: Answer): string[] {
  return JSON.parse(answer.children).map(({ id }: { id: string }) => id);
}

function startedAndStopped(answer: Answer): [string[], string[]] {
  const { started, stopped } = JSON.parse(answer.report);
  return [started, stopped];
}

async function step(
  process: Process,
  instance: Instance,
  kind: string,
  ...fields: string[]
): Promise<Answer> {
  const answer = await process.ask(kind, instance.act, ...fields);
  instance.record(answer);
  return answer;
}

const event = (type: string) => JSON.stringify({ type });

test("a service is listed until its last event was taken", async () => {
  const process = await start5(
    `exports.default = setup({ actors: { job: fromPromise(async () => 1) } }).createMachine({
    initial: "a", context: { n: 0 }, on: { COUNT: { actions: assign({ n: ({ context }) => context.n + 1 }) } },
    states: { a: { on: { GO: "b" } }, b: { invoke: { id: "j", src: "job", onDone: "c" } }, c: {} } });`,
  );
  const instance = await new Instance(process).create();

  const started = await step(process, instance, "S", event("GO"), AUTH);
  assert.deepEqual([started.code, childrenOf(started)], [5, ["j"]]);
  assert.deepEqual(startedAndStopped(started), [["j"], []]);
  process.say("K", instance.act);
  await process.waitFor(() => instance.inbox.length > 0);
  const between = await step(process, instance, "S", event("COUNT"), AUTH);
  assert.deepEqual([between.code, childrenOf(between)], [0, ["j"]], "its result is still owed");
  const done = await step(process, instance, "V", "1");
  assert.deepEqual([done.code, childrenOf(done), instance.value], [0, [], "c"]);
});

test("an end that the machine does not care about is a step all the same", async () => {
  for (
    const process of [
      await start5(
        `exports.default = createMachine({ initial: "a", states: { a: { on: { GO: "b" } },
      b: { invoke: { id: "j", src: fromPromise(async () => 1) } } } });`,
      ),
      await start4(
        `exports.default = createMachine({ initial: "a", states: { a: { on: { GO: "b" } },
      b: { invoke: { id: "j", src: async () => 1 } } } });`,
      ),
    ]
  ) {
    const instance = await new Instance(process).create();
    await instance.send({ type: "GO" });

    assert.deepEqual([instance.last.code, instance.children, instance.value], [0, [], "b"]);
  }
});

test("an error that the machine does not care about is logged, and the machine lives", async () => {
  for (
    const process of [
      await start5(
        `exports.default = createMachine({ initial: "a", states: { a: { on: { GO: "b" } },
      b: { invoke: { id: "j", src: fromPromise(async () => { throw new Error("job failed"); }) }, on: { BACK: "a" } } } });`,
      ),
      await start4(
        `exports.default = createMachine({ initial: "a", states: { a: { on: { GO: "b" } },
      b: { invoke: { id: "j", src: async () => { throw new Error("job failed"); } }, on: { BACK: "a" } } } });`,
      ),
    ]
  ) {
    const instance = await new Instance(process).create();
    await instance.send({ type: "GO" });
    assert.deepEqual([instance.last.code, instance.children], [0, []]);
    assert.ok(instance.trace.some((text) => text.includes("job failed")), instance.trace.join());

    await instance.send({ type: "BACK" });
    assert.equal(instance.value, "a");
  }
});

test("lost services: each is told to the machine, or dropped from the list", async () => {
  const five =
    `exports.default = createMachine({ initial: "a", context: { errors: [] }, states: { a: { on: { GO: "b" } },
    b: { invoke: [{ id: "x", src: fromPromise(() => new Promise(() => {})), onError: { actions: assign({
      errors: ({ context, event }) => [...context.errors, event.error.name] }) } },
      { id: "y", src: fromPromise(() => new Promise(() => {})) }], on: { BACK: "a" } } } });`;
  const four =
    `exports.default = createMachine({ initial: "a", context: { errors: [] }, states: { a: { on: { GO: "b" } },
    b: { invoke: [{ id: "x", src: () => new Promise(() => {}), onError: { actions: assign({
      errors: ({ errors }, { data }) => [...errors, data.name] }) } },
      { id: "y", src: () => new Promise(() => {}) }], on: { BACK: "a" } } } });`;
  for (const process of [await start5(five), await start4(four)]) {
    const instance = await new Instance(process).create();
    await step(process, instance, "S", event("GO"), AUTH);
    process.say("K", instance.act);
    assert.deepEqual(childrenOf(instance.last), ["x", "y"]);
    instance.drop();
    instance.steps = [];

    await instance.send({ type: "BACK" });

    assert.deepEqual(instance.steps.map(childrenOf), [["y"], [], []]);
    assert.deepEqual(instance.data.errors, ["ServiceLost"]);
    assert.equal(instance.value, "a");
  }
});

test("a service that still runs can be taken for lost: it is stopped", async () => {
  const process = await start5(
    `exports.default = createMachine({ initial: "a", states: { a: { on: { GO: "b" } },
    b: { invoke: { id: "x", src: fromCallback(() => () => console.log("stopped")), onError: "c" } }, c: {} } });`,
  );
  const instance = await new Instance(process).create();
  await step(process, instance, "S", event("GO"), AUTH);
  process.say("K", instance.act);

  const lost = await step(process, instance, "O", '"x"');
  process.say("K", instance.act);

  assert.deepEqual([childrenOf(lost), instance.value], [[], "c"]);
  assert.ok(instance.trace.includes("stopped"));
});

test("the late result of a service that was stopped is not that of the next one", async () => {
  const process = await start5(
    `let finish = []; globalThis.finishOfTheTest = (i, x) => finish[i](x);
    exports.default = createMachine({ initial: "a", context: { got: [] }, states: { a: { on: { GO: "b" } },
      b: { invoke: { id: "j", src: fromPromise(() => new Promise((resolve) => finish.push(resolve))),
        onDone: { actions: assign({ got: ({ context, event }) => [...context.got, event.output] }) } },
        on: { AGAIN: { target: "b", reenter: true } } } } });`,
  );
  const finish = (i: number, x: string) =>
    (globalThis as unknown as { finishOfTheTest: (i: number, x: string) => void }).finishOfTheTest(
      i,
      x,
    );
  const instance = await new Instance(process).create();
  await step(process, instance, "S", event("GO"), AUTH);
  process.say("K", instance.act);
  finish(0, "first");
  await process.waitFor(() => instance.inbox.length === 1);

  await step(process, instance, "S", event("AGAIN"), AUTH); // is answered before the result is taken
  process.say("K", instance.act);
  const late = await step(process, instance, "V", "1");
  finish(1, "second");
  await process.waitFor(() => instance.inbox.length === 2);
  await step(process, instance, "V", "2");

  assert.equal(late.code, 1);
  assert.deepEqual(instance.data.got, ["second"]);
});

test("a step that throws while services live leaves them alone", async () => {
  const five =
    `exports.default = createMachine({ initial: "a", context: { n: 0, ref: null }, states: { a: { on: { GO: "b" } },
    b: { entry: assign({ ref: ({ spawn }) => spawn(fromCallback(({ receive, sendBack }) => receive(() => sendBack({ type: "PONG" }))), { id: "s", systemId: "sys" }) }),
      on: { BAD: { target: "c", actions: assign(({ spawn }) => { spawn(fromCallback(() => {}), { id: "t", systemId: "other" }); throw new Error("no"); }) },
        PING: { actions: sendTo(({ context }) => context.ref, { type: "PING" }) },
        BYNAME: { actions: sendTo(({ system }) => system.get("sys"), { type: "PING" }) },
        PONG: { actions: assign({ n: ({ context }) => context.n + 1 }) }, END: "c" },
      exit: ({ context, self }) => self.system.get("sys")?._stop() }, c: {} } });`;
  const four =
    `exports.default = createMachine({ predictableActionArguments: true, initial: "a", context: { n: 0, ref: null }, states: { a: { on: { GO: "b" } },
    b: { entry: assign({ ref: () => spawn((sendBack, receive) => receive(() => sendBack({ type: "PONG" })), "s") }),
      on: { BAD: { target: "c", actions: assign(() => { spawn(() => {}, "t"); throw new Error("no"); }) },
        PING: { actions: send({ type: "PING" }, { to: ({ ref }) => ref }) }, BYNAME: { actions: send({ type: "PING" }, { to: "s" }) },
        PONG: { actions: assign({ n: ({ n }) => n + 1 }) } } }, c: {} } });`;
  for (const process of [await start5(five), await start4(four)]) {
    const instance = await new Instance(process).create();
    await step(process, instance, "S", event("GO"), AUTH);
    process.say("K", instance.act);

    for (let i = 0; i < 2; i++) {
      const thrown = await step(process, instance, "S", event("BAD"), AUTH);
      assert.equal(thrown.code, 3);
    }
    for (const [i, type] of ["PING", "BYNAME"].entries()) {
      const sent = await step(process, instance, "S", event(type), AUTH);
      assert.deepEqual(childrenOf(sent), ["s"]);
      process.say("K", instance.act);
      await process.waitFor(() => instance.inbox.length === i + 1, `after ${type}`);
      await step(process, instance, "V", String(i + 1));
    }
    assert.equal(instance.data.n, 2);
  }
});

test("an inbox event that threw can be tried again", async () => {
  const process = await start5(
    `exports.default = createMachine({ initial: "a", context: {}, states: { a: { on: { GO: "b" } },
    b: { invoke: { id: "j", src: fromPromise(async () => 1), onDone: { target: "c", actions: assign(() => {
      if (globalThis.failOfTheTest) throw new Error("not now"); return {}; }) } } }, c: {} } });`,
  );
  const instance = await new Instance(process).create();
  await step(process, instance, "S", event("GO"), AUTH);
  process.say("K", instance.act);
  await process.waitFor(() => instance.inbox.length === 1);

  Object.assign(globalThis, { failOfTheTest: true });
  const thrown = await step(process, instance, "V", "1");
  Object.assign(globalThis, { failOfTheTest: false });
  const again = await step(process, instance, "V", "1");

  assert.deepEqual([thrown.code, again.code, instance.value], [3, 0, "c"]);
});

test("an inbox event that does not exist is an error of its step", async () => {
  const process = await start5(`exports.default = createMachine({});`);
  const instance = await new Instance(process).create();

  const answer = await process.ask("V", instance.act, "9");

  assert.equal(answer.code, 3);
  assert.match(JSON.parse(answer.state).message, /no inbox event 9/);
});

test("when a machine is done its services are stopped, and events change nothing", async () => {
  for (
    const process of [
      await start5(
        `exports.default = createMachine({ initial: "a", context: { n: 7 }, output: ({ context }) => ({ n: context.n }),
      invoke: { id: "x", src: fromCallback(() => () => console.log("stopped")) },
      states: { a: { on: { END: "z" }, after: { 1000: "z" } }, z: { type: "final" } }, on: { ANY: { actions: assign({ n: 1 }) } } });`,
      ),
      await start4(
        `exports.default = createMachine({ predictableActionArguments: true, initial: "a", context: { n: 7 },
      invoke: { id: "x", src: () => () => () => console.log("stopped") },
      states: { a: { on: { END: "z" }, after: { 1000: "z" } }, z: { type: "final", data: { n: ({ n }) => n } } },
      on: { ANY: { actions: assign({ n: () => 1 }) } } });`,
      ),
    ]
  ) {
    const instance = new Instance(process);
    instance.activate();
    instance.record(await process.ask("C", instance.act, "i", "{}", AUTH, ""));
    process.say("K", instance.act);

    const end = await step(process, instance, "S", event("END"), AUTH);
    process.say("K", instance.act);
    const after = await step(process, instance, "S", event("ANY"), AUTH);

    assert.deepEqual([instance.done, childrenOf(end), JSON.parse(end.extra).output], [true, [], {
      n: 7,
    }]);
    assert.deepEqual(startedAndStopped(end), [[], ["x"]]);
    assert.ok(instance.trace.includes("stopped"));
    assert.deepEqual([after.code, after.state], [1, end.state]);
    instance.drop();
    await instance.send({ type: "ANY" });
    assert.equal(instance.last.code, 1);
  }
});

test("delayed sends to a service stay in memory, and can be cancelled", async () => {
  const body = (cancel: string, to: string) =>
    `exports.default = createMachine({ predictableActionArguments: true, initial: "a",
    states: { a: { on: { GO: "b" } }, b: { invoke: { id: "s", src: ${to} }, on: {
      LATER: { actions: later }, CANCEL: { actions: ${cancel}("d") }, PONG: "a" } } } });`;
  for (
    const process of [
      await start5(
        `const { cancel } = require("npm:xstate@5"); const later = sendTo("s", { type: "PING" }, { delay: 5, id: "d" });
      ${
          body(
            "cancel",
            'fromCallback(({ receive, sendBack }) => receive(() => sendBack({ type: "PONG" })))',
          )
        }`,
      ),
      await start4(`const later = send({ type: "PING" }, { to: "s", delay: 5, id: "d" });
      ${
        body(
          "actions.cancel",
          '() => (sendBack, receive) => receive(() => sendBack({ type: "PONG" }))',
        )
      }`),
    ]
  ) {
    const instance = await new Instance(process).create();
    await step(process, instance, "S", event("GO"), AUTH);
    process.say("K", instance.act);
    for (const type of ["LATER", "CANCEL", "LATER"]) {
      const { code } = await step(process, instance, "S", event(type), AUTH);
      assert.equal(code, 5);
      process.say("K", instance.act);
    }
    await process.waitFor(() => instance.inbox.length > 0);
    await step(process, instance, "V", "1");

    assert.deepEqual([instance.timers, instance.value], [[], "a"]);
  }
});

test("timers without an id, and with the same one, are timers of their own", async () => {
  for (
    const process of [
      await start5(
        `const { raise } = require("npm:xstate@5"); const later = (ms) => raise({ type: "T" }, { delay: ms });
      exports.default = createMachine({ on: { GO: { actions: [later(1), later(2)] } } });`,
      ),
      await start4(
        `exports.default = createMachine({ predictableActionArguments: true, on: { GO: { actions: [
      send({ type: "T" }, { delay: 1 }), send({ type: "T" }, { delay: 2 })] } } });`,
      ),
    ]
  ) {
    const instance = await new Instance(process).create();
    await instance.send({ type: "GO" });

    assert.deepEqual(instance.timers.map(({ due }) => due), [1, 2]);
    assert.ok(instance.timers.every(({ id }) => id.length > 0));
  }
});

test("XState 4: a callback that throws when it is called has ended", async () => {
  const process = await start4(
    `exports.default = createMachine({ initial: "a", states: { a: { on: { GO: "b" } },
    b: { invoke: { id: "s", src: () => () => { throw new Error("at once"); }, onError: { actions: actions.log((_, e) => e.data.message) } } } } });`,
  );
  const instance = await new Instance(process).create();

  await instance.send({ type: "GO" });

  assert.deepEqual([instance.children, instance.value], [[], "b"]);
  assert.ok(instance.trace.includes("at once"));
});

test("XState 4: an escalated error does not end the machine that sent it", async () => {
  const process = await start4(
    `const child = createMachine({ initial: "x", states: { x: { entry: actions.escalate("trouble"), on: { END: "y" } }, y: { type: "final" } } });
    exports.default = createMachine({ initial: "a", context: { heard: [] }, states: { a: { on: { GO: "b" } }, b: { invoke: { id: "s", src: child,
      onError: { actions: [assign({ heard: ({ heard }, e) => [...heard, e.data] }), send({ type: "END" }, { to: "s" })] }, onDone: "c" } }, c: {} } });`,
  );
  const instance = await new Instance(process).create();

  await instance.send({ type: "GO" });

  assert.deepEqual([instance.data.heard, instance.value], [["trouble"], "c"]);
});

test("XState 4: a machine that gets every event gets it after the commit", async () => {
  const process = await start4(
    `const child = createMachine({ initial: "x", states: { x: { on: { HEY: { actions: () => console.log("child heard") } } } } });
    exports.default = createMachine({ initial: "a", states: { a: { on: { GO: "b" } }, b: { invoke: { id: "s", src: child, autoForward: true } } } });`,
  );
  const instance = await new Instance(process).create();
  await step(process, instance, "S", event("GO"), AUTH);
  process.say("K", instance.act);

  const { code } = await step(process, instance, "S", event("HEY"), AUTH);
  assert.deepEqual([code, instance.trace.includes("child heard")], [5, false]);
  process.say("K", instance.act);
  assert.ok(instance.trace.includes("child heard"));
});

test("XState 4: a service that its creator declined to make is gone again", async () => {
  const process = await start4(
    `exports.default = createMachine({ initial: "a", states: { a: { on: { GO: "b" } },
    b: { invoke: { id: "s", src: () => undefined } } } });`,
  );
  const instance = await new Instance(process).create();

  await instance.send({ type: "GO" });

  assert.deepEqual([instance.children, instance.value, instance.steps.length], [[], "b", 3]);
});

test("XState 4: a machine spawned in an assign can be sent to in the same step", async () => {
  const process = await start4(
    `const child = createMachine({ predictableActionArguments: true, initial: "x", states: { x: { on: {
      PING: { actions: actions.respond("PONG") } } } } });
    exports.default = createMachine({ predictableActionArguments: true, context: { ref: null, n: 0, first: null }, on: {
      GO: { actions: [assign({ ref: () => spawn(child, "kid") }), assign({ first: ({ ref }) => ref.getSnapshot().value }),
        send({ type: "PING" }, { to: ({ ref }) => ref })] },
      AGAIN: { actions: send({ type: "PING" }, { to: ({ ref }) => ref }) },
      PONG: { actions: assign({ n: ({ n }) => n + 1 }) }, END: { actions: actions.stop(({ ref }) => ref) } } });`,
  );
  const instance = await new Instance(process).create();

  await step(process, instance, "S", event("GO"), AUTH);
  process.say("K", instance.act);
  await process.waitFor(() => instance.inbox.length === 1);
  await step(process, instance, "V", "1");
  await step(process, instance, "S", event("AGAIN"), AUTH);
  process.say("K", instance.act);
  await process.waitFor(() => instance.inbox.length === 2);
  await step(process, instance, "V", "2");
  const end = await step(process, instance, "S", event("END"), AUTH);

  assert.deepEqual([instance.data.first, instance.data.n], ["x", 2]);
  assert.deepEqual(childrenOf(end), []);
});

test("XState 5: a service that is stopped in the step that starts it never runs", async () => {
  const process = await start5(
    `exports.default = createMachine({ initial: "a", states: { a: { on: { GO: "b" } },
    b: { invoke: { id: "s", src: fromCallback(() => console.log("ran")) }, always: "c" }, c: {} } });`,
  );
  const instance = await new Instance(process).create();

  await instance.send({ type: "GO" });

  assert.deepEqual([instance.value, instance.children, instance.last.code], ["c", [], 0]);
  assert.ok(!instance.trace.includes("ran"));
});
