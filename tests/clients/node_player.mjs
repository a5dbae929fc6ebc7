// Plays the scenarios that stand on the lines of standard input; prints a line with the results of each.
import { createInterface } from 'node:readline';
import * as library from '../../clients/js/dist/runstream.js';
import { play } from './player.mjs';

for await (const line of createInterface({ input: process.stdin })) {
  const outcome = await play(library, JSON.parse(line)).then(
    (results) => ({ results }),
    (error) => ({ failed: error.stack }),
  );
  console.log(JSON.stringify(outcome));
}
