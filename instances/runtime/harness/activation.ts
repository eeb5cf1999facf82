// One load of one instance into this runner: authorizes, computes and answers one step after the
// other, and keeps what a step does back until it is committed.
//
// A1  What was answered last (#state, #context, …, as JSON) is the truth: each step starts from what
//     reads back from it, so that a live instance behaves exactly as one that was loaded.
// A2  After a step with code 5 no other step is computed until `K`.
// A3  Nothing leaves between a step and the `K` that covers it (gate.ts).
// A4  A step that throws leaves no trace but its logs.

import type { Adapter, Host, Instance } from "./adapter.ts";
import {
  type Authorizer,
  eventRequest,
  initializationRequest,
  isPromise,
  withinTimeLimit,
} from "./authorize.ts";
import { timer } from "./effects.ts";
import { describeError, errorJson, errorText, isError, utf8Bytes } from "./errors.ts";
import { Gate } from "./gate.ts";
import { logArguments } from "./logs.ts";
import { migrate, type Migration } from "./migrations.ts";
import { now, parse, stringify } from "./primordials.ts";
import { Code, type Effect, LIMITS, type LogLevel } from "./protocol.ts";
import { type Service, Services } from "./services.ts";
import { Turn, turns } from "./turn.ts";
import * as upgrade from "./upgrade.ts";

/** The code of one machine version, checked. */
export interface Bundle {
  adapter: Adapter;
  allowRead: Authorizer;
  allowWrite: Authorizer;
}

/** The runner, as an activation sees it. */
export interface Port {
  /** Writes the answer to a step: many of them are written together. */
  answer(line: string): void;
  /** Writes any other line. */
  line(line: string): void;
  /** The activation has ended by itself: its instance could not be created. */
  forget(activation: Activation): void;
}

/** The fields of a message: `C|S|T|N|V|O|X|U`, activation, rid, and what the protocol says. */
export type StepFields = readonly string[];

interface InboxItem {
  event: unknown;
  service: Service | undefined;
  /** It is the last one of its service. */
  ends: boolean;
  /** It came while effects ran: XState would have it in its queue, before anything that comes later. */
  queued: boolean;
  /** There is nothing to tell the machine, only that the service is gone. */
  silent: boolean;
}

/** A service in the field `children`; those of before there were keys have none. */
interface Child {
  id: string;
  src: string;
  key?: string;
}

/** What the machine is told of a service that was stopped or lost: its outcome is unknown. */
function serviceLost(effectKey: string | undefined): Error {
  const error = new Error("The service was stopped or lost before it was done");
  error.name = "ServiceLost";
  return Object.assign(error, { effectKey });
}

export class Activation implements Host {
  readonly id: string;
  readonly services = new Services();
  readonly #name: string;
  readonly #bundle: Bundle;
  readonly #port: Port;
  readonly #gate = new Gate();

  /** Missing before the first step, and where it has to be loaded again from A1. */
  #instance: Instance | undefined;

  // A1, in the form of an answer.
  #state = "";
  #extra = "";
  #context = "";
  /** Undefined until it is asked for after a mount. */
  #public: string | undefined = "";
  #children = "[]";
  #done = false;

  readonly #inbox = new Map<number, InboxItem>();
  #inboxCount = 0;

  /** Steps that came while another one is not through (A2, or its authorizer's promise is open). */
  #queue: StepFields[] = [];
  #awaitsCommit = false;
  #awaitsAuthorizer = false;
  #askedForCommit = false;
  /** The machine computes right now; the answer is still to come. */
  #computes = false;
  #runsEffects = false;
  #closed = false;

  constructor(id: string, name: string, bundle: Bundle, port: Port) {
    this.id = id;
    this.#name = name;
    this.#bundle = bundle;
    this.#port = port;
  }

  /** `L`: takes over a committed snapshot. It is parsed with the first step, where a fault can be told. */
  mount(state: string, extra: string, context: string, children: string): void {
    this.#state = state;
    this.#extra = extra;
    this.#context = context;
    this.#public = undefined;
    this.#children = children;
    this.#done = state.endsWith('"done":true}');
    for (const { id, src, key } of parse(children || "[]") as Child[]) {
      this.services.mountLost(id, src, key ?? "");
    }
  }

  step(fields: StepFields): void {
    if (this.#awaitsCommit || this.#awaitsAuthorizer) { // A2
      this.#queue.push(fields);
    } else {
      this.#begin(fields);
    }
  }

