// Plays a scenario's steps with the client of clients/js, under Node and in a browser. The Python players do the same.

export async function play(library, { url, options, steps }) {
  const { silence_seconds, retry_seconds, max_retry_seconds, retries } = options;
  const client = new library.Runstream(url, {
    silenceMs: silence_seconds * 1000,
    retryMs: retry_seconds * 1000,
    maxRetryMs: max_retry_seconds * 1000,
    retries,
  });
  const known = { runId: null, seq: 0, interrupts: [] };
  const results = [];
  for (const step of steps) results.push(await playStep(library, client, known, step));
  return results;
}

async function playStep(library, client, known, step) {
  const result = { frames: [], texts: {}, mirror: null, is_stale: false, value: null, error: null };
  try {
    if (step.do === 'invoke') {
      result.value = await client.invoke(step.body, startOptions(step));
      known.interrupts = result.value.interrupts;
    } else if (step.do === 'cancel') {
      result.value = await client.cancel(step.run ?? known.runId, { wait: true });
    } else if (step.do === 'state') {
      result.value = await client.state(step.thread);
    } else {
      await watch(library, client, known, step, result);
    }
  } catch (error) {
    result.error = told(library, error);
  }
  return result;
}

async function watch(library, client, known, step, result) {
  const leave = new AbortController();
  const transcript = new library.Transcript();
  const mirror = new library.StateMirror();
  let ends = 0;
  try {
    for await (const frame of opened(client, known, step, leave.signal)) {
      result.frames.push(frame);
      transcript.take(frame);
      mirror.take(frame);
      if (frame.event === 'start') known.runId = frame.run_id;
      if (frame.event === 'interrupt') known.interrupts = frame.interrupts;
      known.seq = frame.seq;
      if (library.isEnd(frame)) ends += 1;
      const count = result.frames.length;
      if (count === step.cancel_after) await client.cancel(known.runId, { wait: true, keepPartial: step.keep_partial });
      if (count === step.abort_after) leave.abort();
      if (count === step.leave_after || ends === step.ends) break;
    }
  } finally {
    result.texts = Object.fromEntries(transcript.texts);
    result.mirror = mirror.value ?? null;
    result.is_stale = mirror.isStale;
  }
}

function opened(client, known, step, signal) {
  const view = step.view === undefined ? {} : { view: step.view };
  switch (step.do) {
    case 'stream':
      return client.stream(step.body, { signal, ...view, ...startOptions(step) });
    case 'resume':
      return client.resume(step.thread, answerOf(known, step), { signal, ...view });
    case 'attach': {
      const after = step.after === 'last' ? known.seq : (step.after ?? 0);
      return client.attach(step.run ?? known.runId, { signal, after, ...view });
    }
    case 'follow':
      return client.follow(step.thread, { signal, ...(step.after && { after: `${known.runId}.${known.seq}` }) });
    default:
      throw new Error(`no step ${step.do}`);
  }
}

function startOptions(step) {
  return step.key === undefined ? {} : { idempotencyKey: step.key };
}

// `answers` are by the name of the node that asked
function answerOf(known, { answer, answers }) {
  if (answers === undefined) return answer;
  const answered = known.interrupts.filter(({ node }) => node in answers);
  return Object.fromEntries(answered.map(({ id, node }) => [id, answers[node]]));
}

function told({ ProblemError, ConnectionLostError }, error) {
  if (error instanceof ProblemError) {
    const { status, code, problem } = error;
    return { kind: 'problem', status, code, problem };
  }
  if (error instanceof ConnectionLostError) return { kind: 'lost' };
  if (error.name === 'AbortError') return { kind: 'aborted' };
  throw error;
}
