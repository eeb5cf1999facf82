// Retry policies and effect keys of services, in both majors.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Instance, Process } from "./engine.ts";
import { start4, start5 } from "./small.ts";

// deno-lint-ignore no-explicit-any -- what a bundle of the test leaves there
const shared = globalThis as any;

/** A machine whose service fails `context.failures` times; it says how it ended, and with which keys. */
async function flaky(major: 4 | 5, retry: string, place: "invoke" | "state"): Promise<Process> {
  const meta = `meta: { retry: ${retry} }`;
  const onInvoke = place === "invoke" ? `${meta},` : "";
  const onState = place === "state" ? `${meta},` : "";
  return major === 5
    ? await start5(`globalThis.keys = [];
      const job = fromPromise(async ({ input, self }) => {
        keys.push(self.effectKey);
        if (keys.length <= input) throw new Error("no " + keys.length);
        return "yes";
      });
      const ends = (to) => ({ target: to, actions: assign({ got: ({ event }) => event.output ?? event.error.message }) });
      exports.default = setup({ actors: { job } }).createMachine({ context: { failures: 0, got: "" }, initial: "a",
        states: { a: { on: { GO: "b" } }, b: { ${onState} on: { BACK: "a" }, invoke: { id: "j", src: "job", ${onInvoke}
          input: ({ context }) => context.failures, onDone: ends("c"), onError: ends("d") } }, c: { on: { GO: "b" } }, d: {} } });`)
    : await start4(`globalThis.keys = [];
      const ends = (to) => ({ target: to, actions: assign({ got: (_, event) => event.data.message ?? event.data }) });
      exports.default = createMachine({ predictableActionArguments: true, context: { failures: 0, got: "" }, initial: "a",
        states: { a: { on: { GO: "b" } }, b: { ${onState} on: { BACK: "a" }, invoke: { id: "j", src: "job", ${onInvoke}
          onDone: ends("c"), onError: ends("d") } }, c: { on: { GO: "b" } }, d: {} } }, { services: {
        job: async (context, event, { effectKey }) => {
          keys.push(effectKey);
          if (keys.length <= context.failures) throw new Error("no " + keys.length);
          return "yes";
        } } });`);
}

for (const major of [4, 5] as const) {
  for (const place of ["invoke", "state"] as const) {
    test(`XState ${major}: a service is started again, by the ${place}'s policy`, async () => {
      const process = await flaky(major, "{ attempts: 3, delay: 1 }", place);
      const instance = await new Instance(process).create({ failures: 2 });
      await instance.send({ type: "GO" });

      assert.deepEqual([instance.value, instance.data.got], ["c", "yes"]);
      assert.equal(instance.steps.length, 3, "created, GO, done: a try is no step");
      assert.equal(shared.keys.length, 3);
      assert.equal(new Set(shared.keys).size, 1, "each attempt has the key of its start");
      assert.equal(JSON.parse(instance.steps[1]!.children)[0].key, shared.keys[0]);
      assert.ok(
        instance.trace.some((line) => line.includes("failed (1 of 3), again in 1 ms: Error: no 1")),
        instance.trace.join("\n"),
      );
    });
  }

  test(`XState ${major}: only the last rejection is told to the machine`, async () => {
    const process = await flaky(major, "{ attempts: 2, delay: 0 }", "invoke");
    const instance = await new Instance(process).create({ failures: 9 });
    await instance.send({ type: "GO" });

    assert.deepEqual([instance.value, instance.data.got, shared.keys.length], ["d", "no 2", 2]);
  });

  test(`XState ${major}: each start has a key of its own, also without a policy`, async () => {
    const process = await flaky(major, "undefined", "invoke");
    const instance = await new Instance(process).create({ failures: 0 });
    await instance.send({ type: "GO" });
    await instance.send({ type: "GO" });

    const [first, second] = shared.keys;
    assert.match(first, /^[0-9a-f-]{36}$/);
    assert.notEqual(first, second);
  });

  test(`XState ${major}: a service that is stopped is not started again`, async () => {
    const process = await flaky(major, "{ attempts: 9, delay: 30 }", "invoke");
    const instance = await new Instance(process).create({ failures: 9 });
    const { act } = instance;
    instance.record(await process.ask("S", act, '{"type":"GO"}', "{}"));
    process.say("K", act);
    await process.waitFor(() => instance.trace.some((line) => line.includes("1 of 9")));
    await instance.commit(await process.ask("S", act, '{"type":"BACK"}', "{}"));
    await new Promise((resolve) => setTimeout(resolve, 60));

    assert.deepEqual([instance.value, instance.children, shared.keys.length], ["a", [], 1]);
  });

  test(`XState ${major}: the error of a lost service has its key`, async () => {
    const process = major === 5
      ? await start5(`exports.default = createMachine({ initial: "a", context: {}, states: { a: { on: { GO: "b" } },
          b: { invoke: { id: "j", src: fromPromise(() => new Promise(() => {})), onError: { target: "c",
            actions: assign({ key: ({ event }) => event.error.effectKey }) } } }, c: {} } });`)
      : await start4(`exports.default = createMachine({ initial: "a", context: {}, states: { a: { on: { GO: "b" } },
          b: { invoke: { id: "j", src: () => new Promise(() => {}), onError: { target: "c",
            actions: assign({ key: (_, event) => event.data.effectKey }) } } }, c: {} } });`);
    const instance = await new Instance(process).create();
    instance.record(await process.ask("S", instance.act, '{"type":"GO"}', "{}"));
    process.say("K", instance.act);
    const [{ key }] = instance.children as { key: string }[];
    instance.drop();
    await instance.load();

    assert.deepEqual([instance.value, instance.data.key], ["c", key]);
  });

  for (
    const [retry, problem] of [
      ["3", "must be an object"],
      ["{ attempts: 0 }", "needs attempts: a number from 1 to 100"],
      ["{ attempts: 2.5 }", "a whole number"],
      ["{ delay: 5 }", "needs attempts"],
      ["{ attempts: 2, delay: '1s' }", "needs delay"],
      ["{ attempts: 2, tries: 3 }", "unknown tries"],
    ] as const
  ) {
    test(`XState ${major}: the policy ${retry} is refused with the bundle`, async () => {
      await assert.rejects(flaky(major, retry, "invoke"), (error: Error) => {
        assert.match(error.message, /meta\.retry of j in /);
        assert.ok(error.message.includes(problem), error.message);
        return true;
      });
    });
  }
}
