// What @statebacked/machine, bundled with customers' code, calls in its platform.

import type { Activation } from "./activation.ts";
import { type PersistentSource, spawnSource } from "./effects.ts";
import { randomUUID } from "./primordials.ts";
import type { InstanceRef } from "./protocol.ts";
import { turns } from "./turn.ts";

// The published 0.6.0 looks for the second name, its repository for the first.
const GLOBAL_NAMES = ["__statebacked_rt", "__statebaked_rt"];

export function installHooks(global: object): void {
  const hooks = Object.freeze({ spawn });
  for (const name of GLOBAL_NAMES) {
    Object.defineProperty(global, name, { value: hooks, configurable: true });
  }
}

/**
 * `spawnPersistentInstance(descriptor, {name, context})`, which gives a reference to an instance
 * that is created with the commit, or `spawnEphemeralInstance(entity, nameOrOptions)`.
 */
function spawn(entity: any, options: any): unknown { // any: user code's arguments
  const activation: Activation | undefined = turns.getStore()?.activation;
  const instance = activation?.computing;
  if (instance === undefined) {
    throw new Error("instances can only be spawned while a transition is computed, as in assign()");
  }
  if (isDescriptor(entity)) {
    const source = spawnSource(entity);
    const { machineName, machineInstanceName } = source;
    const id = String(options?.name ?? randomUUID());
    instance.spawnPersistent(id, options?.name !== undefined, source, options?.context);
    return {
      type: "statebacked.instance",
      id,
      machineName,
      machineInstanceName,
    } satisfies InstanceRef;
  }
  const name = typeof options === "string" ? options : options?.name;
  return instance.spawnEphemeral(
    entity,
    name === undefined ? randomUUID() : String(name),
    typeof options === "object" && options !== null ? options : undefined,
  );
}

function isDescriptor(entity: any): entity is Omit<PersistentSource, "type"> { // any: tested here
  return typeof entity === "object" && entity !== null && typeof entity.machineName === "string" &&
    entity.__xstatenode === undefined;
}
