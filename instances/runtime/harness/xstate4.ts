// XState 4: the platform's copy, or one that the user bundled.
//
// `machine.transition()` computes a state and says which actions belong to it; nothing runs by
// itself. An Interpreter of the platform's copy, never started, holds the services of the instance
// and executes single actions once the commit is durable.
//
// With `predictableActionArguments` (4.33 and later) actions are resolved one after the other, each
// with the context of its moment, and handed to a function that here only collects them. Otherwise,
// and always for the initial state, they are found in `state.actions`.

import { type Action, initEvent as INIT, type ScxmlEvent } from "xstate4/es/actions.js";
import {
  type Actor,
  type Collect,
  type HistoryTree,
  Interpreter,
  type Machine,
  type State,
  type StateNode,
} from "xstate4/es/interpreter.js";
import { registry } from "xstate4/es/registry.js";
import { provide } from "xstate4/es/serviceScope.js";
import { mapContext, toEventObject, toInvokeSource, toSCXMLEvent } from "xstate4/es/utils.js";
import type { Adapter, Host, Instance, Report, Snapshot } from "./adapter.ts";
import {
  copier,
  done,
  instanceRef,
  isInstanceRef,
  isListenedTo,
  isPersistentSource,
  orderSpawns,
  send,
  spawnSource,
  timer,
} from "./effects.ts";
import { errorText } from "./errors.ts";
import { parse, stringify } from "./primordials.ts";
import type {
  Effect,
  ErrorObject,
  InstanceRef,
  MachineEvent,
  Sender,
  SpawnSource,
  StateValue,
} from "./protocol.ts";
import {
  type Policies,
  policiesOf,
  policyIn,
  retriedPromise,
  Retries,
  type RetryPolicy,
} from "./retry.ts";
import type { Service } from "./services.ts";
import {
  type Active,
  activeIn,
  type After,
  allStates,
  type Description,
  hasHistory,
  type Kept,
  leafStatesIn,
  leavesOf,
  type Path,
  type Remembered,
  stateAt,
  type StateShape,
  statesIn,
  unmoved,
  UPGRADE_EVENT,
  valueOf,
} from "./upgrade.ts";

const RUNNING = 1;
const STOPPED = 2;

// An Interpreter of our copy recognises the initial step of a service by the identity of initEvent.
// A machine from a copy that the user bundled has another one: what such a service sends in its
// initial state's entry would stay in a queue that nobody empties.
const { update, spawn, spawnMachine } = Interpreter.prototype;
Interpreter.prototype.update = function (state, event) {
  if (event === INIT && state._event.name === INIT.name) {
    state._event = INIT;
    state.event = INIT.data;
  }
  update.call(this, state, event);
};
Interpreter.prototype.spawnMachine = function (machine, options) {
  ignoreUnknownFlag(machine);
  return spawnMachine.call(this, machine, options);
};

/** Copies before 4.33 know no predictableActionArguments, but our Interpreter would go by it. */
function ignoreUnknownFlag(machine: Machine): void {
  if (machine.config.predictableActionArguments && machine.transition.length < 4) {
    machine.config = { ...machine.config, predictableActionArguments: false };
  }
}

export function isMachine4(value: any): value is Machine { // any: tested here
  return value?.__xstatenode === true && typeof value.withContext === "function" &&
    typeof value.resolveState === "function" && typeof value.getInitialState === "function";
}

export class XState4 implements Adapter {
  readonly major = 4;
  readonly machine: Machine;
  /** Actions are handed over one by one. */
  readonly predictable: boolean;
  readonly hasHistory: boolean;
  readonly hasRegions: boolean;
  /** Some function looks at `meta`, where it finds the event of the step before. */
  readonly showsLastEvent: boolean;
  readonly #policies: Policies;
  readonly initialContext: () => Record<string, unknown>;
  #shape: StateShape | undefined;

  constructor(machine: Machine) {
    this.machine = machine;
    ignoreUnknownFlag(machine);
    machine._init?.(); // XState resolves targets lazily: find out now whether it can
    const nodes = [machine, ...Object.values(machine.idMap)];
    for (const node of nodes) {
      if (node.type !== "history") {
        void node.initialStateValue;
      }
    }
    this.#policies = policiesOf(nodes);
    tellServices(machine);
    this.predictable = machine.config.predictableActionArguments === true;
    this.hasHistory = nodes.some((node) => node.type === "history");
    this.hasRegions = nodes.some((node) => node.type === "parallel");
    this.showsLastEvent = looksAtMeta(machine, nodes);
    const context = machine._context;
    this.initialContext = typeof context === "function"
      ? () => ({ ...context() })
      : copier((context ?? {}) as object);
  }

