// Random machines whose states are all renamed from one version to the next, upgraded in the middle
// of their lives. The rest of the life is the same
//
//   - whether the instance stays in memory after its upgrade or is loaded for each event, and
//   - as without an upgrade, if XState has the same major version in both.
//
// To replay a failure: deno test … upgrade_property.test.ts -- --seed=5:4:1234

import assert from "node:assert/strict";
import { test } from "node:test";
import { type Any, Instance, Process } from "./engine.ts";
import { EVENTS, Generator, type NodeDescription, randomOf } from "./generator.ts";
import { type Plain, plain4, plain5, settle } from "./plain.ts";
import { forgetPromises, settleOne } from "./promises.ts";
import { customActions4, render4 } from "./render4.ts";
import { customActions5, render5 } from "./render5.ts";

type Major = 4 | 5;
type Stimulus = { type: string } | "timer";

const WAYS: [Major, Major][] = [[4, 4], [5, 5], [4, 5], [5, 4]];
const MACHINES = Number(argument("machines") ?? 100);
const FIRST_SEED = Number(argument("from") ?? 1);
const ONLY = argument("seed");
const EVENTS_PER_MACHINE = 14;
const RENAMING = 1;

const BUNDLE = "module.exports = globalThis.bundleOfTheTest";

for (const [from, to] of WAYS) {
  test(`random machines from XState ${from} to ${to}`, {
    skip: ONLY !== undefined && !ONLY.startsWith(`${from}:${to}:`),
  }, async () => {
    const old = await Process.startEmpty();
    const next = await Process.startEmpty();
    next.learn(
      RENAMING,
      `exports.upgradeState = (path) => path.map((key) => key.replace("n", "m"));
       exports.upgradeContext = (oldPaths, newPaths, context) => context;`,
    );
    let upgraded = 0;
    for (let seed = ONLY ? Number(ONLY.split(":")[2]) : FIRST_SEED; upgraded < MACHINES; seed++) {
      if (await compareLives(old, next, from, to, seed)) {
        upgraded++;
      }
      old.forget();
      next.forget();
      assert.ok(seed < FIRST_SEED + MACHINES * 10 || ONLY, "most machines should be upgraded");
      if (ONLY !== undefined) {
        break;
      }
    }
    console.info(`${upgraded} machines`);
  });
}

/** False if the machine can't be upgraded, or is one that XState itself has trouble with. */
async function compareLives(
  old: Process,
  next: Process,
  from: Major,
  to: Major,
  seed: number,
): Promise<boolean> {
  const random = randomOf(seed);
  const description = new Generator(random).machine();
  const renamed = withOtherNames(description);
  const stimuli = Array.from(
    { length: EVENTS_PER_MACHINE },
    (): Stimulus =>
      random() < 0.25 ? "timer" : { type: EVENTS[Math.floor(random() * EVENTS.length)]! },
  );
  const before = Math.floor(random() * (EVENTS_PER_MACHINE - 4));
  if (!await behaves(from, description, stimuli) || !await behaves(to, description, stimuli)) {
    return false;
  }
  await load(old, from, description);
  await load(next, to, renamed);
  try {
    const known = await prefix(old, from, stimuli.slice(0, before));
    if (known === undefined) {
      return false;
    }
    const rest = stimuli.slice(before);
    const hot = await live(await upgrade(known, next), to, rest, false);
    const cold = await live(await upgrade(known, next), to, rest, true);
    assert.deepEqual(hot, cold, "kept in memory, and loaded for every event");
    if (from === to && await isPlain(known)) {
      const same = await live(known.copyIn(old), from, rest, true);
      assert.deepEqual(hot, same, "with and without an upgrade");
    }
  } catch (error) {
    if (from !== to && /nothing came from a service/.test((error as Error).message)) {
      return false; // another major version may get into a state whose services never end
    }
    throw new Error(`seed ${from}:${to}:${seed}, ${before}: ${(error as Error).message}`, {
      cause: error,
    });
  }
  return true;
}

