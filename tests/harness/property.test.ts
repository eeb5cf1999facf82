// The acceptance criterion: an instance that is unloaded and loaded between every two events behaves
// as one that stays in memory, and both behave as XState alone does.
//
// To replay a failure: deno test … property.test.ts -- --seed=5:1234

import assert from "node:assert/strict";
import { test } from "node:test";
import { type Any, Instance, Process } from "./engine.ts";
import { EVENTS, Generator, randomOf } from "./generator.ts";
import { customActions4, render4 } from "./render4.ts";
import { customActions5, render5 } from "./render5.ts";
import { type Plain, plain4, plain5, settle } from "./plain.ts";
import { forgetPromises, settleOne } from "./promises.ts";

const MACHINES = Number(argument("machines") ?? 300);
const FIRST_SEED = Number(argument("from") ?? 1);
const EVENTS_PER_MACHINE = 14;
const [ONLY_MAJOR, ONLY_SEED] = (argument("seed") ?? "").split(":").map(Number);

const BUNDLE = "module.exports = globalThis.bundleOfTheTest";

interface Outcome {
  value: Any;
  context: Any;
  tags: string[];
  done: boolean;
  timers: number[];
  custom: string[];
  output: Any;
}

type Stimulus = { type: string } | "timer";

for (const major of [5, 4] as const) {
  test(`random machines of XState ${major}`, {
    skip: ONLY_SEED !== undefined && ONLY_MAJOR !== major,
  }, async () => {
    const process = await Process.startEmpty();
    let tested = 0;
    let transitions = 0;
    for (let seed = ONLY_SEED ?? FIRST_SEED; tested < MACHINES; seed++) {
      if (argument("verbose")) Deno.stderr.writeSync(new TextEncoder().encode(`${major}:${seed} `));
      const steps = await compareRuns(process, major, seed);
      process.forget();
      if (steps !== undefined) {
        tested++;
        transitions += steps;
      }
      assert.ok(seed < FIRST_SEED + MACHINES * 4, "most machines should settle");
      if (ONLY_SEED !== undefined) {
        break;
      }
    }
    console.info(`${tested} machines, ${transitions} events`);
  });
}

/** The number of stimuli compared; undefined if the machine does not settle. */
async function compareRuns(
  process: Process,
  major: 4 | 5,
  seed: number,
): Promise<number | undefined> {
  const random = randomOf(seed);
  const description = new Generator(random).machine();
  const predictable = random() < 0.6;
  const machine = major === 5 ? render5(description) : render4(description, predictable);
  const stimuli = Array.from(
    { length: EVENTS_PER_MACHINE },
    (): Stimulus =>
      random() < 0.25 ? "timer" : { type: EVENTS[Math.floor(random() * EVENTS.length)]! },
  );

  const expected = await runPlain(major, machine, stimuli);
  if (expected === undefined) {
    return undefined;
  }
  Object.assign(globalThis, {
    bundleOfTheTest: { default: machine, allowRead: () => true, allowWrite: () => true },
  });
  const loaded = await process.load(BUNDLE, []);
  assert.ok(loaded.ok, JSON.stringify(loaded.error));
  for (const cold of [true, false]) {
    try {
      await runHarness(process, major, stimuli, expected, cold);
    } catch (error) {
      const how = cold ? "loaded for every event" : "kept in memory";
      const order = major === 4 ? `, predictable ${predictable}` : "";
      throw new Error(`seed ${major}:${seed}, ${how}${order}: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }
  return expected.length;
}

async function runPlain(
  major: 4 | 5,
  machine: Any,
  stimuli: Stimulus[],
): Promise<Outcome[] | undefined> {
  const custom = major === 5 ? customActions5 : customActions4;
  custom.length = 0;
  forgetPromises();
  const plain = major === 5 ? plain5(machine) : plain4(machine);
  const outcomes: Outcome[] = [];
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
      return undefined;
    }
    outcomes.push(outcomeOf(plain, custom.splice(0)));
    if (plain.done) {
      break;
    }
  }
  return outcomes;
}

function outcomeOf(
  { value, context, tags, done, clock, output }: Plain,
  custom: string[],
): Outcome {
  return {
    value: structuredClone(value),
    context: withoutReferences(context),
    tags: tags.toSorted(),
    done,
    timers: done ? [] : clock.pending,
    custom,
    output: done ? output : undefined,
  };
}

async function runHarness(
  process: Process,
  major: 4 | 5,
  stimuli: Stimulus[],
  expected: Outcome[],
  cold: boolean,
): Promise<void> {
  const custom = major === 5 ? customActions5 : customActions4;
  custom.length = 0;
  forgetPromises();
  const instance = new Instance(process);
  instance.whenQuiet = settleOne;
  for (const [i, outcome] of expected.entries()) {
    const stimulus = stimuli[i - 1];
    if (stimulus === undefined) {
      await instance.create();
    } else if (stimulus === "timer") {
      await instance.fireNext();
    } else {
      await instance.send(stimulus);
    }
    if (instance.ambiguous) {
      break;
    }
    const { code, state } = instance.last;
    assert.ok(
      code === 0 || code === 1 || code === 5,
      `step ${i} ${JSON.stringify(stimulus)}: code ${code} ${state}`,
    );
    const actual: Outcome = {
      value: instance.value,
      context: withoutReferences(instance.data),
      tags: instance.tags.toSorted(),
      done: instance.done,
      timers: instance.timers.map(({ due }) => due).toSorted((a, b) => a - b),
      custom: custom.splice(0),
      output: instance.done ? JSON.parse(instance.extra || "{}").output : undefined,
    };
    const before = stimuli.slice(0, i).map((one) => one === "timer" ? one : one.type).join(" ");
    assert.deepEqual(actual, withoutUndefined(outcome), `after ${before}`);
    if (cold) {
      instance.drop();
    }
  }
  instance.drop();
}

/** JSON, with references to services brought into one form. */
function withoutReferences(context: Any): Any {
  const ref = context.ref === null ? null : { id: context.ref.id };
  return JSON.parse(JSON.stringify({ ...context, ref }));
}

function withoutUndefined(outcome: Outcome): Outcome {
  const output = outcome.output === undefined
    ? undefined
    : JSON.parse(JSON.stringify(outcome.output));
  return { ...outcome, output };
}

function argument(name: string): string | undefined {
  return Deno.args.find((arg) => arg.startsWith(`--${name}=`))?.slice(name.length + 3);
}
