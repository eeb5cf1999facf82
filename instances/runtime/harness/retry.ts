// Retry policies: a promise service that rejects is started again, as the same service, and only its
// last rejection reaches the machine.
//
// The policy stands in `meta.retry` of the invoke, or of the state for all that it invokes.

import { errorText } from "./errors.ts";
import { isPromise } from "./authorize.ts";
import { setTimer } from "./primordials.ts";

export interface RetryPolicy {
  /** Starts in all, the first included. */
  attempts: number;
  /** Milliseconds before the second start. */
  delay: number;
  /** What each further delay is multiplied by. */
  backoff: number;
  /** Milliseconds that no delay goes beyond. */
  maxDelay: number;
}

const BOUNDS: Record<keyof RetryPolicy, readonly [number, number, number | undefined]> = {
  // smallest, largest, default
  attempts: [1, 100, undefined],
  delay: [0, 3_600_000, 1_000],
  backoff: [1, 10, 2],
  maxDelay: [0, 3_600_000, 30_000],
};

/** Of a machine's invocations, by the state's id and their own. */
export type Policies = ReadonlyMap<string, ReadonlyMap<string, RetryPolicy>>;

interface Node {
  id: string;
  meta?: unknown;
  invoke?: { id: string; meta?: unknown }[];
}

/** Throws if a policy is wrong. */
export function policiesOf(nodes: readonly Node[]): Policies {
  const policies = new Map<string, Map<string, RetryPolicy>>();
  for (const { id, meta, invoke } of nodes) {
    for (const invoked of invoke ?? []) {
      const policy = retryPolicy(invoked.meta, meta, `${invoked.id} in ${id}`);
      if (policy !== undefined) {
        policies.set(id, (policies.get(id) ?? new Map()).set(invoked.id, policy));
      }
    }
  }
  return policies;
}

/** The policy of a service that is invoked by one of these active nodes. */
export function policyIn(
  policies: Policies,
  serviceId: string,
  nodes: readonly { id: string }[],
): RetryPolicy | undefined {
  if (policies.size > 0) {
    for (const { id } of nodes) {
      const policy = policies.get(id)?.get(serviceId);
      if (policy !== undefined) {
        return policy;
      }
    }
  }
  return undefined;
}

/** The policy of an invoke in a state; undefined if there is none. Throws for one that is wrong. */
function retryPolicy(
  invokeMeta: any, // any: user data
  stateMeta: any,
  where: string,
): RetryPolicy | undefined {
  const given = invokeMeta?.retry ?? stateMeta?.retry;
  if (given === undefined) {
    return undefined;
  }
  const wrong = (problem: string) =>
    new Error(`meta.retry of ${where} ${problem}. Write: { attempts: 3, delay: 1000, backoff: 2 }`);
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    throw wrong("must be an object");
  }
  for (const name of Object.keys(given)) {
    if (!Object.hasOwn(BOUNDS, name)) {
      throw wrong(`has an unknown ${name}`);
    }
  }
  const policy: Partial<RetryPolicy> = {};
  for (const [name, [least, most, usual]] of Object.entries(BOUNDS)) {
    const value = given[name] ?? usual;
    if (typeof value !== "number" || !(value >= least && value <= most)) {
      throw wrong(`needs ${name}: a number from ${least} to ${most}`);
    }
    policy[name as keyof RetryPolicy] = value;
  }
  if (!Number.isInteger(policy.attempts)) {
    throw wrong("needs attempts: a whole number");
  }
  return policy as RetryPolicy;
}

/** One service with its policy, from its first start to its end. */
export class Retries {
  #made = 0;
  readonly #policy: RetryPolicy;
  readonly #name: string;
  readonly #isAlive: () => boolean;
  readonly #warn: (text: string) => void;

  constructor(
    policy: RetryPolicy,
    name: string,
    isAlive: () => boolean,
    warn: (text: string) => void,
  ) {
    this.#policy = policy;
    this.#name = name;
    this.#isAlive = isAlive;
    this.#warn = warn;
  }

  /** An attempt begins. */
  begin(): void {
    this.#made++;
  }

  /** Calls `again` after the delay, unless the service is stopped by then; false if it was the last. */
  after(error: unknown, again: () => void): boolean {
    const { attempts, delay, backoff, maxDelay } = this.#policy;
    if (this.#made >= attempts || !this.#isAlive()) {
      return false;
    }
    const wait = Math.min(delay * backoff ** (this.#made - 1), maxDelay);
    this.#warn(
      `service ${this.#name} failed (${this.#made} of ${attempts}), again in ${wait} ms: ` +
        errorText(error),
    );
    setTimer(() => {
      if (this.#isAlive()) {
        again();
      }
    }, wait);
    return true;
  }
}

/** The outcome of `start()`, which is called again while the policy allows. */
export function retriedPromise(first: unknown, start: () => unknown, retries: Retries): unknown {
  if (!isPromise(first)) {
    return first;
  }
  retries.begin();
  return new Promise((resolve, reject) => {
    const watch = (promise: PromiseLike<unknown>) => {
      promise.then(resolve, (error) => {
        if (!retries.after(error, again)) {
          reject(error);
        }
      });
    };
    const again = () => {
      retries.begin();
      watch(new Promise((done) => done(start())));
    };
    watch(first);
  });
}
