// allowRead and allowWrite: what they see, and what counts as a yes.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Instance } from "./engine.ts";
import { start4, start5 } from "./small.ts";

const COUNTER = `
  exports.default = createMachine({ id: "counter", initial: "a", context: { n: 0, public: { shown: 1 } },
    states: { a: { on: { GO: { target: "b", actions: assign({ n: (x) => (x.context ?? x).n + 1 }) } } }, b: {} } });
`;
const PAUSE_MS = 5;

for (const [name, start] of [["XState 5", start5], ["XState 4", start4]] as const) {
  test(`${name}: allowWrite sees the request as ordinary properties`, async () => {
    const process = await start(`${COUNTER}
      exports.allowWrite = (request) => {
        const { type, ...others } = request;
        console.log(type, JSON.stringify(others));
        return true;
      };`);
    const instance = await new Instance(process, "i1").create({ given: true });
    await instance.send({ type: "GO", x: 1 });

    const [created, sent] = process.logs();
    assert.equal(
      created,
      'initialization {"machineInstanceName":"i1","context":{"given":true},"authContext":{"sub":"u1"}}',
    );
    assert.equal(
      sent,
      'event {"machineInstanceName":"i1","state":"a","context":{"n":0,"public":{"shown":1},"given":true},' +
        '"event":{"type":"GO","x":1},"authContext":{"sub":"u1"}}',
    );
  });

  test(`${name}: what an authorizer changes in its copies changes nothing`, async () => {
    const process = await start(`${COUNTER}
      exports.allowWrite = (request) => {
        request.context.n = 100;
        if (request.event) request.event.type = "OTHER";
        return request.context.n === 100;
      };`);
    const instance = await new Instance(process).create();
    await instance.send({ type: "GO" });

    assert.deepEqual([instance.value, instance.data.n], ["b", 1]);
  });
}

test("only true allows", async () => {
  const process = await start5(
    `${COUNTER} exports.allowWrite = ({ authContext }) => authContext.answer;`,
  );
  for (const answer of [false, 1, "yes", {}, null]) {
    const instance = new Instance(process);
    instance.auth = { answer };
    await instance.create();
    assert.equal(instance.last.code, 2, `an answer of ${JSON.stringify(answer)}`);
    assert.equal(instance.last.state, "");
  }
});

test("a denial changes nothing, and the instance goes on", async () => {
  const process = await start5(
    `${COUNTER} exports.allowWrite = ({ authContext }) => authContext.sub === "u1";`,
  );
  const instance = await new Instance(process).create();
  const before = instance.state + instance.context;

  await instance.send({ type: "GO" }, { sub: "u2" });
  assert.equal(instance.last.code, 2);
  assert.equal(instance.state + instance.context, before);

  await instance.send({ type: "GO" });
  assert.equal(instance.value, "b");
});

test("a throw is a denial, and logged", async () => {
  const process = await start5(`${COUNTER}
    exports.allowWrite = ({ type }) => { if (type === "event") throw new RangeError("no way"); return true; };
    exports.allowRead = () => { throw new RangeError("no look"); };`);
  const instance = await new Instance(process).create();

  await instance.send({ type: "GO" });

  assert.equal(instance.last.code, 2);
  assert.equal(JSON.parse(instance.last.state).message, "no way");
  assert.match(process.logs(instance.act)[0]!, /allowWrite threw: RangeError: no way/);
  assert.equal(await process.read(instance.state, instance.context, {}), 2);
  assert.match(process.logs("")[0]!, /allowRead threw: RangeError: no look/);
});

test("an instance whose creation was denied is not known", async () => {
  const process = await start5(`${COUNTER} exports.allowWrite = () => false;`);
  const instance = await new Instance(process).create();

  const answer = await process.ask("S", instance.act, '{"type":"GO"}', "{}");

  assert.equal(answer.code, 4);
});

test("a promise is waited for, and holds back the steps after it", async () => {
  const process = await start5(`${COUNTER}
    exports.allowWrite = async ({ type, event }) => {
      if (type === "event") await new Promise((resolve) => setTimeout(resolve, event.wait));
      return event?.deny !== true;
    };`);
  const instance = await new Instance(process).create();

  const slow = process.ask(
    "S",
    instance.act,
    JSON.stringify({ type: "NONE", wait: PAUSE_MS, deny: true }),
    "{}",
  );
  const quick = process.ask("S", instance.act, JSON.stringify({ type: "GO", wait: 0 }), "{}");
  const [first, second] = await Promise.all([slow, quick]);

  assert.deepEqual([first.code, second.code], [2, 0]);
  const answers = process.lines.filter((line) =>
    line.startsWith(`${first.rid}\t`) || line.startsWith(`${second.rid}\t`)
  );
  assert.ok(answers[0]!.startsWith(`${first.rid}\t`), "in order");
});

test("a promise that is rejected is a denial", async () => {
  const process = await start5(
    `${COUNTER} exports.allowWrite = async () => { throw new Error("later no"); };
    exports.allowRead = async ({ authContext }) => authContext.ok;`,
  );
  const instance = await new Instance(process).create();

  assert.equal(instance.last.code, 2);
  assert.equal(JSON.parse(instance.last.state).message, "later no");
  assert.equal(await process.read('{"state":"a","tags":[],"done":false}', "{}", { ok: true }), 0);
  assert.equal(await process.read('{"state":"a","tags":[],"done":false}', "{}", { ok: false }), 2);
});

test("an activation that is forgotten while its authorizer thinks says nothing more", async () => {
  const process = await start5(`${COUNTER}
    let answer; globalThis.answerOfTheTest = () => answer(true);
    exports.allowWrite = ({ type }) => type === "initialization" || new Promise((resolve) => { answer = resolve; });`);
  const instance = await new Instance(process).create();
  process.say("S", instance.act, "77", '{"type":"GO"}', "{}");
  process.say("D", instance.act);

  (globalThis as unknown as { answerOfTheTest: () => void }).answerOfTheTest();
  await new Promise((resolve) => setTimeout(resolve, 0));

  assert.ok(!process.hasAnswered("77"));
});

test("allowRead sees state, context and authContext of what is stored", async () => {
  const process = await start5(`${COUNTER}
    exports.allowRead = (request) => {
      console.log(JSON.stringify(request));
      return request.authContext.sub === "u1";
    };`);
  const state = '{"state":{"a":"b"},"tags":["t"],"done":false}';

  assert.equal(await process.read(state, '{"n":1}', { sub: "u1" }), 0);
  assert.equal(await process.read(state, '{"n":1}', { sub: "u2" }), 2);
  assert.equal(
    process.logs("")[0],
    '{"machineInstanceName":"reader","state":{"a":"b"},"context":{"n":1},"authContext":{"sub":"u1"}}',
  );
});
