// Reads the definition of an executed XState 4 or 5 machine and writes it as the JSON of model.py.
//
// One process reads one bundle: `READY`, then {"cjs", "externals"} in, then one line of JSON out.
// The machine is only looked at: no actor is started, and no guard, action, delay or service of the
// author's is called. The bundle itself runs, so what comes out is to be taken for hostile; the
// process has no permission, and its time, memory and output are bounded from outside.
//
// The bundle is evaluated, not imported, by a `data:` module, for the reasons that the runner's
// load.ts gives: speed, and the import map's scope in which every built-in module is blocked.

const STATES_MAX = 5_000;
const TRANSITIONS_MAX = 20_000;
const DEPTH_MAX = 40;
const KEY_CHARS_MAX = 200;
const TEXT_CHARS_MAX = 1_000; // descriptions; names are cut at KEY_CHARS_MAX
const LIST_MAX = 100; // actions, invocations or tags in one place
const META_CHARS_MAX = 2_000;
const BODY_CHARS_MAX = 60; // of a function that is shown instead of a name

// XState's objects, which may come from any copy of either major version, or from somebody who only
// pretends: every property is tested where it is used.
// deno-lint-ignore no-explicit-any
type Loose = any;

interface StateRecord {
  number: number;
  key: string;
  id: string;
  parent: number | null;
  type: "atomic" | "compound" | "parallel" | "final" | "history";
  history: "shallow" | "deep" | null;
  initial: number | null;
  initialActions: string[];
  entry: string[];
  exit: string[];
  invoke: { id: string; src: string }[];
  tags: string[];
  description: string | null;
  meta: unknown;
}

interface TransitionRecord {
  number: number;
  source: number;
  targets: number[];
  kind: "event" | "wildcard" | "always" | "after" | "done" | "error" | "snapshot" | "default";
  label: string;
  eventType: string;
  guard: string | null;
  isElse: boolean;
  isInternal: boolean;
  isForbidden: boolean;
  actions: string[];
  description: string | null;
}

interface Definition {
  name: string;
  xstate: 4 | 5;
  description: string | null;
  states: StateRecord[];
  transitions: TransitionRecord[];
}

class NotDescribable extends Error {}

// ---------------------------------------------------------------------------------------- texts

/** The first `max` characters, without halves of surrogate pairs. */
function text(value: unknown, max = KEY_CHARS_MAX): string {
  const all = typeof value === "string" ? value : String(value);
  const wellFormed = all.slice(0, 2 * max).toWellFormed();
  return wellFormed.length <= max ? wellFormed : Array.from(wellFormed).slice(0, max).join("");
}

function description(value: unknown): string | null {
  return typeof value === "string" && value.trim() !== "" ? text(value, TEXT_CHARS_MAX) : null;
}

function list(value: unknown): Loose[] {
  if (value === undefined || value === null) {
    return [];
  }
  return (Array.isArray(value) ? value : [value]).slice(0, LIST_MAX);
}

/** `meta` is the author's: it may be anything, also something that throws. */
function meta(value: unknown): unknown {
  try {
    const json = JSON.stringify(value);
    return json !== undefined && json.length <= META_CHARS_MAX ? JSON.parse(json) : null;
  } catch {
    return null;
  }
}

// ---------------------------------------------------------------------------------------- names

/** Names that come from where a function is written, not from its author. */
const PLACES = new Set([
  "", "actions", "anonymous", "cond", "delay", "entry", "exec", "exit", "guard", "onDone", "onEntry",
  "onError", "onExit", "resolve", "src", "xstate:inline",
]);

/** What to call a function: its name, or the expression of a short arrow function, or `fallback`. */
function functionName(fn: Loose, fallback: string): string {
  if (typeof fn.name === "string" && !PLACES.has(fn.name)) {
    return text(fn.name);
  }
  return arrowBody(Function.prototype.toString.call(fn)) ?? fallback;
}

/** What the parameters of the author's functions are called where they are not taken apart. */
let positionalNames: string[] = [];

