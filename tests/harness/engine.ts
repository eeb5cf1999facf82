// A small engine for tests: feeds lines to a Runner in this process and commits what it answers,
// in virtual time. It keeps what a database would keep, and nothing else.

import { Runner } from "../../build/harness/runner.js";

export interface Answer {
  rid: string;
  code: number;
  state: string;
  extra: string;
  context: string;
  publicContext: string;
  children: string;
  effects: string;
  report: string;
  us: string;
}

// deno-lint-ignore no-explicit-any -- JSON whose shape the test knows
export type Any = any;

export interface Timer {
  id: string;
  due: number;
  event: Any;
  to?: Any;
}

export const LOAD_TIMEOUT_MS = 5000;
const QUIET_MS = 5000;

/** One runner, its lines sorted by what they are about. */
export class Process {
  readonly runner: Runner;
  readonly lines: string[] = [];
  readonly #instances = new Map<string, Instance>();
  readonly #answers = new Map<string, string[]>();
  #wakers: (() => void)[] = [];
  #ids = 0;

  constructor() {
    this.runner = new Runner((text: string) => this.#receive(text));
    this.runner.install(globalThis);
  }

  /** Up, but without a bundle. */
  static async startEmpty(): Promise<Process> {
    const process = new Process();
    await process.runner.warmUp();
    return process;
  }

  static async start(cjs: string, externals: string[] = []): Promise<Process> {
    const process = await Process.startEmpty();
    const loaded = await process.load(cjs, externals);
    if (!loaded.ok) {
      throw new Error(`${loaded.error.name}: ${loaded.error.message}\n${loaded.error.stack}`);
    }
    return process;
  }

  async load(cjs: string, externals: string[], kind?: string): Promise<Any> {
    this.say("M", JSON.stringify({ cjs, externals, kind }));
    const line = await this.waitFor((lines) => lines.find((line) => line.startsWith("M\t")));
    return JSON.parse(line.slice(2));
  }

  learn(migration: number, cjs: string, externals: string[] = []): void {
    this.say("I", String(migration), JSON.stringify({ cjs, externals }));
  }

  nextId(): string {
    return String(++this.#ids);
  }

  say(...fields: string[]): void {
    this.runner.feed([fields.join("\t")]);
  }

  /** Sends a step, or a read, and waits for the fields of its answer. */
  async ask(kind: string, act: string, ...fields: string[]): Promise<Answer> {
    const rid = this.nextId();
    this.say(kind, act, rid, ...fields);
    return await this.answer(rid);
  }

  async answer(rid: string): Promise<Answer> {
    await this.waitFor(() => this.#answers.has(rid));
    const [, code, state, extra, context, publicContext, children, effects, report, us] = this
      .#answers.get(rid)!;
    return {
      rid,
      code: Number(code),
      state: state ?? "",
      extra: extra ?? "",
      context: context ?? "",
      publicContext: publicContext ?? "",
      children: children ?? "",
      effects: effects ?? "",
      report: report ?? "",
      us: us ?? "",
    };
  }

  hasAnswered(rid: string): boolean {
    return this.#answers.has(rid);
  }

  async read(state: string, context: string, auth: Any): Promise<number> {
    const rid = this.nextId();
    this.say("R", rid, "reader", state, context, JSON.stringify(auth));
    return (await this.answer(rid)).code;
  }

  /** Drops what was said so far. */
  forget(): void {
    this.lines.length = 0;
    this.#answers.clear();
    this.#instances.clear();
  }

  register(instance: Instance): void {
    this.#instances.set(instance.act, instance);
  }

  /** Log lines, of one activation or of all. */
  logs(act?: string): string[] {
    return this.lines.filter((line) => line.startsWith(act === undefined ? "G\t" : `G\t${act}\t`))
      .map((line) => JSON.parse(line.split("\t")[3]!).join(" "));
  }

  #receive(text: string): void {
    for (const line of text.split("\n").slice(0, -1)) {
      this.lines.push(line);
      const fields = line.split("\t");
      if (/^\d/.test(line)) {
        this.#answers.set(fields[0]!, fields);
      } else {
        this.#instances.get(fields[fields[0] === "F" ? 2 : 1]!)?.notice(fields);
      }
    }
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#wakers.splice(0)) {
      wake();
    }
  }

  /** Resolves with what `find` gives as soon as it is truthy; looks whenever something was said. */
  async waitFor<T>(find: (lines: string[]) => T, what = ""): Promise<NonNullable<T>> {
    const deadline = setTimeout(() => this.#wake(), QUIET_MS);
    const until = Date.now() + QUIET_MS;
    try {
      for (;;) {
        const found = find(this.lines);
        if (found) {
          return found as NonNullable<T>;
        }
        if (Date.now() >= until) {
          throw new Error(
            `nothing came ${what}; the last lines were:\n${this.lines.slice(-10).join("\n")}`,
          );
        }
        await new Promise<void>((resolve) => {
          this.#wakers.push(resolve);
        });
      }
    } finally {
      clearTimeout(deadline);
    }
  }
}

/** One instance as a database would hold it, and its activation if it has one. */
export class Instance {
  readonly process: Process;
  readonly name: string;
  act = "";
  /** How many activations it has had. */
  loads = 0;

  state = "";
  extra = "";
  context = "";
  publicContext = "";
  children: { id: string; src: string }[] = [];

  now = 0;
  timers: Timer[] = [];
  /** Two timers with one id were pending: XState forgets about one of them. */
  ambiguous = false;
  /** Every other effect that was committed. */
  effects: Any[] = [];
  /** The answers of all steps, and what was said in between. */
  steps: Answer[] = [];
  trace: string[] = [];
  auth: Any = { sub: "u1" };

  /** Called when nothing is left to do; true if that has changed now. */
  whenQuiet: () => Promise<boolean> = () => Promise.resolve(false);

  /** `E` lines not yet stepped. */
  #inbox: string[] = [];
  #wantsCommit = false;
  #kAnswers = 0;
  #live = 0;

  constructor(process: Process, name = "instance") {
    this.process = process;
    this.name = name;
  }

  get value(): Any {
    return JSON.parse(this.state).state;
  }

  get tags(): string[] {
    return JSON.parse(this.state).tags;
  }

  get done(): boolean {
    return JSON.parse(this.state).done;
  }

  get data(): Any {
    return JSON.parse(this.context);
  }

  get last(): Answer {
    return this.steps.at(-1)!;
  }

  get inbox(): readonly string[] {
    return this.#inbox;
  }

  get live(): number {
    return this.#live;
  }

  /** The messages of console.* that came out, and "COMMIT" for each commit, in order. */
  notice(fields: string[]): void {
    switch (fields[0]) {
      case "E":
        this.#inbox.push(fields[2]!);
        break;
      case "K":
        this.#kAnswers++;
        this.#live = Number(fields[2]);
        break;
      case "W":
        this.#wantsCommit = true;
        break;
      case "G":
        this.trace.push(JSON.parse(fields[3]!).join(" "));
        break;
      case "F":
        this.trace.push(`fetch ${JSON.parse(fields[3]!).url}`);
        break;
    }
  }

  activate(): void {
    this.act = `a${this.process.nextId()}`;
    this.#inbox = [];
    this.#wantsCommit = false;
    this.process.register(this);
  }

  async create(given: Any = {}, parent?: Any): Promise<this> {
    this.activate();
    const step = await this.process.ask(
      "C",
      this.act,
      this.name,
      JSON.stringify(given),
      JSON.stringify(this.auth),
      parent === undefined ? "" : JSON.stringify(parent),
    );
    await this.#finish(step);
    return this;
  }

  /** Mounts what is stored. Services that ran are lost: their error events come first. */
  async load(): Promise<void> {
    this.activate();
    this.loads++;
    const { act, process, name } = this;
    process.say(
      "L",
      act,
      name,
      this.state,
      this.extra,
      this.context,
      JSON.stringify(this.children),
    );
    for (const { id } of [...this.children]) {
      await this.commit(await process.ask("O", act, JSON.stringify(id)));
    }
  }

  /** Forgets the activation: the next event loads the instance again. */
  drop(): void {
    if (this.act !== "") {
      this.process.say("D", this.act);
      this.act = "";
    }
  }

  /** `X`, from an activation of its own as the engine does it. */
  async describe(): Promise<Answer> {
    this.drop();
    await this.load();
    const answer = await this.process.ask("X", this.act);
    this.drop();
    return answer;
  }

  /** A copy of what is stored, which goes on in another process: the same version or another one. */
  copyIn(process: Process, name = this.name): Instance {
    const { state, extra, context, children, now, timers, auth } = this;
    return Object.assign(new Instance(process, name), {
      ...structuredClone({ state, extra, context, children, now, timers, auth }),
    });
  }

  /** The same instance on the version of another process. Throws what `U` answers if it fails. */
  async upgraded(process: Process, migrations: number[], name = this.name): Promise<Instance> {
    const description = await this.describe();
    if (description.code !== 0) {
      throw JSON.parse(description.state);
    }
    const next = this.copyIn(process, name);
    const answer = await next.arrive(migrations, description.state);
    if (answer.code !== 0) {
      throw JSON.parse(answer.state);
    }
    await next.commit(answer);
    return next;
  }

  /** `U` alone. */
  async arrive(migrations: number[], description: string): Promise<Answer> {
    this.activate();
    return await this.process.ask(
      "U",
      this.act,
      this.name,
      JSON.stringify(migrations),
      description,
      this.context,
    );
  }

  async send(event: Any, auth: Any = this.auth): Promise<this> {
    if (this.act === "") {
      await this.load();
    }
    const answer = await this.process.ask(
      "S",
      this.act,
      JSON.stringify(event),
      JSON.stringify(auth),
    );
    await this.#finish(answer);
    return this;
  }

  /** The end of a persistent child, as XState words it; returns the answer. */
  async childEnded(event: Any, id: string, auth: Any): Promise<Answer> {
    const fields = [event, id, auth].map((field) => JSON.stringify(field));
    const answer = await this.process.ask("N", this.act, ...fields);
    await this.#finish(answer);
    return answer;
  }

  /** Lets the next timer fire, if there is one. */
  async fireNext(): Promise<boolean> {
    const timer = this.timers.toSorted((a, b) => a.due - b.due)[0];
    if (timer === undefined) {
      return false;
    }
    this.timers.splice(this.timers.indexOf(timer), 1);
    this.now = timer.due;
    if (timer.to !== undefined) {
      this.effects.push({ t: "send", to: timer.to, event: timer.event });
      return true;
    }
    if (this.act === "") {
      await this.load();
    }
    await this.#finish(await this.process.ask("T", this.act, JSON.stringify(timer.event)));
    return true;
  }

  /** Commits a step and goes on until the instance has settled. */
  async #finish(answer: Answer): Promise<void> {
    await this.commit(answer);
    for (;;) {
      if (this.#inbox.length > 0) {
        await this.commit(await this.process.ask("V", this.act, this.#inbox.shift()!));
      } else if (await this.whenQuiet()) {
        continue;
      } else if (this.children.length > 0 && !this.done) {
        await this.process.waitFor(
          () => this.#inbox.length > 0 || this.#wantsCommit,
          `from a service of ${this.act}`,
        );
        await this.#acknowledge();
      } else {
        return;
      }
    }
  }

  /** Stores the result of one step, then lets its effects run. */
  async commit(answer: Answer): Promise<void> {
    this.record(answer);
    await this.#acknowledge(answer.code === 5);
  }

  record(answer: Answer): void {
    this.steps.push(answer);
    if (answer.code !== 0 && answer.code !== 5) {
      return;
    }
    this.state = answer.state;
    this.extra = answer.extra;
    this.context = answer.context;
    this.publicContext = answer.publicContext;
    this.children = JSON.parse(answer.children);
    this.trace.push("COMMIT");
    for (const effect of answer.effects === "" ? [] : JSON.parse(answer.effects)) {
      this.#apply(effect);
    }
    if (this.done) {
      this.timers = [];
    }
  }

  #apply(effect: Any): void {
    switch (effect.t) {
      case "timer":
        this.ambiguous ||= this.timers.some(({ id }) => id === effect.id);
        this.timers.push({
          id: effect.id,
          due: this.now + effect.delay,
          event: effect.event,
          to: effect.to,
        });
        break;
      case "cancel": {
        const last = this.timers.findLastIndex(({ id }) => id === effect.id);
        if (last >= 0) {
          this.timers.splice(last, 1);
        }
        break;
      }
      case "rename":
        for (const timer of this.timers.filter(({ id, to }) => id === effect.id && !to)) {
          Object.assign(timer, { id: effect.to, event: effect.event });
        }
        break;
      default:
        this.effects.push(effect);
    }
  }

  async #acknowledge(needed = false): Promise<void> {
    if (needed || this.#wantsCommit) {
      this.#wantsCommit = false;
      const answered = this.#kAnswers;
      this.process.say("K", this.act);
      await this.process.waitFor(() => this.#kAnswers > answered, "after K");
    }
  }
}