  policyOf(serviceId: string, nodes: readonly StateNode[]): RetryPolicy | undefined {
    return policyIn(this.#policies, serviceId, nodes);
  }

  create(host: Host, parent: InstanceRef | undefined): Instance {
    return new Instance4(this, host, parent);
  }

  load(host: Host, snapshot: Snapshot): Instance {
    const instance = new Instance4(this, host, snapshot.extra?.parent);
    instance.mount(snapshot);
    return instance;
  }

  event(parsed: MachineEvent): unknown {
    return toSCXMLEvent(parsed);
  }

  lost(serviceId: string, error: ErrorObject): unknown {
    return toSCXMLEvent({ type: `error.platform.${serviceId}`, data: error });
  }

  get shape(): StateShape {
    return this.#shape ??= shapeOf(this.machine);
  }

  /** XState 4 keeps a tree of all states; only what history states could look at matters. */
  historyIn(extra: any): Description["history"] { // any: as in Snapshot
    const history: Description["history"] = [];
    for (const parent of allStates(this.shape)) {
      const current = historyAt(extra?.history, parent.path)?.current;
      if (current !== undefined && hasHistory(parent)) {
        const inside = activeIn(parent, unmoved(leavesOf(current, parent.path)));
        history.push({ at: parent.path, leaves: leafStatesIn(inside).map(({ path }) => path) });
      }
    }
    return history;
  }

  extraOf(active: Active, remembered: readonly Remembered[], kept: Kept): object {
    const extra: Record<string, unknown> = { ...kept };
    if (remembered.length > 0) {
      extra.history = this.#historyTree(active, remembered);
    }
    if (this.showsLastEvent) {
      extra.event = UPGRADE_EVENT;
    }
    return extra;
  }

  #historyTree(active: Active, remembered: readonly Remembered[]): HistoryTree {
    const tree = this.machine.historyValue(valueOf(active));
    const isActive = new Set(statesIn(active));
    const outsideIn = remembered.toSorted((a, b) => a.parent.path.length - b.parent.path.length);
    for (const { parent, inside } of outsideIn) {
      if (!isActive.has(parent)) { // those that are active are in the state's value
        const node = parent.path.reduce(
          (node, key) => node.states[key]!,
          this.machine as StateNode,
        );
        Object.assign(historyAt(tree, parent.path)!, node.historyValue(valueOf(inside)));
        this.#tellAround(tree, parent.path, isActive);
      }
    }
    return tree;
  }

  /** XState 4 goes by the states around: what they say to have had inside has to be the same. */
  #tellAround(tree: HistoryTree, path: Path, isActive: ReadonlySet<StateShape>): void {
    for (let depth = path.length - 1; depth >= 0; depth--) {
      const around = path.slice(0, depth);
      const outer = historyAt(tree, around)!;
      const key = path[depth]!;
      const { current } = outer;
      if (
        isActive.has(stateAt(this.shape, around)!) || typeof current === "string" ||
        !Object.hasOwn(current, key)
      ) {
        return;
      }
      outer.current = { ...current, [key]: outer.states![key]!.current };
    }
  }

  delayOf({ source }: After, context: unknown): unknown {
    const delay = typeof source === "string" ? this.machine.options.delays[source] : source;
    return typeof delay === "function"
      ? delay(context, UPGRADE_EVENT, { _event: toSCXMLEvent(UPGRADE_EVENT) })
      : delay;
  }
}

function historyAt(tree: HistoryTree | undefined, path: Path): HistoryTree | undefined {
  return path.reduce((place, key) => place?.states?.[key], tree);
}

function shapeOf(node: StateNode): StateShape {
  const { path, id, type, states } = node;
  return {
    path,
    id,
    type,
    isDeep: node.history === "deep",
    initial: node.initial === undefined ? undefined : String(node.initial),
    children: new Map(Object.entries(states).map(([key, child]) => [key, shapeOf(child)])),
    after: delaysOf(node),
  };
}

