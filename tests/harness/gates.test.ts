// Between a step and its commit nothing leaves the process.

import assert from "node:assert/strict";
import { test } from "node:test";
import { type Any, Instance, type Process } from "./engine.ts";
import { start4, start5 } from "./small.ts";

const GO = JSON.stringify({ type: "GO" });
const AUTH = "{}";

async function turn(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 0));
}

async function instanceOf(process: Process): Promise<Instance> {
  const instance = await new Instance(process).create();
  instance.trace = [];
  return instance;
}

test("a log line waits for the commit; the runner says that something waits", async () => {
  const process = await start5(`exports.default = createMachine({ context: { n: 0 },
    on: { GO: { actions: assign(({ context }) => { console.log("assigning", context.n); return { n: context.n + 1 }; }) } } });`);
  const instance = await instanceOf(process);

  const answer = await process.ask("S", instance.act, GO, AUTH);

  assert.equal(answer.code, 0);
  assert.deepEqual(instance.trace, []);
  assert.equal(process.lines.at(-1), `W\t${instance.act}`);
  process.say("K", instance.act);
  assert.deepEqual(instance.trace, ["assigning 0"]);
  assert.equal(process.lines.at(-1), `K\t${instance.act}\t0`);
});

test("a chain of steps asks for its commit once", async () => {
  const process = await start5(`exports.default = createMachine({ context: { n: 0 },
    on: { GO: { actions: assign(({ context }) => { console.log("n", context.n); return { n: context.n + 1 }; }) } } });`);
  const instance = await instanceOf(process);

  for (let i = 0; i < 3; i++) {
    await process.ask("S", instance.act, GO, AUTH);
  }

  assert.equal(process.lines.filter((line) => line === `W\t${instance.act}`).length, 1);
  process.say("K", instance.act);
  assert.deepEqual(instance.trace, ["n 0", "n 1", "n 2"]);
});

test("what waits is dropped with the activation", async () => {
  const process = await start5(`exports.default = createMachine({ on: { GO: { actions: [
    () => console.log("action"), assign(() => { console.log("assign"); fetch("https://example.com/"); return {}; })] } } });`);
  const instance = await instanceOf(process);
  await process.ask("S", instance.act, GO, AUTH);

  process.say("D", instance.act);
  process.say("K", instance.act);
  await turn();

  assert.deepEqual(instance.trace, []);
  assert.ok(!process.lines.some((line) => line.startsWith("F\t")));
});

test("what has just been let through does not leave once the activation has ended", async () => {
  const process = await start5(`exports.default = createMachine({ initial: "a", states: {
    a: { on: { GO: "b" } },
    b: { invoke: { src: fromPromise(() => fetch("https://example.com/")) } } } });`);
  const instance = await instanceOf(process);
  await process.ask("S", instance.act, GO, AUTH);

  process.runner.feed([`K\t${instance.act}`, `D\t${instance.act}`]); // in one write
  await turn();

  assert.ok(!process.lines.some((line) => line.startsWith("F\t")));
});

test("a step that throws: its logs go out at once, what it began never does", async () => {
  const process = await start5(
    `exports.default = createMachine({ context: {}, on: { GO: { actions: assign(() => {
      console.log("before the throw");
      fetch("https://example.com/thrown");
      Promise.resolve().then(() => { console.log("afterwards"); fetch("https://example.com/later"); });
      throw new Error("thrown");
    }) } } });`,
  );
  const instance = await instanceOf(process);

  const answer = await process.ask("S", instance.act, GO, AUTH);
  await turn();
  process.say("K", instance.act);
  await turn();

  assert.equal(answer.code, 3);
  assert.deepEqual(instance.trace, ["before the throw"]);
  assert.ok(!process.lines.some((line) => line.startsWith("F\t")));
});

test("steps after one with work wait for its commit", async () => {
  const process = await start5(
    `exports.default = createMachine({ context: { n: 0 }, on: { GO: { actions: [
    assign({ n: ({ context }) => context.n + 1 }), ({ context }) => console.log("action", context.n)] } } });`,
  );
  const instance = await instanceOf(process);

  process.say("S", instance.act, "71", GO, AUTH);
  process.say("S", instance.act, "72", GO, AUTH);
  assert.deepEqual([process.hasAnswered("71"), process.hasAnswered("72")], [true, false]);
  process.say("K", instance.act);
  assert.ok(process.hasAnswered("72"));
  assert.deepEqual(instance.trace, ["action 1"]);
  process.say("K", instance.act);
  assert.deepEqual(instance.trace, ["action 1", "action 2"]);
});

test("a fetch in an assign goes out with the commit, and its answer arrives", async () => {
  const process = await start5(
    `let body; exports.default = createMachine({ context: {}, initial: "a", states: {
    a: { on: { GO: { target: "b", actions: assign(() => {
      fetch("https://example.com/x?y", { method: "POST", body: "hello", headers: { "x-a": "1" } })
        .then(async (response) => console.log(response.status, response.url, await response.text()));
      return {}; }) } } }, b: {} } });`,
  );
  const instance = await instanceOf(process);
  await process.ask("S", instance.act, GO, AUTH);
  await turn();
  assert.deepEqual(instance.trace, []);

  process.say("K", instance.act);
  const line = await process.waitFor((lines) => lines.find((line) => line.startsWith("F\t")));
  const [, fid, act, json] = line.split("\t");
  const request = JSON.parse(json!);
  assert.equal(act, instance.act);
  assert.deepEqual([request.method, request.url, request.redirect], [
    "POST",
    "https://example.com/x?y",
    "follow",
  ]);
  assert.equal(atob(request.body), "hello");
  assert.deepEqual(request.headers.find(([name]: string[]) => name === "x-a"), ["x-a", "1"]);

  const url = "https://example.com/final";
  process.say(
    "F",
    fid!,
    JSON.stringify({
      head: { status: 201, statusText: "Created", headers: [], url, redirected: true },
    }),
  );
  process.say("F", fid!, JSON.stringify({ chunk: btoa("wor") }));
  process.say("F", fid!, JSON.stringify({ chunk: btoa("ld") }));
  process.say("F", fid!, JSON.stringify({ end: true }));
  await process.waitFor(() => instance.trace.some((text) => text.startsWith("201")));
  assert.equal(instance.trace.at(-1), "201 https://example.com/final world");
});