  #begin(fields: StepFields): void {
    if (fields[0] === "X") {
      this.#describe(fields);
      return;
    }
    const turn = new Turn(this);
    turns.run(turn, authorizeAndCompute, this, fields, turn);
  }

  // --- one step ---------------------------------------------------------------------------------

  /** Only for authorizeAndCompute() below: runs inside of `turn`. */
  authorize(fields: StepFields, turn: Turn): void {
    const started = now();
    turn.ungated = true;
    let verdict: unknown;
    try {
      verdict = this.#askAuthorizer(fields);
      if (isPromise(verdict)) {
        this.#awaitVerdict(fields, verdict);
        return;
      }
    } catch (error) {
      this.#deny(fields, started, error);
      return;
    }
    turn.ungated = false;
    if (verdict === true) {
      this.compute(fields, turn, started);
    } else {
      this.#deny(fields, started, undefined);
    }
  }

  #askAuthorizer(fields: StepFields): unknown {
    switch (fields[0]) {
      case "S":
        return this.#bundle.allowWrite(
          eventRequest(this.#name, this.#state, this.#context, fields[3]!, fields[4]!),
        );
      case "C":
        return this.#bundle.allowWrite(initializationRequest(this.#name, fields[4]!, fields[5]!));
      default:
        return true;
    }
  }

  #awaitVerdict(fields: StepFields, verdict: PromiseLike<unknown>): void {
    this.#awaitsAuthorizer = true;
    const decide = (allowed: boolean, error: unknown) => {
      this.#awaitsAuthorizer = false;
      if (this.#closed) {
        return;
      }
      const started = now();
      if (allowed) {
        const turn = new Turn(this);
        turns.run(turn, computeStep, this, fields, turn, started);
      } else {
        this.#deny(fields, started, error);
      }
      this.#goOn();
    };
    withinTimeLimit("allowWrite", verdict).then(
      (value) => decide(value === true, undefined),
      (error) => decide(false, error),
    );
  }

  #deny(fields: StepFields, started: number, error: unknown): void {
    let state = "";
    if (error !== undefined) {
      state = errorJson(error);
      this.#writeLog("error", ["allowWrite threw:", errorText(error)]);
    }
    this.#answer(fields, Code.denied, state, "", "", "", "", "", "", started);
    this.#endIfNotCreated(fields);
  }

  #endIfNotCreated(fields: StepFields): void {
    if (fields[0] === "C") {
      this.close();
      this.#port.forget(this);
    }
  }

  /** Only for authorize() and computeStep() below: runs inside of `turn`. */
  compute(fields: StepFields, turn: Turn, started: number): void {
    const services = this.services.size > 0 ? this.services.all() : NO_SERVICES;
    const wasOpen = this.#gate.open;
    this.#gate.open = false; // A3
    this.#computes = true;
    try {
      const changed = this.#transition(fields);
      const instance = this.#instance;
      if (changed && instance !== undefined) {
        this.#record(fields, instance, started);
      } else {
        instance?.adopt(this.#context); // a guard may have written to it
        this.#answerUnchanged(fields, started);
        this.#gate.open = wasOpen && this.#gate.isEmpty;
      }
      this.#computes = false;
    } catch (error) {
      this.#computes = false;
      this.#rollback(services);
      this.#gate.drop(turn);
      this.#gate.open = wasOpen;
      this.#answer(fields, Code.threw, errorJson(error), "", "", "", "", "", "", started);
      this.#endIfNotCreated(fields);
    }
    if (!this.#gate.isEmpty && !this.#awaitsCommit) {
      this.#askForCommit();
    }
    this.#unloadIfNeeded();
  }

  /** Computes; true if there is something to store or to do. */
  #transition(fields: StepFields): boolean {
    if (this.#done) {
      return false;
    }
    const { adapter } = this.#bundle;
    if (fields[0] === "C") {
      const parent = fields[6] ? parse(fields[6]) : undefined;
      const given = parse(fields[4]!);
      if (typeof given !== "object" || given === null) {
        throw new TypeError("the context given to a new instance must be an object");
      }
      this.#instance = adapter.create(this, parent);
      this.#instance.begin(given);
      return true;
    }
    const instance = this.#instance ??= this.#load();
    let handled: boolean;
    switch (fields[0]) {
      case "S":
      case "T":
        handled = instance.transition(adapter.event(parse(fields[3]!)));
        break;
      case "N":
        handled = instance.childEnded(
          parse(fields[3]!),
          parse(fields[4]!),
          parse(fields[5]!).stateBackedSender,
        );
        break;
      case "V":
        handled = this.#takeFromInbox(instance, Number(fields[3]));
        break;
      case "O":
        handled = this.#loseService(instance, parse(fields[3]!));
        break;
      default:
        throw new TypeError(`unknown step ${fields[0]}`);
    }
    return handled || instance.hasWork || instance.effects.length > 0 ||
      this.services.json() !== this.#children;
  }

  #load(): Instance {
    const { state, done } = parse(this.#state);
    const extra = this.#extra === "" ? undefined : parse(this.#extra);
    const snapshot = { value: state, done, extra, context: this.#context };
    return this.#bundle.adapter.load(this, snapshot);
  }

  #takeFromInbox(instance: Instance, n: number): boolean {
    const item = this.#inbox.get(n);
    if (item === undefined) {
      throw new RangeError(`there is no inbox event ${n}`);
    }
    const { service, event, ends, queued, silent } = item;
    let isDue = !silent;
    if (ends && service !== undefined) {
      if (this.services.has(service)) {
        this.services.remove(service);
      } else {
        // The service was stopped while this waited. XState alone would have stopped it before it
        // could end, and there may be another one under its id by now which has not ended.
        isDue &&= queued;
      }
    }
    const handled = isDue ? instance.transition(event) : instance.skip();
    this.#inbox.delete(n); // only now: after a throw it can be tried again
    return handled;
  }

  #loseService(instance: Instance, id: string): boolean {
    const service = this.services.find((one) => one.id === id);
    if (service !== undefined) {
      this.services.remove(service); // first: what it says while it is stopped is no longer heard
      instance.abandon(service);
      for (const item of this.#inbox.values()) {
        item.silent ||= item.ends && item.service === service;
      }
    }
    return instance.transition(this.#bundle.adapter.lost(id, serviceLost(service?.key)));
  }

  /** Answers a step that changed something, and makes its result what the next one starts from. */
  #record(fields: StepFields, instance: Instance, started: number): void {
    // All that can throw comes first: a context with a BigInt fails the step, and leaves it undone.
    const value = stringify(instance.value)!;
    const context = stringify(instance.context);
    checkContext(context);
    const extra = instance.extra();
    const tags = tagsJson(instance.tags);
    const effects = instance.effects.length > 0 ? stringify(instance.effects)! : "";
    const report = instance.report === undefined ? "" : stringify(instance.report)!;
    const { done, hasWork } = instance;
    this.#public = publicJson(instance.adopt(context));
    this.#state = `{"state":${value},"tags":${tags},"done":${done}}`;
    this.#context = context;
    this.#extra = extra;
    this.#children = this.services.json();
    this.#done = done;
    this.#awaitsCommit = hasWork;
    this.#answer(
      fields,
      hasWork ? Code.changedWithWork : Code.changed,
      this.#state,
      extra,
      context,
      this.#public,
      this.#children,
      effects,
      report,
      started,
    );
  }

  #answerUnchanged(fields: StepFields, started: number): void {
    this.#public ??= publicJson(parse(this.#context));
    this.#answer(fields, Code.unchanged, this.#state, "", "", this.#public, "", "", "", started);
  }

  #rollback(services: readonly Service[]): void {
    const instance = this.#instance;
    this.services.restore(services);
    if (instance === undefined) {
      return;
    }
    if (services.length > 0) {
      try {
        instance.rollback(this.#context); // live services can't be loaded again
        return;
      } catch (error) {
        this.log("error", ["the instance could not be restored:", errorText(error)]);
      }
    }
    instance.dispose();
    this.#instance = undefined;
  }

  /** A loaded copy only knows that its services ended, and so must this one once it has settled (A1). */
  #unloadIfNeeded(): void {
    const instance = this.#instance;
    if (
      instance !== undefined && this.services.size === 0 && this.#inbox.size === 0 &&
      !this.#awaitsCommit && instance.mustReload
    ) {
      instance.dispose();
      this.#instance = undefined;
    }
  }

  #answer(
    fields: StepFields,
    code: number,
    state: string,
    extra: string,
    context: string,
    publicContext: string,
    children: string,
    effects: string,
    report: string,
    started: number,
  ): void {
    const rid = fields[2];
    const us = ((now() - started) * 1000) | 0;
    const outcome = `${state}\t${extra}\t${context}\t${publicContext}`;
    this.#port.answer(
      `${rid}\t${code}\t${outcome}\t${children}\t${effects}\t${report}\t${us}\n`,
    );
  }

  // --- upgrades ---------------------------------------------------------------------------------

  /** `X`: where the instance is, for another version to take it over. */
  #describe(fields: StepFields): void {
    const started = now();
    try {
      if (this.#done || this.services.size > 0) {
        throw new Error("only an instance that has settled, and is not done, can be upgraded");
      }
      const { adapter } = this.#bundle;
      const { state } = parse(this.#state);
      const extra = this.#extra === "" ? undefined : parse(this.#extra);
      const leaves = upgrade.leavesOf(state);
      const description: upgrade.Description = {
        leaves,
        history: adapter.historyIn(extra),
        timers: upgrade.timersIn(upgrade.activeIn(adapter.shape, upgrade.unmoved(leaves))),
        kept: upgrade.keptOf(extra),
      };
      const json = stringify(description)!;
      this.#answer(fields, Code.changed, json, "", "", "", "", "", "", started);
    } catch (error) {
      this.#answer(fields, Code.threw, errorJson(error), "", "", "", "", "", "", started);
    }
  }

  /** `U`: the first step of an instance that comes from another version. */
  upgrade(fields: StepFields, migrations: () => Migration[]): void {
    const turn = new Turn(this);
    turns.run(turn, upgradeStep, this, fields, migrations, turn);
  }

  /** Only for upgradeStep() below: runs inside of `turn`. */
  arrive(fields: StepFields, migrations: () => Migration[], turn: Turn): void {
    const started = now();
    this.#gate.open = false; // A3
    try {
      const instance = this.#migrated(migrations(), parse(fields[5]!), fields[6]!);
      this.#record(fields, instance, started);
      // The next step loads it: so nothing that it may have kept to itself can matter (A1).
      instance.dispose();
      this.#instance = undefined;
    } catch (error) {
      this.#gate.drop(turn);
      this.#answer(fields, Code.threw, errorJson(error), "", "", "", "", "", "", started);
      this.close();
      this.#port.forget(this);
    }
    if (!this.#gate.isEmpty) {
      this.#askForCommit();
    }
  }

  #migrated(
    migrations: Migration[],
    description: upgrade.Description,
    contextBefore: string,
  ): Instance {
    const { adapter } = this.#bundle;
    const { leaves, history, context } = migrate(migrations, description, contextBefore);
    checkContext(context);
    const active = upgrade.activeIn(adapter.shape, leaves);
    const remembered = upgrade.rememberedIn(adapter.shape, history);
    const instance = this.#instance = adapter.load(this, {
      value: upgrade.valueOf(active),
      done: upgrade.isFinal(active),
      extra: adapter.extraOf(active, remembered, description.kept),
      context,
    });
    const { kept, cancelled, started } = upgrade.retime(description.timers, leaves, active);
    const contextCopy = parse(context);
    instance.arrive([
      ...cancelled.map(({ id }): Effect => ({ t: "cancel", id })),
      ...upgrade.renames(kept),
      ...started.map((after) => {
        const delay = adapter.delayOf(after, contextCopy);
        return timer(after.id, Number(delay), { type: after.id }, undefined);
      }),
    ]);
    return instance;
  }

  // --- commits ----------------------------------------------------------------------------------

  /** `K`: all that was answered is committed. */
  commit(): void {
    this.#askedForCommit = false;
    this.#gate.release();
    if (this.#awaitsCommit) {
      this.#runsEffects = true;
      turns.run(new Turn(this), runEffects, this);
      this.#runsEffects = false;
      this.#awaitsCommit = false;
    }
    let live = 0;
    for (const service of this.services.all()) {
      if (!service.ending && !service.lost && this.#instance?.runs(service)) {
        live++;
      }
    }
    this.#port.line(`K\t${this.id}\t${live}\n`);
    this.#unloadIfNeeded();
    this.#goOn();
  }

  /** Only for runEffects() below: runs inside of a turn. */
  run(): void {
    const instance = this.#instance;
    if (instance === undefined) {
      return;
    }
    instance.run();
    for (const service of this.services.all()) {
      if (!service.ending && !service.lost && !instance.runs(service)) {
        service.ending = true;
        this.#announce(
          { event: undefined, service, ends: true, queued: true, silent: true },
          '{"type":"statebacked.service-ended"}',
        );
      }
    }
  }

  #goOn(): void {
    while (this.#queue.length > 0 && !this.#awaitsCommit && !this.#awaitsAuthorizer) {
      this.#begin(this.#queue.shift()!);
    }
  }

  #askForCommit(): void {
    if (!this.#askedForCommit) {
      this.#askedForCommit = true;
      this.#port.line(`W\t${this.id}\n`);
    }
  }

  /** Whether nothing of it may leave the process any more. */
  get closed(): boolean {
    return this.#closed;
  }

  /** `D`, and after a creation that failed. */
  close(): void {
    this.#closed = true;
    this.#gate.clear();
    this.#queue = [];
    this.#inbox.clear();
    this.#instance?.dispose();
    this.#instance = undefined;
  }

  // --- what user code does ----------------------------------------------------------------------

  /** The machine that computes right now, if any: spawns are only possible then. */
  get computing(): Instance | undefined {
    return this.#computes ? this.#instance : undefined;
  }

  receive(event: unknown, data: unknown, service: Service | undefined, ends: boolean): void {
    if (this.#closed) {
      return;
    }
    if (service !== undefined && ends) {
      service.ending = true;
    }
    const queued = this.#runsEffects;
    this.#announce({ event, service, ends, queued, silent: false }, eventJson(data));
  }

  #announce(item: InboxItem, event: string): void {
    const n = ++this.#inboxCount;
    this.#inbox.set(n, item);
    const child = item.service === undefined ? "" : stringify(item.service.id);
    this.#port.line(`E\t${this.id}\t${n}\t${child}\t${event}\n`);
  }

  /** Runs `go` once nothing that `turn` is built on can be undone any more; never, if it was undone. */
  whenCommitted(turn: Turn, isLog: boolean, go: () => void): void {
    if (this.#closed || turn.dropped) {
      return;
    }
    if (turn.ungated) {
      go();
      return;
    }
    this.#gate.pass(turn, isLog, go);
    if (!this.#gate.open && !this.#computes && !this.#awaitsCommit) {
      this.#askForCommit();
    }
  }

  log(level: LogLevel, args: unknown[]): void {
    const turn = turns.getStore();
    const line = `G\t${this.id}\t${level}\t${logArguments(args)}\n`;
    if (turn === undefined) {
      this.#port.line(line);
    } else {
      this.whenCommitted(turn, true, () => this.#port.line(line));
    }
  }

  #writeLog(level: LogLevel, args: unknown[]): void {
    this.#port.line(`G\t${this.id}\t${level}\t${logArguments(args)}\n`);
  }
}