/** The same machine with another name for each state. */
function withOtherNames(description: NodeDescription): NodeDescription {
  const json = JSON.stringify(
    description,
    (key, value) => key === "parent" ? undefined : value,
  );
  return JSON.parse(json.replace(/"n(\d+)"/g, '"m$1"'));
}

function render(major: Major, description: NodeDescription): Any {
  return major === 5 ? render5(description) : render4(description, true);
}

async function load(process: Process, major: Major, description: NodeDescription): Promise<void> {
  Object.assign(globalThis, {
    bundleOfTheTest: {
      default: render(major, description),
      allowRead: () => true,
      allowWrite: () => true,
    },
  });
  const loaded = await process.load(BUNDLE, []);
  assert.ok(loaded.ok, JSON.stringify(loaded.error));
}

/** Whether XState alone gets through it. */
async function behaves(
  major: Major,
  description: NodeDescription,
  stimuli: Stimulus[],
): Promise<boolean> {
  forgetPromises();
  const machine = render(major, description);
  const plain: Plain = major === 5 ? plain5(machine) : plain4(machine);
  for (const stimulus of [undefined, ...stimuli]) {
    try {
      if (stimulus === "timer") {
        plain.clock.fireNext();
      } else if (stimulus !== undefined) {
        plain.send(stimulus);
      }
    } catch (error) {
      assert.ok(plain.broken, error as Error);
    }
    await settle();
    if (plain.busy || plain.broken) {
      return false;
    }
  }
  return true;
}

/** The instance before its upgrade; undefined if there won't be one. */
async function prefix(
  process: Process,
  major: Major,
  stimuli: Stimulus[],
): Promise<Instance | undefined> {
  forgetPromises();
  const instance = new Instance(process);
  instance.whenQuiet = settleOne;
  await instance.create();
  await live(instance, major, stimuli, true);
  return instance.done || instance.ambiguous || instance.children.length > 0 ? undefined : instance;
}

async function upgrade(old: Instance, process: Process): Promise<Instance> {
  const upgraded = await old.upgraded(process, [RENAMING]);
  assert.deepEqual(dueTimes(upgraded), dueTimes(old), "timers keep their times");
  return upgraded;
}

/** Whether all that XState goes by is taken over. */
async function isPlain(instance: Instance): Promise<boolean> {
  if (instance.extra.includes('"nodes"')) {
    return false; // the order in which regions were entered
  }
  const described = JSON.parse((await instance.describe()).state).timers.map(({ id }: Any) => id);
  // XState 4 may leave a state without cancelling its timers, once it contradicts itself.
  return instance.timers.every(({ id }) => !id.startsWith("xstate.") || described.includes(id));
}

async function live(
  instance: Instance,
  major: Major,
  stimuli: Stimulus[],
  cold: boolean,
): Promise<Any[]> {
  const custom = major === 5 ? customActions5 : customActions4;
  custom.length = 0;
  forgetPromises();
  instance.whenQuiet = settleOne;
  instance.steps = [];
  const outcomes: Any[] = [];
  for (const stimulus of stimuli) {
    if (instance.done || instance.ambiguous) {
      break;
    }
    if (stimulus === "timer") {
      await instance.fireNext();
    } else {
      await instance.send(stimulus);
    }
    outcomes.push({
      stimulus,
      codes: instance.steps.splice(0).map(({ code }) => code),
      value: JSON.parse(JSON.stringify(instance.value).replace(/"m(\d+)"/g, '"n$1"')),
      context: instance.data,
      tags: instance.tags.toSorted(),
      done: instance.done,
      timers: dueTimes(instance),
      custom: custom.splice(0),
    });
    if (cold) {
      instance.drop();
    }
  }
  instance.drop();
  return outcomes;
}

function dueTimes({ timers }: Instance): number[] {
  return timers.map(({ due }) => due).toSorted((a, b) => a - b);
}

function argument(name: string): string | undefined {
  return Deno.args.find((arg) => arg.startsWith(`--${name}=`))?.slice(name.length + 3);
}
