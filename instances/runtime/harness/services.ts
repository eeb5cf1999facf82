// The ephemeral services of one activation: what the answers list as `children`.

import { randomUUID, stringify } from "./primordials.ts";

/** One run of a service. */
export interface Service {
  readonly id: string;
  /** What people call it; only shown. */
  readonly src: string;
  /** The same for each attempt of this start, and for no other: services tell it to others. */
  readonly key: string;
  /** It was lost with the process that ran it: only a stand-in is left. */
  readonly lost: boolean;
  /** The actor of the user's XState, once there is one. */
  actor: unknown;
  /** Its done or error event waits in the inbox: it lives no more, but is still owed to the machine. */
  ending: boolean;
}

/**
 * In the order in which they were started. Two may have the same id: XState lets a machine start a
 * service under an id that is taken, and then forgets about the older one, which goes on.
 */
export class Services {
  #list: Service[] = [];
  #json: string | undefined = "[]";

  get size(): number {
    return this.#list.length;
  }

  /** The youngest one with this id. */
  get(id: string): Service | undefined {
    return this.#list.findLast((service) => service.id === id);
  }

  find(is: (service: Service) => boolean): Service | undefined {
    return this.#list.find(is);
  }

  has(service: Service): boolean {
    return this.#list.includes(service);
  }

  /** A copy, so that the list may change meanwhile. */
  all(): Service[] {
    return [...this.#list];
  }

  start(id: string, src: string, actor: unknown): Service {
    const service = { id, src, key: randomUUID(), lost: false, actor, ending: false };
    this.#add(service);
    return service;
  }

  /** One that `L` says was running. */
  mountLost(id: string, src: string, key: string): void {
    this.#add({ id, src, key, lost: true, actor: undefined, ending: false });
  }

  #add(service: Service): void {
    this.#list.push(service);
    this.#json = undefined;
  }

  remove(service: Service): void {
    this.#list = this.#list.filter((other) => other !== service);
    this.#json = undefined;
  }

  clear(): void {
    this.restore([]);
  }

  /** Puts back what all() gave: the step that changed it threw. */
  restore(services: readonly Service[]): void {
    this.#list = [...services];
    this.#json = undefined;
  }

  /** `[{"id":…,"src":…,"key":…},…]` */
  json(): string {
    this.#json ??= stringify(this.#list.map(({ id, src, key }) => ({ id, src, key })))!;
    return this.#json;
  }
}
