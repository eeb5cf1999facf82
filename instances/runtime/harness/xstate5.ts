// XState 5: the platform's copy, or one that the user bundled (5.19 and later).
//
// XState computes a transition and, through its actor scope, hands over every action as it goes.
// The machine is given an actor that was never started, with a scope of ours: builtin actions are
// asked to queue what they would do, custom ones are kept as they are, and nothing happens before
// run(). `transition()` and `initialTransition()` of XState would not do: in their inert scope the
// services of a step can never be started.

import {
  type Action,
  type Actor,
  createActor,
  type EndedSnapshot,
  type MachineSnapshot,
  type Scope,
  type StateMachine,
  type StateNode,
  type System,
} from "xstate";
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
import { type Policies, policiesOf, policyIn, Retries, type RetryPolicy } from "./retry.ts";
import type { Service } from "./services.ts";
import {
  type Active,
  activeIn,
  type After,
  type Description,
  type Kept,
  leafStatesIn,
  type Remembered,
  stateAt,
  type StateShape,
  unmoved,
  UPGRADE_EVENT,
} from "./upgrade.ts";

const RUNNING = 1;
const STOPPED = 2;

/** Ours, not XState's: which instance an actor stands for. */
interface RemoteActor extends Actor {
  persistent?: InstanceRef;
}

function instanceOf(actor: Actor | undefined): InstanceRef | undefined {
  return (actor as RemoteActor | undefined)?.persistent;
}

/** Logic that does nothing: for our root while it is made, and for services that are no more. */
const INERT = {
  transition: (snapshot: unknown) => snapshot,
  getInitialSnapshot: () => ({ status: "stopped", output: undefined, error: undefined }),
  getPersistedSnapshot: (snapshot: unknown) => snapshot,
  restoreSnapshot: (snapshot: unknown) => snapshot,
};

export function isMachine5(value: any): value is StateMachine { // any: tested here
  return typeof value?.getPersistedSnapshot === "function" &&
    typeof value.getInitialSnapshot === "function" && typeof value.transition === "function" &&
    value.root !== undefined;
}

export class XState5 implements Adapter {
  readonly major = 5;
  readonly #machine: StateMachine;
  /** Only for a static context: computes initial states, with `config.context` set for each. */
  readonly #initializer: StateMachine | undefined;
  readonly #context: () => Record<string, unknown>;
  readonly hasRegions: boolean;
  readonly #policies: Policies;
  #shape: StateShape | undefined;

