// Node.js: an interval timer, promises, and asynchronous appends through the thread pool.
// The log is opened once: a file that is not open while the job is saved is not put back.
// Line: "step N hash HEX appended COUNT".  Arguments: STEPS [DELAY_S].
'use strict';
const crypto = require('node:crypto');
const fs = require('node:fs');

const steps = Number(process.argv[2]);
const delayMs = 1000 * Number(process.argv[3] || 0.025);
let step = 0;
let appended = 0;
let hash = '';
let log;

async function advance() {
  step += 1;
  hash = crypto.createHash('sha256').update(hash + String(step)).digest('hex');
  await log.appendFile(`appended ${step}\n`);
  appended += 1;
  process.stdout.write(`step ${step} hash ${hash.slice(0, 16)} appended ${appended}\n`);
}

async function main() {
  log = await fs.promises.open('node.log', 'a');
  let working = false;
  const timer = setInterval(async () => {
    if (working) return;
    working = true;
    await advance();
    working = false;
    if (step === steps) {
      clearInterval(timer);
      await log.close();
      process.stdout.write(`done ${steps}\n`);
    }
  }, delayMs);
}

main();
