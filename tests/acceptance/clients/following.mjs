/**
 * What a page does that follows instances: the published client's actors and subscriptions. Runs in
 * Node (client.mjs) and, bundled, in a browser on another origin (tests/browser/test_client.py).
 */

const WITHIN_MS = 20_000;

/** Follows what others, timers, messages and the page itself do; returns all that was heard. */
export async function follow(StateBackedClient, config) {
  const { apiHost, token, orgId, toggler, alarm, family, order, slug } = config;
  const as = (claims) => new StateBackedClient(token, { apiHost, orgId, actAs: claims });
  const ada = as({ sub: "ada" }).machineInstances;
  const grace = as({ sub: "grace" }).machineInstances;
  const staff = as({ sub: "sam", role: "staff" }).machineInstances;

  // An actor that is created, then followed: what others do, and what it is sent here.
  const heard = listener();
  const actor = await ada.getOrCreateActor(toggler, slug, {});
  const first = [actor.getSnapshot().value, actor.getSnapshot().context.public.toggleCount];
  actor.subscribe(
    (state) => heard.tell([state.value, state.context.public.toggleCount]),
    heard.fail,
  );
  await grace.sendEvent(toggler, slug, { event: "toggle" });
  await heard.until(([, count]) => count === 1);
  actor.send({ type: "toggle" });
  await heard.until(([, count]) => count === 2);
  const again = await ada.getOrCreateActor(toggler, slug, {});
  const got = await ada.getActor(toggler, slug);

  // A timer moves it while nobody does anything.
  const rung = listener();
  await grace.create(alarm, { slug });
  const unsubscribe = ada.subscribe(alarm, slug, ({ state }) => rung.tell(state), rung.fail);
  await rung.until((state) => state === "idle");
  await grace.sendEvent(alarm, slug, { event: { type: "start", delayMs: 100 } });
  await rung.until((state) => state === "rung");
  unsubscribe();

  // So does the message of another instance.
  const told = listener();
  const sender = `${slug}-sender`;
  for (const name of [slug, sender]) await grace.create(family, { slug: name });
  ada.subscribe(family, slug, ({ publicContext }) => told.tell(publicContext.heard), told.fail);
  await told.until((numbers) => numbers.length === 0);
  await grace.sendEvent(family, sender, { event: { type: "tell", to: slug, n: 7 } });
  await told.until((numbers) => numbers.includes(7));

  // What one may not read, and what is not there.
  await staff.create(order, { slug, context: { customer: "mary", public: { total: 1 } } });
  return {
    first,
    heard: heard.all,
    again: again.getSnapshot().value,
    got: got.getSnapshot().context.public,
    rung: rung.all,
    told: told.all.at(-1),
    denied: await subscriptionError(ada, order, slug),
    missing: await subscriptionError(ada, order, `${slug}-none`),
    actorDenied: await failure(ada.getActor(order, slug)),
    actorMissing: await failure(ada.getActor(order, `${slug}-none`)),
  };
}

/** Collects what is told, and waits for something among it. */
function listener() {
  const all = [];
  let wake = () => {};
  let failed = null;
  return {
    all,
    tell(item) {
      all.push(item);
      wake();
    },
    fail(error) {
      failed = error;
      wake();
    },
    async until(isWanted) {
      const giveUp = AbortSignal.timeout(WITHIN_MS);
      while (!all.some(isWanted)) {
        if (failed) throw failed;
        await new Promise((resolve, reject) => {
          wake = resolve;
          giveUp.onabort = () => reject(new Error(`heard only ${JSON.stringify(all)}`));
        });
      }
    },
  };
}

async function subscriptionError(machineInstances, machine, slug) {
  return failure(
    new Promise((resolve, reject) => {
      const unsubscribe = machineInstances.subscribe(
        machine,
        slug,
        (state) => resolve(state),
        (error) => {
          unsubscribe();
          reject(error);
        },
      );
    }),
  );
}

/** What a caller learns of a failure. */
async function failure(promise) {
  try {
    return { value: await promise };
  } catch (error) {
    return { status: error.status, code: error.code };
  }
}