  constructor(machine: StateMachine) {
    this.#machine = machine;
    refuseOldCopy(machine);
    const nodes = [...machine.idMap.values()];
    this.#policies = policiesOf(nodes);
    this.hasRegions = nodes.some(({ type }) => type === "parallel");
    for (const node of nodes) {
      if (node.type === "compound") {
        void node.initial; // as policiesOf() did with `invoke`: XState resolves both lazily
      }
    }
    const context = machine.config.context;
    if (typeof context === "function") {
      this.#context = () => ({});
    } else {
      this.#initializer = Object.create(machine, {
        config: { value: { ...machine.config }, enumerable: true },
        getInitialSnapshot: { value: Object.getPrototypeOf(machine).getInitialSnapshot },
      });
      this.#context = copier(context ?? {});
    }
  }

  create(host: Host, parent: InstanceRef | undefined): Instance {
    return new Instance5(this, host, parent);
  }

  load(host: Host, snapshot: Snapshot): Instance {
    const instance = new Instance5(this, host, snapshot.extra?.parent);
    instance.mount(snapshot);
    return instance;
  }

  event(parsed: MachineEvent): unknown {
    return parsed;
  }

  lost(serviceId: string, error: ErrorObject): unknown {
    return { type: `xstate.error.actor.${serviceId}`, error, actorId: serviceId };
  }

  /** The retry policy of a service that is invoked by one of these active nodes. */
  policyOf(serviceId: string, nodes: readonly StateNode[]): RetryPolicy | undefined {
    return policyIn(this.#policies, serviceId, nodes);
  }

  get shape(): StateShape {
    return this.#shape ??= shapeOf(this.#machine.root);
  }

  historyIn(extra: any): Description["history"] { // any: as in Snapshot
    const found = new Map<StateNode, Description["history"][number]>();
    for (
      const [id, nodeIds] of Object.entries((extra?.history ?? {}) as Record<string, string[]>)
    ) {
      const { idMap } = this.#machine;
      const state = idMap.get(id);
      const parent = state?.parent;
      const nodes = nodeIds.flatMap((nodeId) => idMap.get(nodeId) ?? [])
        .toSorted((a, b) => a.order - b.order);
      const isBetterKnown = parent !== undefined && found.has(parent) && state!.history !== "deep";
      if (parent === undefined || nodes.length === 0 || isBetterKnown) {
        continue;
      }
      // A shallow one knows children of its parent only: they would begin with their initial states.
      const paths = nodes.map(({ path }) => path);
      const inside = activeIn(stateAt(this.shape, parent.path)!, unmoved(paths));
      found.set(parent, { at: parent.path, leaves: leafStatesIn(inside).map(({ path }) => path) });
    }
    return [...found.values()];
  }

  extraOf(_active: Active, remembered: readonly Remembered[], kept: Kept): object {
    const history: Record<string, string[]> = {};
    for (const { parent, inside } of remembered) {
      for (const state of parent.children.values()) {
        if (state.type === "history") {
          const left = state.isDeep
            ? leafStatesIn(inside)
            : inside.children.map(({ shape }) => shape);
          history[state.id] = left.map(({ id }) => id);
        }
      }
    }
    return { ...kept, ...(hasOwnKeys(history) ? { history } : {}) };
  }

  delayOf({ source }: After, context: unknown): unknown {
    if (typeof source !== "string") {
      return source;
    }
    const delay = this.#machine.implementations.delays[source];
    return typeof delay === "function"
      ? delay({ context, event: UPGRADE_EVENT }, undefined)
      : delay;
  }

  get machine(): StateMachine {
    return this.#machine;
  }

  /** A static context is extended by what the creator gave; a context function gets that as input. */
  initialSnapshot(scope: Scope, given: Record<string, unknown>): MachineSnapshot {
    if (this.#initializer === undefined) {
      return this.#machine.getInitialSnapshot(scope, given);
    }
    this.#initializer.config.context = { ...this.#context(), ...given };
    const snapshot = this.#initializer.getInitialSnapshot(scope, given);
    snapshot.machine = this.#machine;
    return snapshot;
  }
}

class Instance5 implements Instance {
  readonly #machine: StateMachine;
  readonly #adapter: XState5;
  readonly #host: Host;
  readonly #parent: InstanceRef | undefined;
  readonly #root: Actor;
  readonly #scope: Scope;

  /** What the next step starts from. */
  #snapshot!: MachineSnapshot;
  /** What the last computation made. The same object if it did nothing. */
  #next!: MachineSnapshot;

  // Of the last computation.
  #builtins: Builtin[] = [];
  #custom: Action[] = [];
  #deferred: ((() => void) | undefined)[] = [];
  effects: Effect[] = [];
  report: Report | undefined;
  hasWork = false;

  /** Children with a name that the last computation spawned by spawnPersistentInstance(). */
  #named: RemoteActor[] = [];
  #lent: { children: Record<string, Actor | undefined>; id: string; before: Actor | undefined }[] =
    [];

  /** The initial step was computed, and has not run yet. */
  #isInitial = false;
  /** Ids of delayed sends to services: they stay in memory, as the services do. */
  readonly #memoryTimers = new Set<string>();
  /** Services that the last computation stops, and that may still run until its commit. */
  readonly #stopping = new Set<unknown>();

  // What extra() returned last, and what it was made of.
  #extra = "";
  #extraChildren: unknown;
  #extraHistory: unknown;
  #extraNodes: unknown;
  #disposed = false;