function delaysOf({ id, after }: StateNode): After[] {
  const delays = new Map<string, After>(); // several transitions may wait for the same one
  for (const { delay, eventType } of after) {
    const [, written] = /^xstate\.after\((.*)\)/.exec(eventType.slice(0, -id.length))!;
    // A function is called by its place in the list, after the id of its state.
    const name = typeof delay === "function" ? written!.replace(`${id}:`, "") : written!;
    delays.set(eventType, { delay: name, id: eventType, source: delay });
  }
  return [...delays.values()];
}

type SpawnEffect = Extract<Effect, { t: "spawn" }>;

/** An action that was decided on, with the context of its moment. */
interface Planned {
  action: Action;
  context: unknown;
  event: ScxmlEvent;
}

/** `spawn()` in an assign: the reference is there at once, the service runs after the commit. */
interface Spawned {
  id: string;
  start: () => void;
}

class Instance4 implements Instance {
  readonly #adapter: XState4;
  readonly #host: Host;
  readonly #parent: InstanceRef | undefined;
  readonly #service: Interpreter;

  /** What the next step starts from. */
  #state!: State;
  #next!: State;
  #contextJson = "";

  // Of the last computation.
  #planned: Planned[] = [];
  #spawned: Spawned[] = [];
  #forwarded: ScxmlEvent | undefined;
  #stopsAll = false;
  effects: Effect[] = [];
  report: Report | undefined;
  hasWork = false;
  #output: unknown;

  /** Persistent instances that are invoked, by the id of the invocation. */
  #persistent: Record<string, InstanceRef> = NO_REFS;
  #nextPersistent: Record<string, InstanceRef> = NO_REFS;

  /** Ids of delayed sends to services: they stay in memory, as the services do. */
  readonly #memoryTimers = new Set<string>();
  /** Services that the last computation stops, and that may still run until its commit. */
  readonly #stopping = new Set<string>();
  /** Services that said that they ended, but that XState still has in its list. */
  #ended: string[] = [];
  #computes = false;
  #registered = false;
  #disposed = false;

  constructor(adapter: XState4, host: Host, parent: InstanceRef | undefined) {
    this.#adapter = adapter;
    this.#host = host;
    this.#parent = parent;
    // `execute: false` would be inherited by the machines that it spawns, which would then do
    // nothing. It never executes anything by itself, since update() is never called.
    const service = new Interpreter(adapter.machine);
    service.status = RUNNING;
    service.initialized = true;
    if (parent !== undefined) {
      service.parent = { id: parent.id, send() {} };
    }
    service.send = (event, payload) => {
      for (const each of Array.isArray(event) ? event : [event]) {
        this.#receive(toSCXMLEvent(toEventObject(each, payload)));
      }
      return service._state;
    };
    service.spawn = (entity, name, options) =>
      this.#computes
        ? this.#spawnLater(entity, name, options)
        : this.#spawnNow(entity, name, options);
    this.#service = service;
  }

  get value(): StateValue {
    return this.#next.value;
  }

  get context(): unknown {
    return this.#next.context;
  }

  get tags(): Set<string> {
    return this.#next.tags;
  }

  get done(): boolean {
    return this.#next.done;
  }

  begin(given: Record<string, unknown>): void {
    const { machine, initialContext } = this.#adapter;
    const context = { ...initialContext(), ...given };
    const next = this.#compute(() => machine.getInitialState(machine.initialStateValue, context));
    this.#service._state = next;
    for (const action of next.actions) {
      this.#planned.push({ action, context: next.context, event: INIT });
    }
    this.#finish(next);
  }

