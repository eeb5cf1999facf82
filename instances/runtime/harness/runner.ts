// One machine version's process, without the process: lines in, lines out.

import { Activation, type Port } from "./activation.ts";
import { isPromise, readRequest, withinTimeLimit } from "./authorize.ts";
import { describeError, errorJson, errorText } from "./errors.ts";
import { FetchBroker } from "./fetch.ts";
import { installHooks } from "./hooks.ts";
import { type LoadedBundle, Loader } from "./load.ts";
import { catchStrayErrors, TaintCheck } from "./lockdown.ts";
import { logArguments, makeConsole } from "./logs.ts";
import type { Migration } from "./migrations.ts";
import { microtask, parse, split, stringify } from "./primordials.ts";
import { Code, LIMITS, type LoadMessage, type LogLevel } from "./protocol.ts";
import { turns } from "./turn.ts";

export { lockDown } from "./lockdown.ts";

export class Runner implements Port {
  readonly #write: (text: string) => void;
  readonly #loader = new Loader();
  readonly #fetches: FetchBroker;
  readonly #taint = new TaintCheck();
  readonly #activations = new Map<string, Activation>();
  #bundle: LoadedBundle | undefined;
  /** By id; those that did not load throw why. */
  readonly #migrations = new Map<string, () => Migration>();
  /** While a bundle loads, what comes after it waits. */
  #held: string[] | undefined;

  #out = "";
  #answers = 0;
  /** Lines are being handled: what they cause is written when they are through. */
  #feeding = false;
  #flushScheduled = false;
  #toldTaint = false;

  constructor(write: (text: string) => void) {
    this.#write = write;
    this.#fetches = new FetchBroker((line) => this.line(line));
  }

  /** Gives customers' code our console, fetch and hooks. Before any copy of XState is loaded. */
  install(global: Record<string, unknown>): void {
    const log = (level: LogLevel, args: unknown[]) => this.#log(level, args);
    Object.defineProperty(global, "console", {
      value: makeConsole(log),
      writable: true,
      configurable: true,
    });
    global.fetch = this.#fetches.fetch;
    installHooks(global);
    catchStrayErrors((error) => log("error", ["uncaught:", errorText(error)]));
  }

  async warmUp(): Promise<void> {
    await this.#loader.warmUp();
    this.line("READY\n");
  }

  // --- out --------------------------------------------------------------------------------------

  answer(line: string): void {
    this.#out += line;
    if (++this.#answers >= LIMITS.answersPerWrite) {
      this.#flush();
    } else {
      this.#flushLater();
    }
  }

  line(line: string): void {
    this.#out += line;
    this.#flushLater();
  }

  #flushLater(): void {
    if (!this.#feeding && !this.#flushScheduled) {
      this.#flushScheduled = true;
      microtask(() => this.#flush());
    }
  }