  constructor(adapter: XState5, host: Host, parent: InstanceRef | undefined) {
    this.#adapter = adapter;
    this.#machine = adapter.machine;
    this.#host = host;
    this.#parent = parent;

    // A real actor, so that `self`, `system` and session ids are what XState expects. It is made
    // with logic that does nothing, so that making it computes nothing.
    const root = this.#root = createActor(INERT, { id: this.#machine.id });
    root.logic = root.src = this.#machine;
    root._processingStatus = RUNNING;
    root.system._register(root.sessionId, root);
    if (parent !== undefined) {
      root._parent = persistentParent(parent, root);
    }

    const relay = root.system._relay;
    root.system._relay = (source, target, event) => {
      if (target === root) {
        this.#receive(source, event);
      } else if (isInstanceRef(target)) {
        throw new TypeError("only the instance's own machine can send to other instances");
      } else {
        relay(source, target, event);
      }
    };

    const scope = this.#scope = root._actorScope;
    scope.defer = (effect) => {
      this.#deferred.push(effect);
    };
    scope.actionExecutor = (action) => this.#collect(action);
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
    return this.#next.status === "done";
  }

  begin(given: Record<string, unknown>): void {
    this.#isInitial = true;
    const snapshot = this.#adapter.initialSnapshot(this.#scope, given);
    this.#finish(NO_CHILDREN, snapshot);
    this.#root._snapshot = snapshot;
  }