/** `({context:e})=>e.retries>5`, as a minifier leaves it, becomes `context.retries>5`. */
function arrowBody(source: string): string | undefined {
  const arrow = /^(?:async\s*)?(?:\(([^()]*)\)|([\w$]+))\s*=>\s*(?![\s{])([\s\S]+)$/.exec(source);
  const parameters = arrow?.[1] ?? arrow?.[2];
  let body = arrow?.[3]?.replace(/\s+/g, " ").trim();
  if (parameters === undefined || body === undefined || body.length > 2 * BODY_CHARS_MAX) {
    return undefined;
  }
  for (const [alias, name] of renamed(parameters)) {
    const use = new RegExp(`(?<![\\w$.])${alias.replaceAll("$", "\\$")}(?![\\w$])`, "g");
    body = body.replace(use, () => name);
  }
  body = body.replace(/!0(?![\w.])/g, "true").replace(/!1(?![\w.])/g, "false");
  return body.length <= BODY_CHARS_MAX ? text(body) : undefined;
}

/** Parameters that have another name than the one that they are known by. */
function renamed(parameters: string): [string, string][] {
  const inPattern = [...parameters.matchAll(/([\w$]+)\s*:\s*([\w$]+)/g)];
  if (inPattern.length > 0) {
    return inPattern.map(([, name, alias]) => [alias!, name!]);
  }
  const plain = parameters.split(",").map((one) => one.trim());
  return positionalNames.flatMap((name, position): [string, string][] => {
    const alias = plain[position] ?? "";
    return /^[\w$]+$/.test(alias) ? [[alias, name]] : [];
  });
}

function eventName(event: Loose): string {
  return text(typeof event === "string" ? event : typeof event?.type === "string" ? event.type : "");
}

/** XState's own actions, and what an author would call them. */
const BUILT_IN: Record<string, (action: Loose) => string> = {
  assign: (action) => {
    const assignment = action.assignment;
    const keys = assignment !== null && typeof assignment === "object" ? Object.keys(assignment) : [];
    return `set ${keys.length > 0 ? keys.slice(0, LIST_MAX).join(", ") : "context"}`;
  },
  raise: (action) => `raise ${eventName(action.event ?? action.eventOrExpr)}`,
  emit: (action) => `emit ${eventName(action.event)}`,
  send: (action) => `send ${eventName(action.event)}${recipient(action.to)}`,
  sendTo: (action) => `send ${eventName(action.event ?? action.eventOrExpr)}${recipient(action.to)}`,
  sendParent: (action) => `send ${eventName(action.event)} to parent`,
  forwardTo: (action) => `forward${recipient(action.target)}`,
  spawnChild: (action) => `spawn ${sourceName(action.src) || actorId(action.id)}`,
  stopChild: (action) => `stop ${actorId(action.actorRef)}`,
  stop: (action) => `stop ${actorId(action.activity ?? action.actorRef)}`,
  start: (action) => `start ${actorId(action.activity)}`,
  cancel: (action) => `cancel ${actorId(action.sendId)}`,
  log: (action) => (typeof action.label === "string" ? `log ${action.label}` : "log"),
  enqueueActions: (action) => functionOr(action.collect, "choose actions"),
  pure: () => "choose actions",
  choose: () => "choose actions",
};

/** XState 5 finds the parent by a function of its own, XState 4 by a name of its own. */
function recipient(to: unknown): string {
  if (typeof to === "function") {
    return /\bself\._parent\b/.test(Function.prototype.toString.call(to)) ? " to parent" : "";
  }
  return typeof to !== "string" ? "" : to === "#_parent" ? " to parent" : ` to ${to}`;
}

function actorId(id: Loose): string {
  return text(typeof id === "string" ? id : typeof id?.id === "string" ? id.id : "");
}

function functionOr(fn: unknown, fallback: string): string {
  return typeof fn === "function" ? functionName(fn, fallback) : fallback;
}

function actionName(action: Loose): string {
  if (typeof action === "string") {
    return text(action);
  }
  const type: unknown = action?.type;
  const builtIn = /^xstate\.(\w+)$/.exec(typeof type === "string" ? type : "")?.[1];
  if (builtIn !== undefined && Object.hasOwn(BUILT_IN, builtIn)) {
    return text(BUILT_IN[builtIn]!(action).trim());
  }
  if (typeof action === "function") {
    return functionName(action, "inline");
  }
  if (typeof action?.exec === "function" && (typeof type !== "string" || isSourceCode(type))) {
    return functionName(action.exec, "inline");
  }
  return typeof type === "string" && type !== "" ? text(type) : "inline";
}

/** XState 4 calls a nameless function by what its source is. */
function isSourceCode(type: string): boolean {
  return type === "xstate:inline" || PLACES.has(type) || /=>|[{}]/.test(type);
}

/** Without the raise, send and cancel that XState itself adds to a state with `after`. */
function actionNames(actions: unknown): string[] {
  return list(actions).filter((action) => !isFromAfter(action)).map(actionName);
}

function isFromAfter(action: Loose): boolean {
  const marks = [action?.id, action?.sendId, action?.event?.type, action?.event];
  return marks.some((mark) => typeof mark === "string" && /^xstate\.after[.(]/.test(mark));
}

function guardName(guard: Loose): string | null {
  if (guard === undefined || guard === null) {
    return null;
  }
  if (typeof guard === "string") {
    return text(guard);
  }
  if (Array.isArray(guard.guards)) { // and(), or() and not() of XState 5
    return text(combined(String(guard.name ?? guard.check?.name ?? "").toLowerCase(), guard.guards));
  }
  if (guard.stateValue !== undefined) {
    return `in ${stateValueName(guard.stateValue)}`;
  }
  if (typeof guard === "function") {
    return functionName(guard, "(guard)");
  }
  // XState 4 wraps: a named guard has its name, a function is in `predicate`.
  if (typeof guard.predicate === "function" && PLACES.has(String(guard.name ?? ""))) {
    return functionName(guard.predicate, "(guard)");
  }
  const name = guard.name ?? guard.type;
  return typeof name === "string" && name !== "" ? text(name + parameters(guard.params)) : "(guard)";
}

/** What makes two uses of one guard differ: `(role: "admin")`. */
function parameters(params: unknown): string {
  if (params === null || typeof params !== "object") {
    return "";
  }
  const shown = Object.entries(params).map(([name, value]) => `${name}: ${JSON.stringify(value)}`).join(", ");
  return shown !== "" && shown.length <= BODY_CHARS_MAX ? `(${shown})` : "";
}

function combined(operator: string, guards: Loose[]): string {
  const parts = guards.slice(0, LIST_MAX).map((guard) => {
    const name = guardName(guard) ?? "(guard)";
    return / (?:and|or) /.test(name) ? `(${name})` : name;
  });
  return operator.includes("not")
    ? `not ${parts[0] ?? ""}`
    : parts.join(operator.includes("or") ? " or " : " and ");
}

function stateValueName(value: unknown): string {
  return text(typeof value === "string" ? value : JSON.stringify(value));
}

/** What is invoked or spawned: a name, the id of a machine, or the function inside a promise's logic. */
function sourceName(src: Loose): string {
  if (typeof src === "function" || typeof src?.config === "function") {
    return functionOr(src.config ?? src, "");
  }
  const name = typeof src === "string" ? src : src?.type ?? src?.id;
  return typeof name === "string" ? text(name) : "";
}

/**
 * XState makes up the name of an actor's logic that has none: then the configuration says more.
 * Activities are what XState 4 had before it had services.
 */
function invocations(node: Loose): StateRecord["invoke"] {
  const written = list(node.config?.invoke);
  return list(node.invoke).map((one, position) => {
    const isMadeUp = typeof one?.src === "string" && /^xstate\.invoke\.|:invocation\[/.test(one.src);
    const src = isMadeUp ? written[position]?.src ?? written[position] : one?.src;
    return { id: text(one?.id ?? ""), src: sourceName(src) };
  }).concat(list(node.config?.activities).map((one) => ({ id: "", src: actionName(one) })));
}

// ---------------------------------------------------------------------------------------- states

class Reader {
  readonly #numbers = new Map<Loose, number>();
  readonly #nodes: Loose[] = [];
  readonly #states: StateRecord[] = [];
  readonly #transitions: TransitionRecord[] = [];
  readonly #major: 4 | 5;
  readonly #root: Loose;

  constructor(machine: Loose) {
    this.#major = machine?.root?.transitions instanceof Map ? 5 : 4;
    this.#root = this.#major === 5 ? machine.root : machine;
    if (this.#root?.states === undefined || typeof this.#root.key !== "string") {
      throw new NotDescribable("The default export is not an XState 4 or 5 machine.");
    }
    positionalNames = this.#major === 4 ? ["context", "event"] : [];
  }

  read(): Definition {
    this.#visit(this.#root, null, 0);
    for (const [number, node] of this.#nodes.entries()) {
      this.#readEdges(node, this.#states[number]!);
    }
    return {
      name: text(this.#root.id ?? this.#root.key),
      xstate: this.#major,
      description: description(this.#root.description),
      states: this.#states,
      transitions: this.#transitions,
    };
  }

  #visit(node: Loose, parent: number | null, depth: number): void {
    const number = this.#states.length;
    if (number >= STATES_MAX || depth > DEPTH_MAX) {
      throw new NotDescribable(`The machine has more than ${STATES_MAX} states, or ${DEPTH_MAX} levels.`);
    }
    this.#numbers.set(node, number);
    this.#nodes.push(node);
    const children: Loose[] = Object.values(node.states ?? {});
    const type = typeOf(node, children);
    this.#states.push({
      number,
      key: text(node.key),
      id: text(node.id),
      parent,
      type,
      history: type !== "history" ? null : node.history === "deep" ? "deep" : "shallow",
      initial: null,
      initialActions: [],
      entry: actionNames(node.entry ?? node.onEntry),
      exit: actionNames(node.exit ?? node.onExit),
      invoke: invocations(node),
      tags: list(node.tags).map((tag) => text(tag)),
      description: description(node.description ?? node.config?.description),
      meta: meta(node.meta),
    });
    if (type === "compound" || type === "parallel") {
      for (const child of children) {
        this.#visit(child, number, depth + 1);
      }
    }
  }

  #readEdges(node: Loose, state: StateRecord): void {
    if (state.type === "compound") {
      state.initial = this.#initial(node);
      state.initialActions = actionNames(node.initial?.actions ?? node.config?.initial?.actions);
    }
    if (state.type === "history") {
      const targets = this.#historyTargets(node);
      if (targets.length > 0) {
        this.#add(state, { kind: "default", label: "" }, "", targets, {});
      }
      return;
    }
    const guarded = new Set<string>();
    for (const transition of this.#candidates(node)) {
      const type = text(transition?.eventType ?? "");
      const event = this.#event(type, transition, node, state);
      const isGuarded = this.#add(state, event, type, this.#targets(transition?.target), transition, guarded.has(type));
      if (isGuarded) {
        guarded.add(type);
      }
    }
  }

  /** In the order in which XState tries them. */
  #candidates(node: Loose): Loose[] {
    if (this.#major === 5) {
      return [...[...node.transitions.values()].flat(), ...(node.always ?? [])];
    }
    return [...node.transitions]; // among them those without an event
  }

  #targets(targets: unknown): number[] {
    const numbers = list(targets).map((target) => this.#numbers.get(target));
    return [...new Set(numbers.filter((number) => number !== undefined))];
  }

  /** XState 5 has resolved it, in XState 4 it is a key or a path. */
  #initial(node: Loose): number | null {
    const [resolved] = this.#targets(this.#major === 5 ? node.initial?.target : undefined);
    if (resolved !== undefined) {
      return resolved;
    }
    const name = list(node.config?.initial?.target ?? node.config?.initial)[0];
    return typeof name === "string" ? this.#below(node, name) ?? null : null;
  }

  /** The state with a key, or with a path of keys, below `node`. */
  #below(node: Loose, name: string): number | undefined {
    const path = Object.hasOwn(node.states, name) ? [name] : name.replace(/^\./, "").split(".");
    let at = node;
    for (const key of path) {
      at = Object.hasOwn(at?.states ?? {}, key) ? at.states[key] : undefined;
    }
    return this.#numbers.get(at);
  }

  /** Only a written default: without one, XState enters the parent as if for the first time. */
  #historyTargets(node: Loose): number[] {
    const numbers = list(node.config?.target ?? node.target).map((target) =>
      typeof target === "string" ? this.#byIdOrPath(node, target) : this.#numbers.get(target)
    );
    return [...new Set(numbers.filter((number) => number !== undefined))];
  }

  #byIdOrPath(node: Loose, target: string): number | undefined {
    if (!target.startsWith("#")) {
      return this.#below(node.parent, target);
    }
    const found = this.#nodes.find((one) => one.id === target.slice(1));
    return found === undefined ? undefined : this.#numbers.get(found);
  }

  /** What the diagram says of an event type. Delays are taken from where names are kept. */
  #event(type: string, transition: Loose, node: Loose, state: StateRecord): Pick<TransitionRecord, "kind" | "label"> {
    if (type === "") {
      return { kind: "always", label: "" };
    }
    if (transition.delay !== undefined || /^xstate\.after[.(]/.test(type)) {
      return { kind: "after", label: delayName(transition.delay, type) };
    }
    const done = /^(?:xstate\.)?done\.state\.(.*)$/s.exec(type)?.[1];
    if (done !== undefined) {
      return { kind: "done", label: done === text(node.id) ? "" : done };
    }
    const actor = /^(done\.invoke|xstate\.done\.actor|error\.platform|xstate\.error\.actor|xstate\.snapshot)\.(.*)$/s.exec(type);
    if (actor !== null) {
      const kind = actor[1]!.includes("snapshot") ? "snapshot" : actor[1]!.includes("done") ? "done" : "error";
      return { kind, label: actorLabel(actor[2]!, state) };
    }
    if (type === "xstate.error" || type === "error.execution") {
      return { kind: "error", label: "" };
    }
    if (type === "xstate.route") {
      return { kind: "event", label: `route to ${text(list(transition.target)[0]?.id ?? "")}` };
    }
    return { kind: type === "*" || type.endsWith(".*") ? "wildcard" : "event", label: type };
  }

  /** Returns whether it is guarded. */
  #add(
    state: StateRecord,
    event: Pick<TransitionRecord, "kind" | "label">,
    eventType: string,
    targets: number[],
    transition: Loose,
    isAfterGuarded = false,
  ): boolean {
    const number = this.#transitions.length;
    if (number >= TRANSITIONS_MAX) {
      throw new NotDescribable(`The machine has more than ${TRANSITIONS_MAX} transitions.`);
    }
    const inState = transition.in === undefined ? null : `in ${stateValueName(transition.in)}`;
    const guard = eventType === "xstate.route" ? routeGuard(transition.guard) : transition.guard;
    const guards = [guardName(guard ?? transition.cond), inState].filter((one) => one !== null);
    const actions = actionNames(transition.actions);
    this.#transitions.push({
      number,
      source: state.number,
      targets,
      ...event,
      eventType,
      guard: guards.length > 0 ? text(guards.join(" and ")) : null,
      isElse: guards.length === 0 && isAfterGuarded,
      isInternal: this.#major === 5 ? transition.reenter !== true : transition.internal === true,
      isForbidden: event.kind === "event" && targets.length === 0 && actions.length === 0,
      actions,
      description: description(transition.description),
    });
    return guards.length > 0;
  }
}

