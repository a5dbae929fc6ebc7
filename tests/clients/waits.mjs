// When clients/js comes back, and what it sends, as its own options tell. Prints JSON.
import { Runstream } from '../../clients/js/dist/runstream.js';

const results = {};

const problem = (status, code, headers) =>
  new Response(JSON.stringify({ status, code, detail: code }), {
    status,
    headers: { 'Content-Type': 'application/problem+json', ...headers },
  });

// asked to wait, then not, then served
{
  const answers = [problem(503, 'shutting_down', { 'Retry-After': '0.2' }), new Response('', { status: 502 }), new Response('{}')];
  const waits = [];
  const sent = [];
  let asked = 0;
  const client = new Runstream('http://server.invalid/base/', {
    headers: async () => ({ Authorization: `token ${(asked += 1)}` }),
    fetch: async (url, init) => {
      sent.push([url, init.method, init.headers.Authorization, JSON.parse(init.body).run_id]);
      return answers.shift();
    },
    retryMs: 8,
    onRetry: ({ waitMs }) => waits.push(waitMs),
  });
  await client.invoke({ message: 'hi' });
  results.asked = { waits, sent };
}

// no connection: the waits double up to the longest
{
  const waits = [];
  const client = new Runstream('http://server.invalid', {
    fetch: async () => {
      throw new TypeError('no route');
    },
    retries: 5,
    retryMs: 4,
    maxRetryMs: 20,
    onRetry: ({ failures, waitMs }) => waits.push([failures, waitMs]),
  });
  const error = await client.state('t').catch((thrown) => thrown);
  results.lost = { waits, name: error.name, cause: error.cause.cause.message };
}

// connections that give one frame each are successes, so fewer retries than drops are enough
{
  const events = ['start', 'node', 'node', 'node', 'complete'];
  const cursors = [];
  const client = new Runstream('http://server.invalid', {
    fetch: async (_, init) => {
      const seq = cursors.push(init.headers['Last-Event-ID'] ?? null);
      return new Response(`data: {"event": "${events[seq - 1]}", "seq": ${seq}}\nid: r.${seq}\n\n`);
    },
    retries: 1,
    retryMs: 1,
  });
  const seen = [];
  for await (const frame of client.stream({})) seen.push(frame.event);
  results.dropped = { seen, cursors };
}

// aborted before it began, and while it waits
{
  let requests = 0;
  const leave = new AbortController();
  const client = new Runstream('http://server.invalid', {
    fetch: async () => {
      requests += 1;
      throw new TypeError('no route');
    },
    retryMs: 1_000_000,
    maxRetryMs: 1_000_000,
    onRetry: () => setTimeout(() => leave.abort()),
  });
  const begun = client.stream({}, { signal: leave.signal });
  const waiting = await begun.next().catch((thrown) => thrown.name);
  const before = await client.attach('r', { signal: leave.signal }).next().catch((thrown) => thrown.name);
  results.aborted = { waiting, before, requests };
}

console.log(JSON.stringify(results));