  mount({ value, extra, context }: Snapshot): void {
    const lastEvent = extra?.event === undefined ? INIT : toSCXMLEvent(extra.event);
    // resolveState() makes the State of the user's copy: transition() tests for its own class.
    const state = this.#adapter.machine.resolveState({
      value,
      context: {},
      _event: lastEvent,
      _sessionid: null,
      historyValue: extra?.history,
      history: undefined,
      actions: [],
      activities: {},
      meta: {},
      events: [],
      configuration: [],
      transitions: [],
      children: {},
    });
    state.value = value; // as it was: resolveState() sorts its regions, and their order matters
    for (const service of this.#host.services.all()) {
      const { id } = service;
      service.actor = state.children[id] = inertActor(id);
      this.#service.children.set(id, state.children[id]);
    }
    this.#persistent = this.#nextPersistent = extra?.persistent ?? NO_REFS;
    this.#output = extra?.output;
    this.#next = state;
    this.adopt(context);
  }

  arrive(effects: Effect[]): void {
    if (!this.done) {
      this.effects = effects;
      return;
    }
    this.#output = doneData(this.#next);
    if (this.#parent !== undefined) {
      this.effects = [done(this.#output)];
    }
  }

  childEnded(event: MachineEvent, id: string, sender: Sender): boolean {
    const known = Object.hasOwn(this.#persistent, id) ? this.#persistent[id] : undefined;
    if (!isListenedTo(known, id, sender)) {
      return this.skip();
    }
    const before = this.#persistent;
    const { [id]: _ended, ...others } = before;
    this.#persistent = others;
    try {
      return this.transition(toSCXMLEvent(event)) || this.#keep(before);
    } catch (error) {
      this.#keep(before);
      throw error;
    }
  }

  #keep(persistent: Record<string, InstanceRef>): false {
    this.#persistent = this.#nextPersistent = persistent;
    return false;
  }

  transition(event: unknown): boolean {
    this.#reset();
    const scxmlEvent = event as ScxmlEvent;
    if (this.#isUnhandledError(scxmlEvent)) {
      this.#host.log("error", [
        `no transition for ${scxmlEvent.name}:`,
        errorText(scxmlEvent.data?.data),
      ]);
      return false;
    }
    const { machine, predictable } = this.#adapter;
    const collect: Collect | undefined = predictable
      ? (action, context, event) => {
        this.#planned.push({ action, context, event });
      }
      : undefined;
    const next = this.#compute(() =>
      machine.transition(this.#state, scxmlEvent, undefined, collect)
    );
    if (!predictable) {
      for (const action of next.actions) {
        this.#planned.push({ action, context: next.context, event: next._event });
      }
    }
    if (this.#service.forwardTo.size > 0) {
      this.#forwarded = scxmlEvent;
    }
    this.#finish(next);
    // `changed` overlooks the order of the regions in the value, by which XState goes later on.
    return next.changed === true || next.value !== this.#state.value;
  }

  skip(): false {
    this.#reset();
    return false;
  }

  /** XState 4 throws these in the face of whoever sent them, and goes on. */
  #isUnhandledError({ name }: ScxmlEvent): boolean {
    return name.startsWith("error.platform") &&
      !this.#state.nextEvents.some((handled) => handled.startsWith("error.platform"));
  }

  #reset(): void {
    for (const id of this.#ended) {
      this.#service.removeChild(id);
    }
    this.#ended = [];
    this.#planned = [];
    this.#spawned = [];
    this.#forwarded = undefined;
    this.#stopsAll = false;
    if (this.effects.length > 0) {
      this.effects = [];
    }
    this.#stopping.clear();
    this.report = undefined;
    this.hasWork = false;
    this.#nextPersistent = this.#persistent;
  }

  /** Computes where `spawn()` finds us. XState's stack of services does not survive a throw. */
  #compute(transition: () => State): State {
    let next: State | undefined;
    let failure: { error: unknown } | undefined;
    this.#computes = true;
    provide(this.#service, () => {
      try {
        next = transition();
      } catch (error) {
        failure = { error };
      }
    });
    this.#computes = false;
    if (failure !== undefined) {
      throw failure.error;
    }
    return next!;
  }

  // --- what a step does ---------------------------------------------------------------------------

  #finish(next: State): void {
    this.#next = next;
    for (const { id } of this.#spawned) {
      this.#startService(id, "(spawned)");
    }
    if (this.#planned.length > 0) {
      this.#planned = this.#declareEffects(next);
      orderSpawns(this.effects);
    }
    if (next.done) {
      this.#output = doneData(next);
      if (this.#parent !== undefined) {
        this.effects.push(done(this.#output));
      }
      for (const { id } of this.#host.services.all()) {
        this.#stopsAll = true;
        this.#reported().stopped.push(id);
      }
      this.#host.services.clear();
    }
    this.hasWork = this.#planned.length > 0 || this.#spawned.length > 0 || this.#stopsAll ||
      this.#forwarded !== undefined;
  }

  #reported(): Report {
    this.report ??= { actions: [], started: [], stopped: [] };
    return this.report;
  }

  #startService(id: string, src: string): void {
    this.#host.services.start(id, src, undefined);
    this.#reported().started.push(id);
  }

  /** Takes out what is data; returns what has to run after the commit. */
  #declareEffects(next: State): Planned[] {
    const starting = this.#persistentStarts(next);
    return this.#planned.filter(({ action }) => {
      switch (action.type) {
        case "xstate.send":
        case "xstate.raise":
          return !this.#declareSend(action, starting);
        case "xstate.cancel":
          this.effects.push({ t: "cancel", id: String(action.sendId) });
          return this.#memoryTimers.delete(String(action.sendId));
        case "xstate.start":
          return this.#planStart(action, starting, next);
        case "xstate.stop":
          return this.#planStop(action);
        case "xstate.log":
          this.#reported().actions.push("log");
          return true;
        default:
          if (!action.exec && !this.#adapter.machine.options.actions[action.type]) {
            return false; // named, but not implemented
          }
          this.#reported().actions.push(actionName(action.type));
          return true;
      }
    });
  }

  /** References to the instances that this step invokes: entry actions may send to them before. */
  #persistentStarts(next: State): Map<Action, SpawnEffect> {
    const starting = new Map<Action, SpawnEffect>();
    for (const { action, context, event } of this.#planned) {
      const { activity } = action;
      if (
        action.type === "xstate.start" && isPersistentSource(activity?.src) &&
        next.activities[activity.id]
      ) {
        const input = activity.data === undefined
          ? undefined
          : mapContext(activity.data, context, event);
        starting.set(action, {
          t: "spawn",
          id: activity.id,
          src: spawnSource(activity.src),
          input,
        });
      }
    }
    return starting;
  }

  /** True if the message is data now. */
  #declareSend(action: Action, starting: Map<Action, SpawnEffect>): boolean {
    const event = (action._event ?? toSCXMLEvent(action.event)).data;
    const instance = this.#instanceAt(action.to, starting);
    if (typeof action.delay !== "number") {
      if (instance !== undefined) {
        this.effects.push(send(instance, event));
      }
      return instance !== undefined;
    }
    const toService = action.to !== undefined && action.to !== "" && action.to !== "#_internal";
    if (toService && instance === undefined) {
      this.#memoryTimers.add(String(action.id));
      return false;
    }
    this.effects.push(timer(action.id, action.delay, event, instance));
    return true;
  }

  #instanceAt(
    to: any, // any: user data
    starting: Map<Action, SpawnEffect>,
  ): InstanceRef | undefined {
    if (isInstanceRef(to)) {
      return instanceRef(to);
    }
    if (to === undefined || to === null || to === "") {
      return undefined;
    }
    if (this.#parent !== undefined && (to === "#_parent" || to === this.#parent.id)) {
      return instanceRef(this.#parent);
    }
    const id = String(typeof to === "object" ? to.id : to);
    const invoked = this.#nextPersistent[id];
    if (invoked !== undefined) {
      return invoked;
    }
    for (const spawn of starting.values()) {
      if (spawn.id === id) {
        return spawnedRef(spawn);
      }
    }
    return undefined;
  }

  #planStart(
    action: Action,
    starting: Map<Action, SpawnEffect>,
    next: State,
  ): boolean {
    const { activity } = action;
    if (isPersistentSource(activity.src)) {
      const spawn = starting.get(action);
      if (spawn !== undefined) {
        this.effects.push(spawn);
        this.#nextPersistent = { ...this.#nextPersistent, [spawn.id]: spawnedRef(spawn) };
      }
      return false;
    }
    const { predictable, machine } = this.#adapter;
    const id: string = activity.id || activity.type;
    if (!predictable && !next.activities[id]) {
      return false; // left again within the step: XState would not start it either
    }
    if (activity.type !== "xstate.invoke") {
      if (machine.options.activities[activity.type] === undefined) {
        return false;
      }
      this.#startService(activity.id, activity.type);
      return true;
    }
    const source = toInvokeSource(activity.src).type;
    const creator = machine.options.services[source];
    if (!creator || typeof creator === "string") {
      return false;
    }
    this.#startService(id, source === id || INLINE_SOURCE.test(source) ? "(inline)" : source);
    return true;
  }

  #planStop({ activity }: Action): boolean {
    if (isInstanceRef(activity)) {
      this.effects.push({ t: "stop", id: instanceRef(activity).id });
      return false;
    }
    const id: string | undefined = activity?.id;
    if (id === undefined) {
      return false;
    }
    if (this.#nextPersistent[id] !== undefined) {
      const { [id]: _stopped, ...others } = this.#nextPersistent;
      this.#nextPersistent = others;
      this.effects.push({ t: "stop", id });
      return false;
    }
    // Most states that are left have nothing running any more: not worth a second round trip.
    this.#stopping.add(id);
    const service = this.#host.services.get(id);
    if (service !== undefined) {
      this.#host.services.remove(service);
      this.#reported().stopped.push(id);
    }
    return service !== undefined || this.#service.children.has(id);
  }

  // --- services -----------------------------------------------------------------------------------

  #spawnNow(entity: unknown, name: string, options: object | undefined): Actor {
    const actor = spawn.call(this.#service, entity, name, options);
    if (actor.id === name) {
      actor.toJSON = () => ({ xstate$$type: 1, id: name });
    }
    return actor;
  }

  #spawnLater(entity: any, id: string, options: object | undefined): Actor { // any: user code
    const waiting: unknown[] = [];
    let actor: Actor | undefined;
    let stopped = false;
    const start = () => {
      if (!stopped) {
        actor = this.#spawnNow(entity, id, options);
        for (const event of waiting) {
          actor.send(event);
        }
      }
    };
    this.#spawned.push({ id, start });
    return {
      ...inertActor(id),
      ...(entity?.__xstatenode ? { machine: entity } : {}), // how XState tells machines from others
      send: (event) => {
        if (actor === undefined) {
          waiting.push(event);
        } else {
          actor.send(event);
        }
      },
      stop: () => {
        stopped = true;
        actor?.stop?.();
      },
      getSnapshot: () => actor === undefined ? initialStateOf(entity) : actor.getSnapshot?.(),
      subscribe: (...args) => actor?.subscribe?.(...args) ?? { unsubscribe() {} },
    };
  }

  spawnPersistent(id: string, isNamed: boolean, source: SpawnSource, input: unknown): void {
    const spawn: SpawnEffect = { t: "spawn", id, src: source, input };
    this.effects.push(spawn);
    if (isNamed) {
      this.#nextPersistent = { ...this.#nextPersistent, [id]: spawnedRef(spawn) };
    }
  }

  spawnEphemeral(entity: unknown, id: string, options: object | undefined): unknown {
    return this.#service.spawn(entity, id, options);
  }

  runs({ actor }: Service): boolean {
    return actor !== undefined && (actor as Actor).status !== STOPPED;
  }

  abandon({ id }: Service): void {
    this.#attempt("stopping a service", () => this.#service.stopChild(id));
  }

  // --- between steps ------------------------------------------------------------------------------

  adopt(contextJson: string): any {
    this.#contextJson = contextJson;
    this.#state = this.#next;
    this.#persistent = this.#nextPersistent;
    this.#state.context = this.#readBack(contextJson);
    if (!this.hasWork) {
      this.#service._state = this.#state;
      this.#trim(this.#state);
    }
    return this.#state.context;
  }

  #readBack(contextJson: string): unknown {
    const context = parse(contextJson);
    return contextJson.includes(ACTOR_MARK) ? this.#reviveActors(context) : context;
  }

  #reviveActors(value: any): unknown { // any: user data
    if (typeof value !== "object" || value === null) {
      return value;
    }
    if (value.xstate$$type === 1) {
      return this.#service.children.get(value.id) ?? inertActor(value.id);
    }
    for (const key of Object.keys(value)) {
      value[key] = this.#reviveActors(value[key]);
    }
    return value;
  }

  /** Drops what a loaded state would not have either. */
  #trim(state: State): void {
    state.history = undefined;
    state.actions = [];
    state._event = this.#adapter.showsLastEvent
      ? toSCXMLEvent(parse(stringify(state._event.data) ?? "null"))
      : INIT;
    state.event = state._event.data;
  }

  rollback(contextJson: string): void {
    this.#reset();
    this.#next = this.#state;
    this.#state.context = this.#readBack(contextJson);
  }

  extra(): string {
    const { historyValue, done, _event } = this.#next;
    const { hasHistory, showsLastEvent } = this.#adapter;
    const extra: Record<string, unknown> = {};
    if (hasHistory && historyValue !== undefined) {
      extra.history = historyValue;
    }
    if (done && this.#output !== undefined) {
      extra.output = this.#output;
    }
    if (this.#parent !== undefined) {
      extra.parent = this.#parent;
    }
    if (showsLastEvent) {
      extra.event = _event.data;
    }
    if (!done && Object.keys(this.#nextPersistent).length > 0) {
      extra.persistent = this.#nextPersistent;
    }
    return Object.keys(extra).length > 0 ? stringify(extra)! : "";
  }

  get mustReload(): boolean {
    return this.#registered || (this.#adapter.hasRegions && contradictsItself(this.#next));
  }

  run(): void {
    const service = this.#service;
    const next = this.#state;
    const planned = this.#planned;
    const spawned = this.#spawned;
    const forwarded = this.#forwarded;
    this.#planned = [];
    this.#spawned = [];
    this.#forwarded = undefined;
    this.#stopping.clear();
    this.hasWork = false;
    if (!this.#registered && this.#host.services.size > 0) {
      registry.register(service.sessionId, service);
      this.#registered = true;
    }
    next._sessionid = service.sessionId;
    if (!this.#adapter.predictable) {
      service._state = next;
    }

    if (forwarded !== undefined) {
      for (const id of service.forwardTo) {
        this.#attempt(`forwarding to ${id}`, () => service.children.get(id)?.send(forwarded));
      }
    }
    for (const { id, start } of spawned) {
      this.#attempt(`starting ${id}`, start);
    }
    for (const { action, context, event } of planned) {
      this.#attempt(
        `action ${action.type}`,
        () =>
          action.type === "xstate.start"
            ? this.#start(action, context, event)
            : service._exec(action, context, event),
      );
    }
    service._state = next;
    for (
      let out = service._outgoingQueue.shift();
      out !== undefined;
      out = service._outgoingQueue.shift()
    ) {
      const [target, event] = out;
      this.#attempt("a send", () => target.send(event));
    }

    if (this.#stopsAll) {
      this.#attempt("stopping the services", () => service._stopChildren());
    }
    for (const [id, actor] of service.children) {
      next.children[id] = actor;
    }
    for (const started of this.#host.services.all()) {
      started.actor ??= service.children.get(started.id);
    }
    this.#trim(next);
    if (spawned.length > 0) {
      next.context = this.#readBack(this.#contextJson); // with the services now, not their stand-ins
    }
  }

  /** Starts a service, whose function finds its effect key and policy in `starting`. */
  #start(action: Action, context: unknown, event: ScxmlEvent): void {
    const { activity } = action;
    const service = this.#host.services.get(activity.id || activity.type);
    if (service !== undefined) {
      const policy = this.#adapter.policyOf(service.id, this.#state.configuration);
      const isAlive = () => !this.#disposed && this.#host.services.has(service);
      const warn = (text: string) => this.#host.log("warn", [text]);
      starting = {
        key: service.key,
        retries: policy && new Retries(policy, service.id, isAlive, warn),
      };
    }
    try {
      this.#service._exec(action, context, event);
    } finally {
      starting = undefined;
    }
  }

  #attempt(what: string, run: () => void): void {
    try {
      run();
    } catch (error) {
      this.#host.log("error", [`${what} failed:`, errorText(error)]);
    }
  }

  /** Whatever is sent to the machine becomes an inbox event. */
  #receive(event: ScxmlEvent): void {
    if (this.#disposed) {
      return;
    }
    const service = this.#senderOf(event);
    if (service === null) {
      return;
    }
    const ends = service !== undefined && this.#tellsEnd(event, service);
    if (ends) {
      this.#ended.push(service.id);
    }
    this.#host.receive(event, event.data, service, ends);
  }

  /** undefined: nobody that we keep account of; null: a service that is being stopped. */
  #senderOf({ name, origin }: ScxmlEvent): Service | undefined | null {
    let id = origin;
    if (origin === undefined) {
      // A callback that throws when it is called, and behaviors, don't say who they are.
      id = /^(?:error\.platform|done\.invoke)\.(.*)$/.exec(name)?.[1];
    } else {
      const machine = registry.get(origin);
      if (machine !== undefined) {
        id = machine.parent === this.#service ? machine.id : undefined;
      }
    }
    if (id === undefined) {
      return undefined;
    }
    // Until the commit runs, a service that the last step has stopped goes on.
    return this.#stopping.has(id) ? null : this.#host.services.get(id);
  }

  /** `escalate()` sends the same event as a failure, but by the session of a machine that goes on. */
  #tellsEnd({ name, origin }: ScxmlEvent, { id }: Service): boolean {
    return (name === `done.invoke.${id}` || name === `error.platform.${id}`) &&
      (origin === undefined || origin === id);
  }

  dispose(): void {
    this.#disposed = true;
    const service = this.#service;
    for (const id of Object.keys(service.delayedEventsMap)) {
      service.clock.clearTimeout(service.delayedEventsMap[id]);
    }
    this.#attempt("stopping the services", () => service._stopChildren());
    if (this.#registered) {
      registry.free(service.sessionId); // a Map of the module: it would keep the instance for ever
    }
  }
}