function typeOf(node: Loose, children: Loose[]): StateRecord["type"] {
  const type: unknown = node.type;
  if (type === "final" || type === "history") {
    return type;
  }
  if ((type === "compound" || type === "parallel") && children.some((child) => child?.type !== "history")) {
    return type;
  }
  return "atomic";
}

/** The author's guard: XState puts one before it that looks at where the route leads. */
function routeGuard(guard: Loose): Loose {
  return Array.isArray(guard?.guards) ? guard.guards[1] : undefined;
}

function delayName(delay: unknown, type: string): string {
  if (typeof delay === "function") {
    return functionName(delay, "a while");
  }
  return text(delay ?? /^xstate\.after[.(]([^.)]*)/.exec(type)?.[1] ?? "");
}

/** A state's only actor needs no name; others have the name of what they run. */
function actorLabel(id: string, state: StateRecord): string {
  if (state.invoke.length === 1 && state.invoke[0]!.id === id) {
    return "";
  }
  return state.invoke.find((one) => one.id === id)?.src || id;
}

// ---------------------------------------------------------------------------------------- process

type Evaluate = (source: string) => (exports: object, require: unknown, module: object) => void;

async function load(cjs: string, externals: string[]): Promise<unknown> {
  const modules: Record<string, unknown> = {};
  for (const name of externals) {
    modules[name] = await import(name); // the import map knows the platform's names only
  }
  const source = "data:text/javascript,export default (source) => (0, eval)(source);";
  const { default: evaluate }: { default: Evaluate } = await import(source);
  const module: { exports: Record<string, unknown> } = { exports: {} };
  const require = (name: string): unknown => {
    if (!Object.hasOwn(modules, name)) {
      throw new NotDescribable(`The bundle imports "${name}", which is not available.`);
    }
    return modules[name];
  };
  evaluate(`(function (exports, require, module) {${cjs}\n})`)(module.exports, require, module);
  return module.exports.default;
}

async function answer(): Promise<object> {
  const decoder = new TextDecoder();
  let request = "";
  for await (const bytes of Deno.stdin.readable) {
    request += decoder.decode(bytes, { stream: true });
  }
  const { cjs, externals } = JSON.parse(request);
  try {
    return { definition: new Reader(await load(cjs, externals)).read() };
  } catch (error) {
    return { problem: text((error as Error | undefined)?.message ?? error, TEXT_CHARS_MAX) };
  }
}

const { stdout, exit } = Deno;
const encoder = new TextEncoder();
const stringify = JSON.stringify;

function write(line: string): void {
  const bytes = encoder.encode(line);
  for (let written = 0; written < bytes.length;) {
    written += stdout.writeSync(bytes.subarray(written));
  }
}

for (const name of Object.keys(console)) {
  (console as unknown as Record<string, unknown>)[name] = () => {}; // stdout is for the answer
}
write("READY\n");
write(stringify(await answer()) + "\n");
exit(0); // the bundle may have started timers
