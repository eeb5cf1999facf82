// Declarative effects, made of what user code wrote: checked here, so that a bad one fails its own
// transition instead of reaching the engine.

import { parse, randomUUID, stringify } from "./primordials.ts";
import type { Effect, InstanceRef, MachineEvent, Sender, SpawnSource } from "./protocol.ts";

/** The `src` of an invoke that names a persistent instance (`persistentInvocableSource()`). */
export interface PersistentSource {
  type: "statebacked.invoke";
  machineName: string;
  machineInstanceName?: string;
  machineVersionId?: string;
}

export function isInstanceRef(value: any): value is InstanceRef { // any: tested here
  return typeof value === "object" && value !== null && value.type === "statebacked.instance";
}

export function isPersistentSource(value: any): value is PersistentSource { // any: tested here
  return typeof value === "object" && value !== null && value.type === "statebacked.invoke";
}

/** A reference as it goes out; it may have been built by hand, and may carry more than it should. */
export function instanceRef(ref: InstanceRef): InstanceRef {
  const { machineName, machineInstanceName } = ref;
  if (typeof machineName !== "string" || typeof machineInstanceName !== "string") {
    throw new TypeError("a reference to an instance needs a machineName and a machineInstanceName");
  }
  const id = ref.id === undefined ? machineInstanceName : String(ref.id);
  return { type: "statebacked.instance", id, machineName, machineInstanceName };
}

/**
 * Which instance a persistent invoke or spawn creates.
 *
 * `persistentInvocableSource()` draws its random name when the module is evaluated, so all instances
 * of a version would share one child: a name that was drawn then is replaced by a fresh one.
 */
export function spawnSource(source: Omit<PersistentSource, "type">): SpawnSource {
  const { machineName, machineInstanceName: name, machineVersionId } = source;
  if (typeof machineName !== "string") {
    throw new TypeError("a persistent instance needs a machineName");
  }
  const drawn = typeof name !== "string" || namesDrawnAtLoad.has(name);
  const resolved: SpawnSource = { machineName, machineInstanceName: drawn ? randomUUID() : name };
  if (typeof machineVersionId === "string") {
    resolved.machineVersionId = machineVersionId;
  }
  return resolved;
}

/** UUIDs that the bundle drew while it was evaluated; load.ts records them. */
export const namesDrawnAtLoad = new Set<string>();

export function timer(
  id: unknown,
  delay: number,
  event: MachineEvent,
  to: InstanceRef | undefined,
): Effect {
  const effect: Effect = {
    t: "timer",
    id: id === undefined ? randomUUID() : String(id),
    // setTimeout takes anything; a row in a table does not.
    delay: Number.isFinite(delay) && delay > 0 ? Math.ceil(delay) : 0,
    event: eventObject(event),
  };
  if (to !== undefined) {
    effect.to = to;
  }
  return effect;
}

export function send(to: InstanceRef, event: MachineEvent): Effect {
  return { t: "send", to, event: eventObject(event) };
}

/** A message is stored as JSON, where `undefined` is nothing. */
export function done(output: unknown): Effect {
  return output === undefined ? { t: "done" } : { t: "done", output };
}

/** Ids that the platform has given to what was spawned without a name. */
export function isDrawnId(id: string): boolean {
  return /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$/.test(id);
}

/** Whether an instance that says it is the child `id` is the one that this one listens to. */
export function isListenedTo(known: InstanceRef | undefined, id: string, sender: Sender): boolean {
  if (known === undefined) {
    return isDrawnId(id); // children without a name are not kept account of
  }
  return known.machineName === sender.machineName &&
    known.machineInstanceName === sender.machineInstanceName;
}

function eventObject(event: MachineEvent): MachineEvent {
  if (typeof event !== "object" || event === null || typeof event.type !== "string") {
    throw new TypeError("an event must be an object with a type");
  }
  return event;
}

/**
 * Moves each spawn before the messages to the spawned instance: XState runs entry actions before
 * it starts what the state invokes. A stop of an earlier child with the same id stays before it.
 */
export function orderSpawns(effects: Effect[]): void {
  for (let i = 1; i < effects.length; i++) {
    const spawn = effects[i]!;
    if (spawn.t !== "spawn") {
      continue;
    }
    let place = i;
    for (let j = i - 1; j >= 0; j--) {
      const effect = effects[j]!;
      if (effect.t === "stop" && effect.id === spawn.id) {
        break;
      }
      if ((effect.t === "send" || effect.t === "timer") && effect.to?.id === spawn.id) {
        place = j;
      }
    }
    effects.splice(i, 1);
    effects.splice(place, 0, spawn);
  }
}

/**
 * Makes a copy of the static context for each new instance: XState hands out the object itself, so
 * an instance that changed it in place would change what the next one starts with. Only what JSON
 * can express is copied deeply.
 */
export function copier(context: object): () => Record<string, unknown> {
  if (isPlainJson(context)) {
    const json = stringify(context)!;
    return () => parse(json);
  }
  return () => ({ ...context });
}

function isPlainJson(value: unknown): boolean {
  switch (typeof value) {
    case "string":
    case "boolean":
      return true;
    case "number":
      return Number.isFinite(value) && !Object.is(value, -0);
    case "object": {
      if (value === null) {
        return true;
      }
      const prototype = Object.getPrototypeOf(value);
      return (prototype === Object.prototype || prototype === Array.prototype) &&
        !("toJSON" in value) && Object.values(value).every(isPlainJson);
    }
    default:
      return false;
  }
}