for (
  const [name, news] of [
    ["at once", [{ error: "address not allowed" }]],
    ["in the middle", [{ head: { status: 200, headers: [], url: "https://example.com/" } }, {
      chunk: "AAAA",
    }, { error: "reset" }]],
  ] as [string, Any[]][]
) {
  test(`a fetch that fails ${name} rejects`, async () => {
    const process = await start5(
      `exports.default = createMachine({ on: { GO: { actions: async () => {
      try { await (await fetch("https://example.com/")).text(); } catch (error) { console.log(error.name, error.message); } } } } });`,
    );
    const instance = await instanceOf(process);
    await process.ask("S", instance.act, GO, AUTH);
    process.say("K", instance.act);
    const line = await process.waitFor((lines) => lines.find((line) => line.startsWith("F\t")));

    for (const one of news) {
      process.say("F", line.split("\t")[1]!, JSON.stringify(one));
      await turn();
    }

    await process.waitFor(() => instance.trace.some((text) => text.startsWith("TypeError")));
  });
}

test("a fetch can be aborted, and is when its activation goes", async () => {
  const process = await start5(`const abort = new AbortController();
    exports.default = createMachine({ on: {
      GO: { actions: () => { fetch("https://example.com/1", { signal: abort.signal }).catch((e) => console.log(e.name)); } },
      MORE: { actions: () => { fetch("https://example.com/2").catch(() => {}); } },
      ABORT: { actions: () => abort.abort() } } });`);
  const instance = await instanceOf(process);
  await instance.send({ type: "GO" });
  await process.waitFor((lines) => lines.some((line) => line.includes("example.com/1")));
  await instance.send({ type: "ABORT" });
  await process.waitFor((lines) => lines.includes("Q\t1"));
  await process.waitFor(() => instance.trace.includes("AbortError"));
  await instance.send({ type: "MORE" });
  await process.waitFor((lines) => lines.some((line) => line.includes("example.com/2")));

  instance.drop();

  assert.equal(process.lines.at(-1), "Q\t2");
});

test("fetch refuses what is not http", async () => {
  const process = await start5(`exports.default = createMachine({ on: { GO: { actions: () => {
    for (const url of ["file:///etc/passwd", "data:text/plain,x", "ftp://example.com/"])
      fetch(url).catch((e) => console.log(e.message)); } } } });`);
  const instance = await instanceOf(process);
  await instance.send({ type: "GO" });
  await turn();

  assert.equal(instance.trace.filter((text) => text.includes("is not supported")).length, 3);
});

test("an authorizer may fetch before it decides", async () => {
  const process = await start5(
    `exports.default = createMachine({ initial: "a", states: { a: { on: { GO: "b" } }, b: {} } });
    exports.allowWrite = async ({ type }) => type === "initialization" || (await fetch("https://example.com/may")).ok;`,
  );
  const instance = await instanceOf(process);
  const answer = process.ask("S", instance.act, GO, AUTH);
  const line = await process.waitFor((lines) => lines.find((line) => line.startsWith("F\t")));
  const fid = line.split("\t")[1]!;
  process.say(
    "F",
    fid,
    JSON.stringify({ head: { status: 204, headers: [], url: "https://example.com/may" } }),
  );

  assert.equal((await answer).code, 0);
});

test("a log line of an authorizer does not wait", async () => {
  const process = await start5(`exports.default = createMachine({});
    exports.allowWrite = () => { console.log("asked"); return true; };`);
  const instance = await instanceOf(process);

  const { code } = await process.ask("S", instance.act, GO, AUTH);

  assert.equal(code, 1);
  assert.deepEqual(instance.trace, ["asked"]);
});

test("XState 4: what a spawned promise does before its first await waits, too", async () => {
  const process = await start4(
    `exports.default = createMachine({ context: {}, on: { GO: { actions: assign({ ref: () =>
    spawn((async () => { await fetch("https://example.com/"); })(), "job") }) } } });`,
  );
  const instance = await instanceOf(process);

  const answer = await process.ask("S", instance.act, GO, AUTH);
  await turn();
  assert.equal(answer.code, 5);
  assert.ok(!process.lines.some((line) => line.startsWith("F\t")));

  process.say("K", instance.act);
  await process.waitFor((lines) => lines.some((line) => line.startsWith("F\t")));
});

test("log lines without end don't fill the memory while they wait", async () => {
  const process = await start5(
    `exports.default = createMachine({ on: { GO: { actions: assign(() => {
    for (let i = 0; i < 5000; i++) console.log(i, "x".repeat(20000)); return {}; }) } } });`,
  );
  const instance = await instanceOf(process);
  await process.ask("S", instance.act, GO, AUTH);
  process.say("K", instance.act);

  assert.equal(instance.trace.length, 1000);
  assert.ok(instance.trace.every((text) => text.length <= 8 * 1024 + 1));
});
