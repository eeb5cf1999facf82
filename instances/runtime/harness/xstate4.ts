import type { Adapter } from "./adapter.ts";
export function isMachine4(_value: unknown): boolean { return false; }
export class XState4 { constructor(_m: unknown) { throw new Error("XState 4 is not supported yet"); } }
export interface XState4 extends Adapter {}