  #flush(): void {
    this.#flushScheduled = false;
    this.#answers = 0;
    if (this.#out !== "") {
      const text = this.#out;
      this.#out = "";
      this.#write(text);
    }
  }

  // --- in ---------------------------------------------------------------------------------------

  /** Handles whole lines, without their line breaks. */
  feed(lines: string[]): void {
    this.#feeding = true;
    for (let i = 0; i < lines.length; i++) {
      if (this.#held !== undefined) {
        this.#held.push(lines[i]!);
      } else {
        this.#handle(lines[i]!);
      }
    }
    this.#feeding = false;
    this.#flush();
  }

  #handle(line: string): void {
    const fields = split(line, "\t");
    try {
      this.#dispatch(fields);
    } catch (error) {
      // Only a message that breaks the protocol, or a fault of ours, gets here.
      this.#log("error", [`the runner failed on a message ${fields[0]}:`, errorText(error)]);
      const rid = fields[0] === "R" ? fields[1] : fields[2];
      if (rid !== undefined && "SCTNVORUX".includes(fields[0]!)) {
        this.answer(`${rid}\t${Code.threw}\t${errorJson(error)}\t\t\t\t\t\t\t0\n`);
      }
    }
  }

  #dispatch(fields: string[]): void {
    switch (fields[0]) {
      case "S":
      case "T":
      case "N":
      case "V":
      case "O":
      case "X": {
        const activation = this.#activations.get(fields[1]!);
        if (activation === undefined) {
          this.answer(`${fields[2]}\t${Code.unknownActivation}\t\t\t\t\t\t\t\t0\n`);
        } else {
          activation.step(fields);
          this.#tellTaint();
        }
        break;
      }
      case "K":
        this.#activations.get(fields[1]!)?.commit();
        this.#tellTaint();
        break;
      case "L":
        this.#activate(fields[1]!, fields[2]!).mount(
          fields[3]!,
          fields[4]!,
          fields[5]!,
          fields[6]!,
        );
        break;
      case "C":
        // C act rid name context auth parent, in the order of the other steps
        this.#activate(fields[1]!, fields[3]!).step(fields);
        this.#tellTaint();
        break;
      case "U":
        // U act rid name path description context, in the order of the other steps
        this.#upgrade(fields);
        this.#tellTaint();
        break;
      case "D": {
        const activation = this.#activations.get(fields[1]!);
        if (activation !== undefined) {
          activation.close();
          this.forget(activation);
        }
        break;
      }
      case "R":
        this.#read(fields);
        break;
      case "F":
        this.#fetches.receive(fields[1]!, fields[2]!);
        break;
      case "P":
        this.line(`P\t${fields[1]}\n`);
        break;
      case "M":
        void this.#load(fields[1]!);
        break;
      case "I":
        void this.#learn(fields[1]!, fields[2]!);
        break;
    }
  }

  #activate(id: string, name: string): Activation {
    if (this.#bundle === undefined) {
      throw new Error("no bundle is loaded");
    }
    const activation = new Activation(id, name, this.#bundle, this);
    this.#activations.set(id, activation);
    return activation;
  }

  forget(activation: Activation): void {
    if (this.#activations.get(activation.id) === activation) {
      this.#activations.delete(activation.id);
    }
    this.#fetches.abortAllOf(activation);
  }

  async #load(json: string): Promise<void> {
    const held: string[] = this.#held = [];
    let answer: object;
    try {
      const message: LoadMessage = parse(json);
      const { xstate, exports } = message.kind === "migration"
        ? { xstate: 0, ...await this.#loader.loadMigration(message) }
        : await this.#loadBundle(message);
      const warnings = this.#taint.accept().map(pollutionWarning);
      answer = { ok: true, xstate, exports, warnings };
    } catch (error) {
      answer = { ok: false, error: describeError(error) };
    }
    this.#held = undefined;
    this.line(`M\t${stringify(answer)}\n`);
    this.feed(held);
  }

  async #loadBundle(message: LoadMessage): Promise<{ xstate: number; exports: string[] }> {
    const bundle = this.#bundle = await this.#loader.load(message);
    return { xstate: bundle.adapter.major, exports: bundle.exports };
  }

  /** `I`: from now on instances may come here through this migration. */
  async #learn(id: string, json: string): Promise<void> {
    const held: string[] = this.#held = [];
    let know: () => Migration;
    try {
      const migration = await this.#loader.loadMigration(parse(json));
      know = () => migration;
    } catch (error) {
      know = () => {
        throw error;
      };
    }
    this.#migrations.set(id, know);
    this.#held = undefined;
    this.#tellTaint();
    this.feed(held);
  }

  #upgrade(fields: string[]): void {
    this.#activate(fields[1]!, fields[3]!).upgrade(
      fields,
      () =>
        parse(fields[4]!).map((id: number) => {
          const know = this.#migrations.get(String(id));
          if (know === undefined) {
            throw new Error(`the runner was not told of migration ${id}`);
          }
          return know();
        }),
    );
  }

  /** `R rid name state context auth`: needs no activation, and belongs to none. */
  #read([, rid, name, state, context, auth]: string[]): void {
    const tell = (verdict: unknown) => {
      this.answer(`${rid}\t${verdict === true ? Code.changed : Code.denied}\n`);
    };
    const deny = (error: unknown) => {
      this.#log("error", ["allowRead threw:", errorText(error)]);
      tell(false);
    };
    try {
      const verdict = this.#bundle?.allowRead(readRequest(name!, state!, context!, auth!));
      if (isPromise(verdict)) {
        withinTimeLimit("allowRead", verdict).then(tell, deny);
      } else {
        tell(verdict);
      }
    } catch (error) {
      deny(error);
    }
  }

  // --- what user code does ----------------------------------------------------------------------

  #log(level: LogLevel, args: unknown[]): void {
    const activation = turns.getStore()?.activation;
    if (activation === undefined) {
      this.line(`G\t\t${level}\t${logArguments(args)}\n`);
    } else {
      activation.log(level, args);
    }
  }

  #tellTaint(): void {
    const name = this.#taint.find();
    if (name !== undefined && !this.#toldTaint) {
      this.#toldTaint = true;
      this.line(`Z\t${stringify(`Object.prototype.${name} was added`)}\n`);
    }
  }
}

function pollutionWarning(name: string): string {
  return `The bundle adds "${name}" to Object.prototype. Code that walks over objects will meet it.`;
}
