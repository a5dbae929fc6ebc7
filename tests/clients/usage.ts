// Compiled, never run: what the types of clients/js promise to a program.
import {
  applyPatch,
  isEnd,
  ProblemError,
  Runstream,
  StateMirror,
  type EndFrame,
  type Frame,
  type JsonObject,
  type Operation,
} from '../../clients/js/runstream';

export function told(frame: Frame): string {
  switch (frame.event) {
    case 'start':
      return frame.run_id + frame.thread_id + frame.graph + frame.attempt;
    case 'node':
      return frame.task_id + frame.data.message?.type;
    case 'token':
      return frame.data.content + (frame.data.last === true);
    case 'tool_call':
    case 'tool_call_delta':
      return frame.data.id + frame.data.message_id;
    case 'tool_result':
      return frame.data.status;
    case 'custom':
      return JSON.stringify(frame.data);
    case 'progress':
      return `${frame.data.percent ?? frame.data.current}`;
    case 'node_start':
      return frame.node + frame.data.step;
    case 'values':
    case 'checkpoint':
    case 'debug':
      return Object.keys(frame.data).join();
    case 'state':
      return 'patch' in frame.data ? frame.data.patch.map((step: Operation) => step.path).join() : 'snapshot';
    case 'restart':
    case 'discard':
      return frame.discard.join() + frame.reason;
    case 'complete':
      return frame.status;
    case 'interrupt':
      return frame.interrupts.map(({ id, value }) => id + JSON.stringify(value)).join();
    case 'cancelled':
      return Object.values(frame.partial).join('');
    case 'error':
      return frame.error + frame.code;
    default: {
      // a kind that is not above
      const never: never = frame;
      return never;
    }
  }
}

export async function use(client: Runstream): Promise<EndFrame | undefined> {
  interface Notes {
    log: string[];
  }
  const mirror = new StateMirror<Notes>();
  const { values } = await client.state<Notes>('thread');
  const patched: JsonObject = applyPatch({}, [{ op: 'add', path: '/a', value: 1 }]) as JsonObject;
  // @ts-expect-error a mistyped field
  client.stream({ mesage: 'hi' });
  // @ts-expect-error a mode that does not exist
  client.stream({ message: 'hi', stream_mode: 'everything' });
  try {
    for await (const frame of client.stream({ input: { log: values.log, patched }, stream_mode: ['state', 'messages'] })) {
      mirror.take(frame);
      // @ts-expect-error not every frame has a node
      frame.node;
      if (isEnd(frame)) return frame;
    }
  } catch (error) {
    if (error instanceof ProblemError && error.code === 'thread_busy') await client.cancel(String(error.problem['run_id']));
  }
  return undefined;
}
