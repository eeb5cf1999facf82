// What we use of node:async_hooks, so that a type check needs no npm package.
export class AsyncLocalStorage<T> {
  getStore(): T | undefined;
  run<A extends unknown[]>(store: T, run: (...args: A) => void, ...args: A): void;
}