  mount({ value, done, extra, context }: Snapshot): void {
    const children: Record<string, object> = {};
    const mountInert = (id: string, snapshot: EndedSnapshot) => {
      children[id] = { src: INERT, snapshot: { output: undefined, error: undefined, ...snapshot } };
    };
    for (const { id } of this.#host.services.all()) {
      mountInert(id, LOST);
    }
    for (
      const [id, snapshot] of Object.entries((extra?.ended ?? {}) as Record<string, EndedSnapshot>)
    ) {
      mountInert(id, snapshot);
    }
    const persistent = (extra?.persistent ?? {}) as Record<string, InstanceRef>;
    for (const id of Object.keys(persistent)) {
      mountInert(id, LOST);
    }

    // Context and history are put in afterwards: XState would turn a reference to a service that
    // is gone into undefined (a send to which goes to the machine itself), and older copies don't
    // revive history at all.
    const snapshot = this.#machine.restoreSnapshot({
      status: done ? "done" : "active",
      output: extra?.output,
      value,
      context: {},
      children,
      historyValue: {},
    }, this.#scope);
    for (
      const [id, nodeIds] of Object.entries((extra?.history ?? {}) as Record<string, string[]>)
    ) {
      snapshot.historyValue[id] = nodeIds.flatMap((nodeId) =>
        this.#machine.idMap.get(nodeId) ?? []
      );
    }
    snapshot.value = value;
    snapshot._nodes = inOrder(snapshot._nodes, extra?.nodes);
    snapshot.tags = new Set(snapshot._nodes.flatMap(({ tags }) => tags));
    for (const [id, ref] of Object.entries(persistent)) {
      (snapshot.children[id] as RemoteActor).persistent = ref;
    }
    for (const service of this.#host.services.all()) {
      service.actor = snapshot.children[service.id];
    }
    this.#next = snapshot;
    this.adopt(context);
  }

  arrive(effects: Effect[]): void {
    if (!this.done) {
      this.effects = effects;
      return;
    }
    this.#next.output = this.#output();
    if (this.#parent !== undefined) {
      this.effects = [done(this.#next.output)];
    }
  }

  /** As XState works it out when a machine enters its final state. */
  #output(): unknown {
    const { context, _nodes } = this.#next;
    const { root } = this.#machine;
    const resolve = (output: unknown, event: MachineEvent) =>
      typeof output === "function" ? output({ context, event, self: this.#root }) : output;
    const final = _nodes.find(({ type, parent }) => type === "final" && parent === root) ?? root;
    return resolve(root.output, {
      type: `xstate.done.state.${final.id}`,
      output: final === root ? undefined : resolve(final.output, UPGRADE_EVENT),
    });
  }

  childEnded(event: MachineEvent, id: string, sender: Sender): boolean {
    const before = this.#snapshot;
    const known = Object.hasOwn(before.children, id) ? instanceOf(before.children[id]) : undefined;
    if (!isListenedTo(known, id, sender)) {
      return this.skip();
    }
    const { [id]: _ended, ...others } = before.children;
    this.#snapshot = { ...before, children: others };
    try {
      if (this.transition(event)) {
        return true;
      }
    } catch (error) {
      this.#snapshot = before;
      throw error;
    }
    this.#snapshot = this.#next = before;
    return false;
  }

  transition(event: unknown): boolean {
    this.#reset();
    const before = this.#snapshot;
    if (this.#isUnhandledError(event as MachineEvent)) {
      // XState 5 would put the whole machine into status "error", for ever. XState 4 reports it
      // and goes on, and so do we.
      const { type, error } = event as { type: string; error: unknown };
      this.#host.log("error", [`no transition for ${type}:`, errorText(error)]);
      return false;
    }
    const next = this.#machine.transition(before, event as MachineEvent, this.#scope);
    this.#finish(before.children, next);
    return next !== before;
  }

  skip(): false {
    this.#reset();
    return false;
  }

  #isUnhandledError(event: MachineEvent): boolean {
    return event.type.startsWith("xstate.error.actor.") &&
      this.#machine.getTransitionData(this.#snapshot, event).length === 0;
  }

  #reset(): void {
    if (this.#builtins.length > 0) {
      this.#builtins = [];
    }
    if (this.#custom.length > 0) {
      this.#custom = [];
    }
    if (this.#deferred.length > 0) {
      this.#deferred = [];
    }
    if (this.effects.length > 0) {
      this.effects = [];
    }
    if (this.#named.length > 0) {
      this.#named = [];
      this.#takeBack();
    }
    this.#stopping.clear();
    this.report = undefined;
    this.hasWork = false;
    this.#isInitial = false;
  }

  /** Called by XState for each action, in order, while it computes. */
  #collect(action: Action): void {
    const { type, exec, info, params } = action;
    if (exec === undefined) {
      return; // named, but not implemented: nothing would happen
    }
    const deferredAt = this.#deferred.length;
    switch (type) {
      case "xstate.raise":
      case "xstate.cancel":
        break;
      case "xstate.sendTo":
        if (typeof params.delay !== "number" && !isInstanceRef(params.to)) {
          exec(info, params); // only queues; a string `to` is resolved before the queue runs
        }
        break;
      case "xstate.spawnChild":
        if (params.actorRef !== undefined && !isPersistentSource(params.actorRef.logic)) {
          exec(info, params);
        }
        break;
      case "xstate.stopChild":
        if (params !== undefined && !isInstanceRef(params)) {
          this.#stopping.add(params);
          exec(info, params); // unregisters its systemId at once, so that it can be taken again
        }
        break;
      case "xstate.emit":
        if (this.#root.eventListeners.size > 0) {
          exec(info, params);
        }
        return;
      default:
        this.#custom.push(action);
        return;
    }
    this.#builtins.push({ type, params, exec: () => exec(info, params), deferredAt });
  }

  spawnPersistent(id: string, isNamed: boolean, source: SpawnSource, input: unknown): void {
    this.#builtins.push({
      type: "statebacked.spawn",
      params: { t: "spawn", id, src: source, input },
      exec: () => {},
      deferredAt: -1,
    });
    if (isNamed) {
      const child = this.#remote(id, source);
      this.#named.push(child);
      // So that the actions that follow find it, if they look where the step began.
      const children = this.#isInitial ? undefined : this.#snapshot.children;
      if (children !== undefined) {
        this.#lent.push({ children, id, before: children[id] });
        children[id] = child;
      }
    }
  }

  /** An actor that is never started: it only knows which instance it stands for. */
  #remote(id: string, { machineName, machineInstanceName }: SpawnSource): RemoteActor {
    const child = createActor(INERT, { id, parent: this.#root, snapshot: LOST }) as RemoteActor;
    child.persistent = { type: "statebacked.instance", id, machineName, machineInstanceName };
    return child;
  }

  /** Takes back from the last snapshot what only the computation was to find there. */
  #takeBack(): void {
    for (const { children, id, before } of this.#lent.reverse()) {
      if (before === undefined) {
        delete children[id];
      } else {
        children[id] = before;
      }
    }
    this.#lent = [];
  }

  spawnEphemeral(): unknown {
    throw new Error("with XState 5, use the `spawn` that assign() passes to its function");
  }

  #finish(childrenBefore: Record<string, Actor | undefined>, next: MachineSnapshot): void {
    if (next.status === "error") {
      throw next.error;
    }
    if (this.#named.length > 0) {
      next = this.#withNamed(next);
    }
    this.#next = next;
    if (next.children !== childrenBefore || next.status !== "active") {
      this.#compareServices(childrenBefore, next);
    }
    if (this.#builtins.length > 0) {
      this.#declareEffects(childrenBefore);
    }
    if (next.status === "done" && this.#parent !== undefined) {
      this.effects.push(done(next.output));
    }
    if (this.#custom.length > 0) {
      this.#reported().actions = this.#custom.map(({ type }) => type);
      this.hasWork = true;
    }
    for (let i = 0; !this.hasWork && i < this.#deferred.length; i++) {
      this.hasWork = this.#deferred[i] !== undefined;
    }
  }

  #withNamed(next: MachineSnapshot): MachineSnapshot {
    const named = this.#named.filter((child) => !this.#stopping.has(child));
    this.#takeBack();
    const children = { ...next.children };
    for (const child of this.#named) {
      if (children[child.id] === child) {
        delete children[child.id];
      }
    }
    for (const child of named) {
      children[child.id] = child;
    }
    return { ...next, children };
  }

  #reported(): Report {
    this.report ??= { actions: [], started: [], stopped: [] };
    return this.report;
  }

  #compareServices(before: Record<string, Actor | undefined>, next: MachineSnapshot): void {
    const { services } = this.#host;
    const active = next.status === "active";
    for (const service of services.all()) {
      if (!active || this.#stopping.has(service.actor)) {
        services.remove(service);
        this.#reported().stopped.push(service.id);
      }
    }
    if (!active) {
      return; // a machine that is done has stopped what it began in the same step
    }
    const started = new Set<Actor>();
    for (const { type, params } of this.#builtins) {
      if (type === "xstate.spawnChild" && params.actorRef !== undefined) {
        started.add(params.actorRef); // not all of them are children: another may have taken the id
      }
    }
    for (const id of Object.keys(next.children)) {
      const child = next.children[id];
      if (child !== undefined && child !== before[id] && !this.#named.includes(child)) {
        started.add(child); // by an assign
      }
    }
    for (const actor of started) {
      if (this.#stopping.has(actor)) {
        continue;
      }
      if (isPersistentSource(actor.logic)) {
        this.#spawnChildInstance(actor);
      } else {
        this.#prepare(actor, services.start(actor.id, serviceSource(actor), actor), next);
        this.#reported().started.push(actor.id);
      }
    }
  }

  /** Gives a service that is to start its effect key, and attempts as its policy says. */
  #prepare(actor: Actor, service: Service, next: MachineSnapshot): void {
    (actor as Keyed).effectKey = service.key;
    const policy = this.#adapter.policyOf(actor.id, next._nodes);
    const logic = actor.logic as any; // any: logic of the user's XState
    if (policy === undefined || typeof logic.config !== "function") {
      return; // no policy, or a machine
    }
    const isAlive = () => !this.#disposed && this.runs(service) && this.#host.services.has(service);
    const warn = (text: string) => this.#host.log("warn", [text]);
    actor.logic = retriedLogic(logic, new Retries(policy, actor.id, isAlive, warn));
  }

  /** An actor that stands for another instance: it is never started, and knows what to send to. */
  #spawnChildInstance(child: Actor): void {
    const { id } = child;
    const source = spawnSource(child.logic as { machineName: string });
    const { machineName, machineInstanceName } = source;
    child._processingStatus = STOPPED;
    (child as RemoteActor).persistent = {
      type: "statebacked.instance",
      id,
      machineName,
      machineInstanceName,
    };
    const params = { t: "spawn", id, src: source, input: child.options.input };
    const action = this.#builtins.find(({ type, params }) =>
      type === "xstate.spawnChild" && params.actorRef === child
    );
    if (action === undefined) { // spawned in an assign, so before all actions
      this.#builtins.unshift({ type: "statebacked.spawn", params, exec: () => {}, deferredAt: -1 });
    } else {
      action.type = "statebacked.spawn";
      action.params = params;
    }
  }

  /** Classified only now, since XState resolves some targets after it handed over the action. */
  #declareEffects(childrenBefore: Record<string, Actor | undefined>): void {
    for (const { type, params, exec, deferredAt } of this.#builtins) {
      switch (type) {
        case "xstate.raise":
          if (typeof params.delay === "number") {
            this.effects.push(timer(params.id, params.delay, params.event, undefined));
          }
          break;
        case "xstate.cancel":
          this.effects.push({ t: "cancel", id: String(params.sendId) });
          if (this.#memoryTimers.delete(String(params.sendId))) {
            exec();
          }
          break;
        case "xstate.sendTo": {
          const instance = isInstanceRef(params.to)
            ? instanceRef(params.to)
            : instanceOf(params.to);
          if (typeof params.delay !== "number") {
            if (instance !== undefined) {
              this.effects.push(send(instance, params.event));
              this.#deferred[deferredAt] = undefined;
            }
          } else if (instance !== undefined || params.to === this.#root) {
            this.effects.push(timer(params.id, params.delay, params.event, instance));
          } else {
            this.#memoryTimers.add(String(params.id));
            exec();
          }
          break;
        }
        case "xstate.spawnChild":
          if (this.#stopping.has(params.actorRef)) {
            this.#deferred[deferredAt] = undefined; // XState would not start it either
          }
          break;
        case "xstate.stopChild":
          if (isInstanceRef(params)) {
            this.effects.push({ t: "stop", id: instanceRef(params).id });
          } else if (instanceOf(params) !== undefined && childrenBefore[params.id] === params) {
            this.effects.push({ t: "stop", id: params.id });
          }
          break;
        case "statebacked.spawn":
          this.effects.push(params);
          break;
      }
    }
    orderSpawns(this.effects);
  }

  adopt(contextJson: string): any {
    const context = this.#readBack(contextJson);
    this.#next.context = context;
    this.#snapshot = this.#next;
    if (!this.hasWork) {
      this.#root._snapshot = this.#snapshot;
    }
    return context;
  }

  #readBack(contextJson: string): unknown {
    const context = parse(contextJson);
    return contextJson.includes(ACTOR_MARK) ? this.#reviveActors(context) : context;
  }

  /** Puts actors in the place of `{"xstate$$type":1,"id":…}`; inert ones for those that are gone. */
  #reviveActors(value: any): unknown { // any: user data
    if (typeof value !== "object" || value === null) {
      return value;
    }
    if (value.xstate$$type === 1) {
      return this.#next.children[value.id] ??
        createActor(INERT, { id: value.id, parent: this.#root, snapshot: LOST });
    }
    for (const key of Object.keys(value)) {
      value[key] = this.#reviveActors(value[key]);
    }
    return value;
  }

  rollback(contextJson: string): void {
    this.#reset();
    this.#next = this.#snapshot;
    this.#snapshot.context = this.#readBack(contextJson);
    // The computation may have registered new actors, and unregistered those it meant to stop.
    const { system } = this.#root;
    for (const actor of Object.values(system.getAll())) {
      system._unregister(actor);
    }
    registerAgain(system, this.#snapshot.children);
  }

  extra(): string {
    const { status, output, children, historyValue, _nodes } = this.#next;
    if (
      status === "active" && children === this.#extraChildren && !hasOwnKeys(children) &&
      historyValue === this.#extraHistory &&
      (_nodes === this.#extraNodes || !this.#adapter.hasRegions)
    ) {
      return this.#extra;
    }
    const extra: Record<string, unknown> = {};
    if (hasOwnKeys(historyValue)) {
      extra.history = Object.fromEntries(
        Object.entries(historyValue).map(([id, nodes]) => [id, nodes.map((node) => node.id)]),
      );
    }
    if (status === "done" && output !== undefined) {
      extra.output = output;
    }
    if (this.#parent !== undefined) {
      extra.parent = this.#parent;
    }
    if (status === "active") {
      addChildren(extra, children);
      if (this.#adapter.hasRegions && !isInDocumentOrder(_nodes)) {
        extra.nodes = _nodes.map(({ order }) => order);
      }
    }
    this.#extra = hasOwnKeys(extra) ? stringify(extra)! : "";
    this.#extraChildren = children;
    this.#extraHistory = historyValue;
    this.#extraNodes = _nodes;
    return this.#extra;
  }

  get mustReload(): boolean {
    const { children, _nodes } = this.#next;
    for (const id in children) {
      const child = children[id];
      if (child !== undefined && child.logic !== INERT && instanceOf(child) === undefined) {
        return true;
      }
    }
    return this.#adapter.hasRegions && contradictsItself(_nodes);
  }

  runs(service: Service): boolean {
    return (service.actor as Actor)._processingStatus === RUNNING;
  }

  run(): void {
    const custom = this.#custom;
    const deferred = this.#deferred;
    this.#custom = [];
    this.#deferred = [];
    this.hasWork = false;
    if (this.#isInitial) {
      this.#isInitial = false;
      this.#startServices();
    }
    for (const { type, exec, info, params } of custom) {
      this.#attempt(`action ${type}`, () => exec!(info, params));
    }
    this.#root._snapshot = this.#snapshot; // until here, actions saw the state before, as in XState
    for (const effect of deferred) {
      if (effect !== undefined) {
        this.#attempt("effect", effect);
      }
    }
  }

  /** When a machine is started, XState starts its services before it runs the entry actions. */
  #startServices(): void {
    for (const { id, actor } of this.#host.services.all()) {
      if ((actor as Actor).getSnapshot().status === "active") {
        this.#attempt(`starting ${id}`, () => (actor as Actor).start());
      }
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
  #receive(source: Actor | undefined, event: MachineEvent): void {
    if (this.#disposed) {
      return;
    }
    let service: Service | undefined;
    if (source !== undefined) {
      if (this.#stopping.has(source)) {
        return; // by a step whose effects have not run yet
      }
      service = this.#host.services.find(({ actor }) => actor === source);
    }
    const ends = service !== undefined &&
      (event.type === `xstate.done.actor.${service.id}` ||
        event.type === `xstate.error.actor.${service.id}`);
    this.#host.receive(event, event, service, ends);
  }

  abandon(service: Service): void {
    const actor = service.actor as Actor | undefined;
    if (actor !== undefined && actor.logic !== INERT) {
      this.#attempt("stopping a service", () => actor._stop());
    }
  }

  dispose(): void {
    this.#disposed = true;
    this.#root.system.scheduler.cancelAll(this.#root);
    for (const service of this.#host.services.all()) {
      this.abandon(service);
    }
  }
}

interface Builtin {
  type: string;
  params: any; // any: each builtin type has its own
  exec: () => void;
  /** Where in the queue its effect is, if it has queued one. */
  deferredAt: number;
}

const NO_CHILDREN: Record<string, Actor | undefined> = {};
const ACTOR_MARK = '"xstate$$type"';
const LOST: EndedSnapshot = { status: "stopped", output: undefined, error: undefined };

function persistentParent(ref: InstanceRef, root: Actor): Actor {
  const parent = { id: ref.id, sessionId: "parent", system: root.system, persistent: ref };
  return parent as unknown as Actor; // XState only reads these fields of a parent
}

/** Ours, not XState's: what a service finds as `self.effectKey`. */
interface Keyed {
  effectKey?: string;
}

/** Logic that, if it is a promise's, is started again when that rejects. */
function retriedLogic(logic: any, retries: Retries): object { // any: logic of the user's XState
  const start = (state: unknown, scope: Scope) => {
    const { self, system } = scope;
    const rejected = (error: unknown) => {
      if (!retries.after(error, attempt)) {
        system._relay(self, self, { type: REJECT, data: error });
      }
    };
    const watching = Object.create(system, {
      _relay: {
        value: (source: Actor | undefined, target: Actor, event: { type: string; data: unknown }) =>
          target === self && event.type === REJECT
            ? rejected(event.data)
            : system._relay(source, target, event),
      },
    });
    const attempt = () => {
      retries.begin();
      try {
        logic.start(state, { ...scope, system: watching });
      } catch (error) {
        rejected(error);
      }
    };
    attempt();
  };
  return Object.create(logic, { start: { value: start } });
}

const REJECT = "xstate.promise.reject";

function shapeOf(node: StateNode): StateShape {
  const { path, id, type, states } = node;
  return {
    path,
    id,
    type,
    isDeep: node.history === "deep",
    initial: type === "compound" ? node.initial?.target[0]?.key : undefined,
    children: new Map(Object.entries(states).map(([key, child]) => [key, shapeOf(child)])),
    after: delaysOf(node),
  };
}

function delaysOf({ after }: StateNode): After[] {
  const delays = new Map<string, After>(); // several transitions may wait for the same one
  for (const { delay, eventType } of after) {
    delays.set(eventType, { delay: String(delay), id: eventType, source: delay });
  }
  return [...delays.values()];
}

function serviceSource({ src }: Actor): string {
  return typeof src === "string" && !src.startsWith("xstate.invoke.") ? src : "(inline)";
}

function isInDocumentOrder(nodes: StateNode[]): boolean {
  for (let i = 1; i < nodes.length; i++) {
    if (nodes[i]!.order < nodes[i - 1]!.order) {
      return false;
    }
  }
  return true;
}

/**
 * When several regions take a transition for the same event, and one of them leaves the parallel
 * state, XState 5 may end with nodes that are active without their parent, or with too few of them.
 */
function contradictsItself(nodes: StateNode[]): boolean {
  const active = new Set(nodes);
  return nodes.some(({ type, parent, states }) => {
    const children = Object.values(states).filter((child) => active.has(child)).length;
    const wanted = type === "compound"
      ? 1
      : Object.values(states).filter((child) => child.type !== "history").length;
    return children !== wanted || (parent !== undefined && !active.has(parent));
  });
}

/**
 * The active nodes in the order in which they were entered: XState goes by it when it looks for
 * eventless transitions, but loads them level by level. `orders` is only stored if that is not
 * their order in the document.
 */
function inOrder(nodes: StateNode[], orders: number[] | undefined): StateNode[] {
  if (orders !== undefined && orders.length === nodes.length) {
    const stored = orders.flatMap((order) => nodes.find((node) => node.order === order) ?? []);
    if (stored.length === nodes.length) {
      return stored;
    }
  }
  return nodes.toSorted((a, b) => a.order - b.order);
}

/** Children that a later load must know of: instances, and services that came to an end. */
function addChildren(
  extra: Record<string, unknown>,
  children: Record<string, Actor | undefined>,
): void {
  const persistent: Record<string, InstanceRef> = {};
  const ended: Record<string, EndedSnapshot> = {};
  for (const [id, child] of Object.entries(children)) {
    const instance = instanceOf(child);
    if (instance !== undefined) {
      persistent[id] = instance;
    } else if (child !== undefined) {
      const { status, output, error } = child.getSnapshot();
      if (status !== "active") {
        ended[id] = { status, output, error };
      }
    }
  }
  if (hasOwnKeys(persistent)) {
    extra.persistent = persistent;
  }
  if (hasOwnKeys(ended)) {
    extra.ended = ended;
  }
}

function registerAgain(system: System, children: Record<string, Actor | undefined>): void {
  for (const child of Object.values(children)) {
    if (child === undefined || child._processingStatus !== RUNNING) {
      continue;
    }
    system._register(child.sessionId, child);
    if (child.systemId !== undefined) {
      system._set(child.systemId, child);
    }
    registerAgain(system, child.getSnapshot().children ?? {});
  }
}

function hasOwnKeys(object: object): boolean {
  for (const key in object) {
    if (Object.hasOwn(object, key)) {
      return true;
    }
  }
  return false;
}

/**
 * Copies before 5.19 run custom actions while they compute, so their effects can't be held back
 * until the commit. The version is written nowhere in a bundle: a small machine of the same copy
 * shows whether it hands over actions.
 */
function refuseOldCopy(machine: StateMachine): void {
  const StateMachine = (machine as object).constructor as new (config: object) => StateMachine;
  let handsOver = false;
  try {
    const probe = new StateMachine({ entry: () => {} });
    const actor = createActor(INERT, {});
    actor._actorScope.defer = () => {};
    actor._actorScope.actionExecutor = () => {
      handsOver = true;
    };
    probe.getInitialSnapshot(actor._actorScope, undefined);
  } catch {
    return; // not a machine of a kind that we know; its own errors will say more
  }
  if (!handsOver) {
    throw new Error(
      "The bundle contains an XState older than 5.19, which can't hold back actions until a " +
        'transition is stored. Update xstate, or import it from "npm:xstate@5".',
    );
  }
}
