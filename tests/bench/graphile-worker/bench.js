// graphile-worker at the same work as a host of ours, for the figure `noop_vs_graphile_worker`.
//
// `node bench.js enqueue URL JOBS` makes its tables and enqueues jobs; `node bench.js run URL JOBS`
// does them and prints how many microseconds that took, from the first call of a task until the
// last process has nothing left to do or to record. Where the settings are from is in
// docs/performance.md.

const { fork } = require("node:child_process");

// It logs every job that succeeds otherwise; its own performance test sets this as well.
process.env.NO_LOG_SUCCESS = "1";
const { makeWorkerUtils, runOnce } = require("graphile-worker");

// One or four take longer on two cores.
const PROCESSES = 2;
const CONCURRENCY = 24;

const preset = (connectionString) => ({
  worker: {
    connectionString,
    concurrentJobs: CONCURRENCY,
    maxPoolSize: CONCURRENCY + 1,
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
  },
});

async function enqueue(url, jobs) {
  const utils = await makeWorkerUtils({ preset: preset(url) });
  try {
    await utils.migrate();
    const spec = { identifier: "noop", payload: { customer: 4711 } };
    for (let left = jobs; left > 0; left -= 10_000) {
      await utils.addJobs(Array(Math.min(left, 10_000)).fill(spec));
    }
  } finally {
    await utils.release();
  }
}

async function run(url, jobs) {
  const times = await Promise.all(Array.from({ length: PROCESSES }, () => worker(url)));
  const called = times.reduce((sum, it) => sum + it.called, 0);
  if (called !== jobs) throw new Error(`${called} of ${jobs} jobs were done`);
  const left = await countLeft(url);
  if (left !== 0) throw new Error(`${left} jobs are not recorded as done`);
  // All read the same monotonic clock. Who came too late for a job has no first call.
  const first = Math.min(...times.map((it) => it.first ?? Infinity));
  const done = Math.max(...times.map((it) => it.done));
  console.log(done - first);
}

async function countLeft(url) {
  const utils = await makeWorkerUtils({ preset: preset(url) });
  try {
    const count = "select count(*)::int as count from graphile_worker.jobs";
    return (await utils.withPgClient((client) => client.query(count))).rows[0].count;
  } finally {
    await utils.release();
  }
}

/** A process that works until nothing is left, and what it says in the end. */
function worker(url) {
  return new Promise((resolve, reject) => {
    const child = fork(__filename, ["work", url]);
    let said;
    child.on("message", (message) => { said = message; });
    child.on("error", reject);
    child.on("exit", (code) => {
      if (code === 0 && said) resolve(said);
      else reject(new Error(`a worker ended with ${code}`));
    });
  });
}

const now = () => Number(process.hrtime.bigint() / 1000n);

async function work(url) {
  // Where the one that started it is killed, it ends as well.
  const orphaned = () => process.exit(1);
  process.on("disconnect", orphaned);
  let first;
  let called = 0;
  const noop = () => {
    first ??= now();
    called += 1;
  };
  await runOnce({ preset: preset(url), taskList: { noop } });
  const done = now();
  process.off("disconnect", orphaned);
  process.send({ first, called, done }, () => process.disconnect());
}

const [command, url, jobs] = process.argv.slice(2);
const commands = { enqueue, run, work };
commands[command](url, Number(jobs)).catch((error) => {
  console.error(error);
  process.exit(1);
});