const NO_REFS: Record<string, InstanceRef> = {};
const INLINE_SOURCE = /:invocation\[\d+\]$/;
const ACTOR_MARK = '"xstate$$type"';

/**
 * When two regions take a transition for the same event and one of them leaves the parallel state,
 * XState 4 keeps nodes active that its own state value says are not, and enters them again with
 * every event.
 */
function contradictsItself({ configuration }: State): boolean {
  const parents = new Set<unknown>();
  for (const { parent } of configuration) {
    if (parent?.type === "compound") {
      if (parents.has(parent)) {
        return true;
      }
      parents.add(parent);
    }
  }
  return false;
}

function spawnedRef({ id, src }: SpawnEffect): InstanceRef {
  const { machineName, machineInstanceName } = src;
  return { type: "statebacked.instance", id, machineName, machineInstanceName };
}

/** The type of an action that is a nameless function is its source. */
function actionName(type: string): string {
  return /^[\w.$ -]{1,80}$/.test(type) ? type : "(anonymous)";
}

/** The service that an instance starts right now. */
let starting: { key: string; retries: Retries | undefined } | undefined;

type Creator = (context: unknown, event: unknown, about: object) => unknown;

/** Has the functions of a machine's services get `effectKey`, and follow their policies. */
function tellServices({ options }: Machine): void {
  const services: Record<string, unknown> = {};
  for (const [name, creator] of Object.entries(options.services ?? {})) {
    services[name] = typeof creator !== "function" ? creator : telling(creator as Creator);
  }
  options.services = services;
}

