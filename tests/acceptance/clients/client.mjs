/**
 * The published client, unmodified, doing what test_clients.py asks for.
 *
 *   node client.mjs <scenario> '{"apiHost": …, "token": …, …}'      prints one line of JSON
 */
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { StateBackedClient } from "@statebacked/client";
import { signToken } from "@statebacked/token";
import { follow } from "./following.mjs";

const scenarios = {
  /** From nothing to an instance that has processed events, as an admin. */
  async admin({ apiHost, token, orgId, machine, bundle }) {
    const client = new StateBackedClient(token, { apiHost, orgId, actAs: { sub: "ada" } });
    const code = await readFile(bundle, "utf8");
    const created = await client.machines.create(machine);
    const plain = await client.machineVersions.create(machine, {
      code,
      clientInfo: "plain",
      makeCurrent: true,
    });
    const zipped = await client.machineVersions.create(machine, {
      gzippedCode: new Uint8Array(gzipSync(code)),
      clientInfo: "gzipped",
      makeCurrent: true,
    });
    const instance = await client.machineInstances.create(machine, { slug: "first" });
    const toggled = await client.machineInstances.sendEvent(machine, "first", {
      event: { type: "toggle" },
    });
    const toggledAgain = await client.machineInstances.sendEvent(machine, "first", {
      event: "toggle",
    });
    return {
      created,
      plain,
      zipped,
      instance,
      toggled,
      toggledAgain,
      actor: (await client.machineInstances.getActor(machine, "first")).getSnapshot().matches("off"),
      read: await client.machineInstances.get(machine, "first"),
      again: await client.machineInstances.getOrCreate(machine, "first", {}),
      other: await client.machineInstances.getOrCreate(machine, "second", {}),
      transitions: await client.machineInstances.listTransitions(machine, "first"),
      admin: await client.machineInstances.admin.get(machine, "first"),
      instances: await client.machineInstances.list(machine),
      versions: await client.machineVersions.list(machine),
      machines: await client.machines.list(),
      machine: await client.machines.get(machine),
      orgs: await new StateBackedClient(token, { apiHost }).orgs.list(),
    };
  },

  /** Pausing, deleting, and the errors on the way. */
  async dangerous({ apiHost, token, orgId, machine }) {
    const client = new StateBackedClient(token, { apiHost, orgId, actAs: { sub: "ada" } });
    const { machineInstances, machines } = client;
    const forever = { dangerDataWillBeDeletedForever: true };
    await machineInstances.dangerously.setStatus(machine, "first", { status: "paused" });
    const whilePaused = await failure(
      machineInstances.sendEvent(machine, "first", { event: "toggle" }),
    );
    await machineInstances.dangerously.setStatus(machine, "first", { status: "running" });
    const resumed = await machineInstances.sendEvent(machine, "first", { event: "toggle" });
    const withInstances = await failure(machines.dangerously.delete(machine, forever));
    const duplicate = await failure(machineInstances.create(machine, { slug: "first" }));
    const duplicateMachine = await failure(machines.create(machine));
    await machineInstances.dangerously.delete(machine, "first", forever);
    const deleted = await failure(machineInstances.get(machine, "first"));
    await machineInstances.dangerously.delete(machine, "second", forever);
    await machines.dangerously.delete(machine, forever);
    const deletedMachine = await failure(machines.get(machine));
    return {
      whilePaused,
      resumed,
      withInstances,
      duplicate,
      duplicateMachine,
      deleted,
      deletedMachine,
    };
  },

  /** Two versions, a migration in both of its forms, and an instance that upgrades by them. */
  async upgrades({ apiHost, token, orgId, machine, bundles }) {
    const client = new StateBackedClient(token, { apiHost, orgId, actAs: { sub: "ada" } });
    const { machines, machineVersions, machineVersionMigrations, machineInstances } = client;
    const [oldCode, newCode, migrationCode] = await Promise.all(
      bundles.map((path) => readFile(path, "utf8")),
    );
    await machines.create(machine);
    const publish = async (code) =>
      (await machineVersions.create(machine, { code, makeCurrent: true })).machineVersionId;
    const [from, to, apart] = [await publish(oldCode), await publish(newCode), await publish(newCode)];
    await machineInstances.create(machine, { slug: "one", machineVersionId: from });
    const desire = (targetMachineVersionId) =>
      machineInstances.admin.updateDesiredVersion(machine, "one", { targetMachineVersionId });

    const tooEarly = await failure(desire(to));
    const versions = { fromMachineVersionId: from, toMachineVersionId: to };
    const refused = await failure(
      machineVersionMigrations.create(machine, { ...versions, code: "export default {};" }),
    );
    const plain = await machineVersionMigrations.create(machine, {
      ...versions,
      code: migrationCode,
    });
    // The client puts every byte of it into the JSON of its first request, as well.
    const large = `${migrationCode}\n// ${randomBytes(600_000).toString("base64")}`;
    const zipped = await machineVersionMigrations.create(machine, {
      ...versions,
      gzippedCode: new Uint8Array(gzipSync(large)),
    });
    const desired = await desire(to);
    const pending = await machineInstances.admin.get(machine, "one");
    const upgraded = await machineInstances.sendEvent(machine, "one", { event: "touch" });
    return {
      ids: { from, to },
      tooEarly,
      refused,
      plain,
      zipped,
      desired: desired ?? null,
      pending,
      upgraded,
      admin: await machineInstances.admin.get(machine, "one"),
      transitions: await machineInstances.listTransitions(machine, "one"),
      noPath: await failure(desire(apart)),
      unknown: await failure(desire("ver_unknown")),
    };
  },

  /** An end user with a token that the customer's server has signed with a key. */
  async endUser({ apiHost, token, orgId, machine }) {
    const admin = new StateBackedClient(token, { apiHost, orgId });
    const key = await admin.keys.create({ name: "our server", use: "production" });
    const as = async (act) => {
      const signed = await signToken(
        { stateBackedKeyId: key.id, stateBackedSecretKey: key.key },
        act,
        { expires: { in: "5m" }, issuer: "shop.example" },
      );
      return new StateBackedClient(signed, { apiHost });
    };
    const ada = await as({ sub: "ada" });
    const grace = await as({ sub: "grace" });
    const { machineInstances } = ada;

    const created = await machineInstances.create(machine, {
      slug: "mine",
      context: { owner: "ada", max: 10 },
    });
    const counted = await grace.machineInstances.sendEvent(machine, "mine", { event: "increment" });
    const rejected = await failure(
      grace.machineInstances.sendEvent(machine, "mine", { event: "reset" }),
    );
    const reset = await machineInstances.sendEvent(machine, "mine", { event: "reset" });
    const missingScope = await failure(ada.machines.list());
    const notFound = await failure(machineInstances.get(machine, "nobodys"));
    const keys = await admin.keys.list();
    await admin.keys.delete(key.id);
    const afterwards = await failure(machineInstances.get(machine, "mine"));
    return { created, counted, rejected, reset, missingScope, notFound, key, keys, afterwards };
  },

  /** A subscriber hears of the state at once, and of every change, whoever makes it. */
  async subscriber({ apiHost, token, orgId, machine }) {
    const client = new StateBackedClient(token, { apiHost, orgId, actAs: { sub: "ada" } });
    await client.machineInstances.create(machine, { slug: "watched" });
    const heard = [];
    await new Promise((resolve, reject) => {
      const unsubscribe = client.machineInstances.subscribe(
        machine,
        "watched",
        ({ ts, state, publicContext }) => {
          heard.push({ ts, state, publicContext });
          if (heard.length === 3) {
            unsubscribe();
            resolve();
          } else {
            client.machineInstances.sendEvent(machine, "watched", { event: "toggle" }).catch(reject);
          }
        },
        reject,
      );
    });
    return { heard };
  },

  /** What others and timers do, by actors and subscriptions. */
  follower: (config) => follow(StateBackedClient, config),
};

/** What a caller learns of a failure. */
async function failure(promise) {
  try {
    return { value: await promise };
  } catch (error) {
    return { name: error.constructor.name, status: error.status, code: error.code };
  }
}

const [, , name, config] = process.argv;
const result = await scenarios[name](JSON.parse(config));
// The client keeps its WebSocket open.
process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));
