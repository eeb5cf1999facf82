/** What both versions of the trouble machine share. */

export type Context = {
  filling: string;
  public: { count: number; problem?: string; polluted?: string };
};

export type TroubleEvent =
  | {
      type:
        | "count"
        | "boomInGuard"
        | "boomInAssign"
        | "boomInAction"
        | "loopInGuard"
        | "loopInAction"
        | "allocate"
        | "fillBuffers"
        | "rejectUnheard"
        | "pollute"
        | "probe"
        | "hang"
        | "fail"
        | "leave";
    }
  | { type: "grow"; character: string; times: number }
  | { type: "call" | "visit"; url: string };

const MB = 1_000_000;

export function countUp(context: Context) {
  return { public: { ...context.public, count: context.public.count + 1 } };
}

export function boom(where: string): never {
  throw new Error(`${where} threw on purpose`);
}

export function loopForever(): boolean {
  for (;;) {
    // Nothing ends this from inside.
  }
}

/** 300 MB of ordinary objects. */
export function allocate(): Partial<Context> {
  const kept: number[][] = [];
  for (let bytes = 0; bytes < 300 * MB; bytes += 8 * 1000) {
    kept.push(new Array(1000).fill(bytes + 0.5));
  }
  return { filling: String(kept.length) };
}

/** 300 MB outside the JavaScript heap. */
export function fillBuffers(): Partial<Context> {
  const kept: Uint8Array[] = [];
  for (let bytes = 0; bytes < 300 * MB; bytes += 10 * MB) {
    kept.push(new Uint8Array(10 * MB).fill(1));
  }
  return { filling: String(kept.length) };
}

/** Changes what every object of this process inherits from. */
export function pollute(context: Context): Partial<Context> {
  (Object.prototype as { polluted?: string }).polluted = "yes";
  return countUp(context);
}

type Request = { authContext: { sub?: string } };

function authorizeOne({ authContext }: Request): boolean {
  if (authContext.sub === "thrower") {
    throw new Error("an authorizer threw on purpose");
  }
  return authContext.sub !== "stranger";
}

export const authorize = { allowRead: authorizeOne, allowWrite: authorizeOne };