function telling(creator: Creator): Creator {
  return (context, event, about) => {
    if (starting === undefined) {
      return creator(context, event, about);
    }
    const { key, retries } = starting;
    starting = undefined; // what it starts by itself is another service
    const start = () => creator(context, event, { ...about, effectKey: key });
    const made = start();
    return retries === undefined ? made : retriedPromise(made, start, retries);
  };
}

/** Stands for a service that is gone: whatever is sent to it is lost. */
function inertActor(id: string): Actor {
  return {
    id,
    send() {},
    stop() {},
    subscribe: () => ({ unsubscribe() {} }),
    getSnapshot: () => undefined,
    toJSON: () => ({ xstate$$type: 1, id }),
    "@@observable"() {
      return this;
    },
  };
}

function initialStateOf(entity: any): unknown { // any: user code
  return entity?.__xstatenode ? provide(undefined, () => entity.initialState) : undefined;
}

function doneData({ configuration, context, _event }: State): unknown {
  const final = configuration.find(({ type, parent }) =>
    type === "final" && parent !== undefined && parent.parent === undefined
  );
  return final?.doneData === undefined ? undefined : mapContext(final.doneData, context, _event);
}

/** `(context, event, meta)`: does any function of the machine take the third parameter? */
function looksAtMeta({ options }: Machine, nodes: StateNode[]): boolean {
  const takesMeta = (value: unknown) => typeof value === "function" && value.length > 2;
  const actionTakesMeta = ({ exec, assignment }: Action) =>
    takesMeta(exec) || takesMeta(assignment) ||
    (typeof assignment === "object" && assignment !== null &&
      Object.values(assignment).some(takesMeta));
  return Object.values(options.guards).some(takesMeta) ||
    Object.values(options.actions).some((action) =>
      typeof action === "function"
        ? takesMeta(action)
        : typeof action === "object" && actionTakesMeta(action)
    ) ||
    nodes.some(({ transitions, onEntry, onExit }) =>
      onEntry.some(actionTakesMeta) || onExit.some(actionTakesMeta) ||
      transitions.some(({ cond, actions }) =>
        takesMeta(cond?.predicate) || actions.some(actionTakesMeta)
      )
    );
}