const NO_SERVICES: readonly Service[] = [];

// AsyncLocalStorage.run() takes a function and its arguments: these spare a closure per step.

function authorizeAndCompute(activation: Activation, fields: StepFields, turn: Turn): void {
  activation.authorize(fields, turn);
}

function computeStep(
  activation: Activation,
  fields: StepFields,
  turn: Turn,
  started: number,
): void {
  activation.compute(fields, turn, started);
}

function upgradeStep(
  activation: Activation,
  fields: StepFields,
  migrations: () => Migration[],
  turn: Turn,
): void {
  activation.arrive(fields, migrations, turn);
}

function runEffects(activation: Activation): void {
  activation.run();
}

/** Past the limit the step fails as if it had thrown, and live services go on. */
function checkContext(json: string | undefined): asserts json is string {
  if (json === undefined) {
    throw new TypeError("the context is not an object");
  }
  const limit = LIMITS.contextBytes;
  if (json.length * 3 <= limit) {
    return; // no character takes more than three bytes
  }
  const size = utf8Bytes(json);
  if (size > limit) {
    const error = new RangeError(
      `the context would have ${size} bytes of JSON; ${limit} are allowed`,
    );
    error.name = "ContextTooLarge";
    throw error;
  }
}

function publicJson(context: any): string { // any: user data
  const value = context?.public;
  return value === undefined ? "" : stringify(value)!;
}

function tagsJson(tags: Iterable<string>): string {
  for (const _tag of tags) {
    return stringify([...tags])!;
  }
  return "[]";
}

/** An inbox event for the history. It may hold anything; the machine gets the live one. */
function eventJson(event: unknown): string {
  try {
    return stringify(event, errorsAsObjects) ?? UNSHOWABLE;
  } catch {
    return UNSHOWABLE;
  }
}

const UNSHOWABLE = '{"type":"statebacked.unserializable-event"}';

function errorsAsObjects(_key: string, value: unknown): unknown {
  if (isError(value)) {
    const { name, message } = describeError(value);
    return { name, message };
  }
  return value;
}
