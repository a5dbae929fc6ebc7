/**
 * A client of Runstream for browsers and Node 20, in one file without dependencies.
 *
 * `stream`, `attach`, `follow` and `resume` are async iterators of frames. Each gives every frame once and in order,
 * whatever the connection does: a drop or a stall is answered by coming back with the id of the last frame that was
 * whole, and a start that may have been lost is repeated under the run's own id, so nothing runs twice.
 */

// -- frames ------------------------------------------------------------------------------------------------------

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };

/** Token counts by the model's name; null when no model told. */
export type Usage = { [model: string]: { input_tokens: number; output_tokens: number; total_tokens: number } } | null;

/** A message as LangChain knows it; `type` is its class: `AIMessage`, `HumanMessage`, `ToolMessage`. */
export type Message = { type: string; content: Json; id: string | null; [key: string]: Json };

/** A question that waits for an answer. */
export interface Interrupt {
  id: string;
  value: Json;
  node: string;
  ns: string[];
  response_schema: Json;
}

interface Common {
  /** The frame's place in its run's log: 1, 2, 3 … A filtered or joined view skips numbers. */
  seq: number;
  /** The frame is of a subgraph: the path to it, as `node:task id`. */
  ns?: string[];
  /** It was too large to be sent: `data` is cut down, and the whole is in the thread's state. */
  truncated?: true;
  state_url?: string;
}

export interface StartFrame extends Common {
  event: 'start';
  run_id: string;
  thread_id: string;
  graph: string;
  attempt: number;
}

/** A node has ended; `data` is its update, with the newest message of it under `message`. */
export interface NodeFrame extends Common {
  event: 'node';
  node: string;
  task_id: string;
  data: JsonObject & { message?: Message };
}

/** A model said something: `content` is the new text alone, `id` its message's. */
export interface TokenFrame extends Common {
  event: 'token';
  node: string;
  tags?: string[];
  data: {
    id: string;
    content: string;
    role?: string;
    index?: number | string;
    reasoning?: string;
    /** A content block that is no text: an image, a file; in LangChain's standard form. */
    block?: JsonObject & { type: string };
    /** What was noted of the text: citations. */
    annotations?: Json[];
    /** What a text that is JSON says so far, where `tokens.parsed` asks for it. */
    parsed?: Json;
    last?: true;
  };
}

export interface ToolCallFrame extends Common {
  event: 'tool_call';
  node: string;
  tags?: string[];
  data: { id: string; name: string; args: Json; message_id: string };
}

/** A piece of a call's arguments, as JSON text. */
export interface ToolCallDeltaFrame extends Common {
  event: 'tool_call_delta';
  node: string;
  tags?: string[];
  data: {
    id: string;
    name: string;
    args: string;
    message_id: string;
    /** What the arguments say so far, where `tokens.parsed` asks for it. */
    parsed?: Json;
  };
}

export interface ToolResultFrame extends Common {
  event: 'tool_result';
  node: string;
  data: { id: string; name: string; content: Json; status: string };
}

export interface CustomFrame extends Common {
  event: 'custom';
  node: string;
  data: Json;
}

export interface ProgressFrame extends Common {
  event: 'progress';
  node: string;
  data: {
    current: number;
    total: number | null;
    percent: number | null;
    rate: number | null;
    eta_seconds: number | null;
    message: string | null;
    milestone: number | null;
  };
}

export interface NodeStartFrame extends Common {
  event: 'node_start';
  node: string;
  data: { id: string; step: number };
}

/** LangGraph's own parts of these modes. */
export interface LangGraphFrame extends Common {
  event: 'values' | 'checkpoint' | 'debug';
  data: JsonObject;
}

/** A step of the state's mirror: see StateMirror. */
export interface StateFrame extends Common {
  event: 'state';
  data: { snapshot: Json } | { patch: Operation[] };
}

/** The run goes on in another attempt; what was streamed of the messages in `discard` is void. */
export interface RestartFrame extends Common {
  event: 'restart';
  attempt: number;
  discard: string[];
  reason: 'crash' | 'deploy';
}

/** A node is tried again; what was streamed of the messages in `discard` is void. */
export interface DiscardFrame extends Common {
  event: 'discard';
  node: string;
  discard: string[];
  reason: 'retry';
}

export interface CompleteFrame extends Common {
  event: 'complete';
  status: 'success';
  usage: Usage;
  output?: Json;
}

/** The graph waits for a human; `interrupts` is empty at a breakpoint. */
export interface InterruptFrame extends Common {
  event: 'interrupt';
  next: string[];
  interrupts: Interrupt[];
  usage: Usage;
}

export interface CancelledFrame extends Common {
  event: 'cancelled';
  reason: 'user' | 'disconnect' | 'superseded';
  /** The text so far, by message id. */
  partial: { [messageId: string]: string };
  usage: Usage;
}

export interface ErrorFrame extends Common {
  event: 'error';
  /** A sentence that may be shown to anybody. */
  error: string;
  code: string;
  node?: string | null;
  run_id: string;
  retryable: boolean;
  usage: Usage;
}

/** What ends a run: exactly one of these, as its last frame. */
export type EndFrame = CompleteFrame | InterruptFrame | CancelledFrame | ErrorFrame;

export type Frame =
  | StartFrame
  | NodeFrame
  | TokenFrame
  | ToolCallFrame
  | ToolCallDeltaFrame
  | ToolResultFrame
  | CustomFrame
  | ProgressFrame
  | NodeStartFrame
  | LangGraphFrame
  | StateFrame
  | RestartFrame
  | DiscardFrame
  | EndFrame;

export function isEnd(frame: Frame): frame is EndFrame {
  return ENDS.has(frame.event);
}

const ENDS: ReadonlySet<string> = new Set(['complete', 'interrupt', 'cancelled', 'error']);

// -- requests ----------------------------------------------------------------------------------------------------

export type StreamMode =
  | 'updates'
  | 'messages'
  | 'custom'
  | 'values'
  | 'tasks'
  | 'checkpoints'
  | 'debug'
  | 'state';

export interface TokenPolicy {
  flush?: 'each' | { count: number } | { ms: number };
  nodes?: string[];
  tags?: string[];
  exclude_tags?: string[];
  min_length?: number;
  exclude_whitespace?: boolean;
  pattern?: string;
  /** Beside JSON that is being written, what it says so far. */
  parsed?: boolean;
  /** In a start only: the mirror of the state carries the text, too. */
  in_state?: boolean;
}

/** What a start takes; the fields are told in docs/protocol.md. */
export interface RunBody {
  graph?: string;
  thread_id?: string;
  input?: unknown;
  message?: string;
  resume?: unknown;
  command?: { resume?: unknown; update?: unknown; goto?: unknown };
  use_hitl?: boolean;
  interrupt_before?: string[] | '*';
  interrupt_after?: string[] | '*';
  stream_mode?: StreamMode | StreamMode[];
  subgraphs?: boolean;
  tokens?: TokenPolicy;
  checkpoint_id?: string;
  config?: { tags?: string[]; metadata?: JsonObject; recursion_limit?: number; configurable?: JsonObject };
  context?: unknown;
  metadata?: JsonObject;
  durability?: 'sync' | 'async' | 'exit';
  run_id?: string;
  multitask_strategy?: 'reject' | 'enqueue' | 'interrupt' | 'rollback';
  on_disconnect?: 'cancel' | 'continue';
  if_not_exists?: 'create' | 'reject';
  on_interrupted?: 'reject' | 'discard';
  timeout_seconds?: number;
  include_output?: boolean;
}

/** What one reader sees of a run; what is left out is as the run was started. */
export interface View {
  /** Fewer modes than were recorded. */
  stream_mode?: StreamMode | StreamMode[];
  subgraphs?: false;
  tokens?: TokenPolicy;
}

export interface CallOptions {
  /** Aborting it ends the call with the signal's reason. It does not stop the run: `cancel` does. */
  signal?: AbortSignal;
}

export interface StartOptions extends CallOptions {
  /** Makes the request happen once, also when another page or process sends it again. Without it a new `run_id` does so. */
  idempotencyKey?: string;
}

export interface StreamOptions extends StartOptions {
  view?: View;
}

export interface AttachOptions extends CallOptions {
  /** The seq of the last frame that is known already; 0, the default, is the run's beginning. */
  after?: number;
  view?: View;
}

export interface FollowOptions extends CallOptions {
  /** The id of the last frame that is known already, `<run id>.<seq>`: what came since is given first. */
  after?: string;
}

export interface InvokeResult {
  run_id: string;
  thread_id: string;
  status: 'success' | 'interrupted' | 'cancelled';
  output: Json;
  interrupts: Interrupt[];
  next: string[];
  usage: Usage;
}

export interface Run {
  run_id: string;
  thread_id: string;
  graph: string;
  status: 'pending' | 'running' | 'success' | 'interrupted' | 'cancelled' | 'error' | 'timeout';
  attempt: number;
  created_at: string;
  started_at: string | null;
  finished_at: string | null;
  usage: Usage;
  error: { code: string; message: string } | null;
  metadata: JsonObject;
  last_seq: number;
}

/** LangGraph's state of a thread. */
export interface ThreadState<Values = JsonObject> {
  values: Values;
  next: string[];
  interrupts: JsonObject[];
  tasks: JsonObject[];
  metadata: JsonObject;
  created_at: string | null;
  checkpoint: JsonObject;
  parent_checkpoint: JsonObject | null;
}

// -- errors ------------------------------------------------------------------------------------------------------

/** The server refused: an RFC 9457 problem. `code` is for programs, `message` a sentence for people. */
export class ProblemError extends Error {
  override readonly name = 'ProblemError';

  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    /** The whole problem: `interrupts`, `run_id`, `graphs`, `errors` and so on. Empty when a gateway answered. */
    readonly problem: JsonObject,
    readonly retryAfterSeconds: number | null,
  ) {
    super(detail);
  }

  /** Whether the same request may succeed in a moment. The iterators and calls here try again by themselves then. */
  get isTemporary(): boolean {
    if (this.code === 'unknown') return GATEWAY_STATUSES.has(this.status);
    return this.retryAfterSeconds !== null && this.code !== 'graph_unavailable';
  }

  static async of(response: Response): Promise<ProblemError> {
    const retryAfter = Number(response.headers.get('retry-after') ?? NaN);
    const seconds = Number.isFinite(retryAfter) ? retryAfter : null;
    const body: unknown = await response.json().catch(() => null);
    if (!isObject(body) || typeof body['code'] !== 'string') {
      return new ProblemError(response.status, 'unknown', `The answer was ${response.status}.`, {}, seconds);
    }
    return new ProblemError(response.status, body['code'], String(body['detail']), body, seconds);
  }
}

const GATEWAY_STATUSES: ReadonlySet<number> = new Set([429, 502, 503, 504]);

/** The server could not be reached for as long as `retries` allows; `cause` is what happened last. */
export class ConnectionLostError extends Error {
  override readonly name = 'ConnectionLostError';
}

/** A connection that broke, or was silent for too long: a reason to come back. */
class Dropped extends Error {}

// -- the client --------------------------------------------------------------------------------------------------

export interface RetryInfo {
  /** How many attempts in a row have failed. */
  failures: number;
  waitMs: number;
  error: Error;
}

export interface RunstreamOptions {
  /** Sent with every request; a function is asked each time, for tokens that expire. */
  headers?: Record<string, string> | (() => Record<string, string> | Promise<Record<string, string>>);
  fetch?: typeof globalThis.fetch;
  /** A stream without a byte for so long is given up and opened anew. Several heartbeats of the server. */
  silenceMs?: number;
  /** How often to try again in a row before giving up with a ConnectionLostError. */
  retries?: number;
  /** The wait before the first new attempt; it doubles with each, up to `maxRetryMs`, less up to a half at random. */
  retryMs?: number;
  maxRetryMs?: number;
  /** Called before each wait, for a line such as “connecting again”. */
  onRetry?: (info: RetryInfo) => void;
}

export class Runstream {
  readonly #baseUrl: string;
  readonly #options: RunstreamOptions;
  readonly #fetch: typeof globalThis.fetch;

  constructor(baseUrl: string, options: RunstreamOptions = {}) {
    this.#baseUrl = baseUrl.replace(/\/+$/, '');
    this.#options = options;
    this.#fetch = options.fetch ?? ((...request) => globalThis.fetch(...request));
  }

  /** Start a run, when the first frame is asked for, and give its frames to the end. Throws ProblemError. */
  async *stream(body: RunBody, options: StreamOptions = {}): AsyncGenerator<Frame, void, undefined> {
    const named = withRunId(body, options);
    const place = new Place();
    yield* this.#read(place, isEnd, options.signal, async (signal) => {
      if (place.runId !== null) return this.#log(place, options.view, signal);
      const started = await this.#start('/runs/stream', named, options, signal, { Accept: EVENT_STREAM });
      place.runId = runIdOf(started) ?? named.run_id ?? null;
      if (options.view === undefined || place.runId === null) return started;
      // held until the reader with the view is there: the run shall not think that it was left
      const shown = await this.#log(place, options.view, signal);
      started.body?.cancel().catch(() => {});
      return shown;
    });
  }

  /** A run's frames from its log, then live to the end. Throws ProblemError, 404 for an unknown run. */
  async *attach(runId: string, options: AttachOptions = {}): AsyncGenerator<Frame, void, undefined> {
    const place = new Place(runId, options.after);
    yield* this.#read(place, isEnd, options.signal, (signal) => this.#log(place, options.view, signal));
  }

  /** The thread's active run, then the next ones, without an end: leave the loop, or abort the signal. */
  async *follow(threadId: string, options: FollowOptions = {}): AsyncGenerator<Frame, void, undefined> {
    const place = options.after === undefined ? new Place() : Place.at(options.after);
    let wasEmpty = false;
    yield* this.#read(place, () => false, options.signal, async (signal) => {
      if (place.runId === null) wasEmpty = !(await this.#locate(threadId, place, wasEmpty, signal));
      return this.#open(`/threads/${encodeURIComponent(threadId)}/runs/stream`, place, signal);
    });
  }

  /** Answer a thread's question, or with a map of interrupt ids several, and give the frames of the run that goes on. */
  resume(
    threadId: string,
    answer: unknown,
    options: StreamOptions & { body?: RunBody } = {},
  ): AsyncGenerator<Frame, void, undefined> {
    return this.stream({ ...options.body, thread_id: threadId, resume: answer }, options);
  }

  /** Start a run and wait for its result. A run that failed is a ProblemError. */
  async invoke(body: RunBody, options: StartOptions = {}): Promise<InvokeResult> {
    const named = withRunId(body, options);
    return this.#call(options.signal, (signal) => this.#start('/runs/invoke', named, options, signal));
  }

  /** Stop a run; with `wait`, when the work has really stopped. `keepPartial` leaves what was said in the thread. */
  async cancel(runId: string, options: CallOptions & { wait?: boolean; keepPartial?: boolean } = {}): Promise<Run> {
    const path = `/runs/${encodeURIComponent(runId)}/cancel?wait=${options.wait ?? false}`;
    const body = { keep_partial: options.keepPartial ?? false };
    return this.#call(options.signal, (signal) => this.#post(path, body, signal));
  }

  /** The thread's state, in LangGraph's form. */
  async state<Values = JsonObject>(threadId: string, options: CallOptions = {}): Promise<ThreadState<Values>> {
    const path = `/threads/${encodeURIComponent(threadId)}/state`;
    return this.#call(options.signal, (signal) => this.#request(path, signal && { signal }));
  }

  // -- below -----------------------------------------------------------------------------------------------------

  /** Frames of one connection after the other, until `isLast`, or an answer without content. */
  async *#read(
    place: Place,
    isLast: (frame: Frame) => boolean,
    signal: AbortSignal | undefined,
    open: (signal: AbortSignal) => Promise<Response>,
  ): AsyncGenerator<Frame, void, undefined> {
    for (let failures = 0; ; failures += 1) {
      const watch = new Watch(this.#options.silenceMs ?? 15_000, signal);
      let error: unknown = new Dropped('The connection ended before the run did.');
      try {
        const response = await watch.over(() => open(watch.signal));
        if (response.status === 204) return;
        for await (const message of messagesOf(response, watch)) {
          failures = 0;
          const frame = message && place.take(message);
          if (!frame) continue;
          yield frame;
          if (isLast(frame)) return;
        }
      } catch (thrown) {
        error = thrown;
      } finally {
        watch.close();
      }
      await this.#pause(failures, error, signal);
    }
  }

  /** A request with a whole answer, as often as it takes. */
  async #call<T>(signal: AbortSignal | undefined, request: (signal?: AbortSignal) => Promise<Response>): Promise<T> {
    for (let failures = 0; ; failures += 1) {
      try {
        const response = await request(signal);
        return (await response.json().catch(dropped)) as T;
      } catch (error) {
        await this.#pause(failures, error, signal);
      }
    }
  }

  /** Wait before the next attempt, or throw when there is to be none. */
  async #pause(failures: number, error: unknown, signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted();
    const isTemporary = error instanceof Dropped || (error instanceof ProblemError && error.isTemporary);
    if (!isTemporary) throw error;
    const { retries = 10, retryMs = 250, maxRetryMs = 10_000, onRetry } = this.#options;
    if (failures >= retries) {
      throw new ConnectionLostError(`No connection after ${failures + 1} attempts.`, { cause: error });
    }
    const longest = Math.min(retryMs * 2 ** failures, maxRetryMs);
    const asked = error instanceof ProblemError ? (error.retryAfterSeconds ?? 0) * 1000 : 0;
    const waitMs = asked + longest * (1 - Math.random() / 2);
    onRetry?.({ failures: failures + 1, waitMs, error });
    await sleep(waitMs, signal);
  }

  /** Where to begin on a thread, so that a drop before the first frame loses nothing. Whether there is such a place. */
  async #locate(threadId: string, place: Place, wasEmpty: boolean, signal: AbortSignal): Promise<boolean> {
    const response = await this.#request(`/runs?limit=1000&thread_id=${encodeURIComponent(threadId)}`, { signal });
    const { runs } = (await response.json().catch(dropped)) as { runs: Run[] };
    // newest first; a thread that had no run before has only runs that are to be shown
    const oldest = runs.filter((run) => wasEmpty || run.finished_at === null).at(-1);
    const newest = runs[0];
    if (oldest !== undefined) place.moveTo(oldest.run_id, 0);
    else if (newest !== undefined) place.moveTo(newest.run_id, newest.last_seq);
    return newest !== undefined;
  }

  #log(place: Place, view: View | undefined, signal: AbortSignal): Promise<Response> {
    return this.#open(`/runs/${encodeURIComponent(place.runId ?? '')}/stream${queryOf(view)}`, place, signal);
  }

  #open(path: string, place: Place, signal: AbortSignal): Promise<Response> {
    const headers: Record<string, string> = { Accept: EVENT_STREAM };
    if (place.runId !== null) headers['Last-Event-ID'] = `${place.runId}.${place.seq}`;
    // a browser lets requests for one URL wait for each other, for the sake of its cache
    return this.#request(path, { headers, signal, cache: 'no-store' });
  }

  #start(
    path: string,
    body: RunBody,
    { idempotencyKey }: StartOptions,
    signal: AbortSignal | undefined,
    headers: Record<string, string> = {},
  ): Promise<Response> {
    const key: Record<string, string> = idempotencyKey === undefined ? {} : { 'Idempotency-Key': idempotencyKey };
    return this.#post(path, body, signal, { ...headers, ...key });
  }

  #post(path: string, body: unknown, signal?: AbortSignal, headers: Record<string, string> = {}): Promise<Response> {
    return this.#request(path, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...headers },
      body: JSON.stringify(body),
      ...(signal && { signal }),
    });
  }

  async #request(path: string, init: RequestInit & { headers?: Record<string, string> } = {}): Promise<Response> {
    const { headers = {} } = this.#options;
    const own = typeof headers === 'function' ? await headers() : headers;
    const response = await this.#fetch(this.#baseUrl + path, {
      ...init,
      headers: { ...own, ...init.headers },
    }).catch(dropped);
    if (!response.ok) throw await ProblemError.of(response);
    return response;
  }
}

const EVENT_STREAM = 'text/event-stream';

function dropped(cause: unknown): never {
  throw new Dropped('The connection is gone.', { cause });
}

function withRunId(body: RunBody, { idempotencyKey }: StartOptions): RunBody {
  return body.run_id !== undefined || idempotencyKey !== undefined ? body : { ...body, run_id: newId() };
}

/** A random UUID, on pages without https too, where `crypto.randomUUID` is not. */
function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const digits = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}

function runIdOf(response: Response): string | null {
  return /\/runs\/([^/]+)\/stream$/.exec(response.headers.get('location') ?? '')?.[1] ?? null;
}

function queryOf(view: View = {}): string {
  const query = new URLSearchParams();
  if (view.stream_mode !== undefined) query.set('stream_mode', [view.stream_mode].flat().join(','));
  if (view.subgraphs !== undefined) query.set('subgraphs', String(view.subgraphs));
  if (view.tokens !== undefined) query.set('tokens', JSON.stringify(view.tokens));
  return query.size > 0 ? `?${query}` : '';
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', abort);
      resolve();
    }, ms);
    signal?.addEventListener('abort', abort, { once: true });
  });
}

/** Where a reader is: the run, and the seq of the last frame that was given. */
class Place {
  constructor(
    public runId: string | null = null,
    public seq = 0,
  ) {}

  static at(id: string): Place {
    const dot = id.lastIndexOf('.');
    return new Place(id.slice(0, dot), Number(id.slice(dot + 1)));
  }

  moveTo(runId: string, seq: number): void {
    this.runId = runId;
    this.seq = seq;
  }

  /** The frame of a message, or null when it was given before. */
  take(message: ServerMessage): Frame | null {
    const frame = JSON.parse(message.data) as Frame;
    const runId = message.id.slice(0, message.id.lastIndexOf('.'));
    if (runId === this.runId && frame.seq <= this.seq) return null;
    this.moveTo(runId, frame.seq);
    return frame;
  }
}

/** Ends one connection, when its caller has gone or after a silence; only while something is awaited from it. */
class Watch {
  readonly #controller = new AbortController();
  readonly #silenceMs: number;
  readonly #caller: AbortSignal | undefined;
  readonly #leave = () => this.#controller.abort(this.#caller?.reason);

  constructor(silenceMs: number, caller: AbortSignal | undefined) {
    this.#silenceMs = silenceMs;
    this.#caller = caller;
    caller?.throwIfAborted();
    caller?.addEventListener('abort', this.#leave, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  async over<T>(wait: () => Promise<T>): Promise<T> {
    const silent = () => this.#controller.abort(new Dropped(`Nothing came for ${this.#silenceMs} ms.`));
    const timer = setTimeout(silent, this.#silenceMs);
    try {
      return await wait();
    } finally {
      clearTimeout(timer);
    }
  }

  close(): void {
    this.#caller?.removeEventListener('abort', this.#leave);
    this.#controller.abort();
  }
}

// -- bytes -------------------------------------------------------------------------------------------------------

export interface ServerMessage {
  data: string;
  id: string;
}

/** The messages of a response; null for bytes that complete none, such as a heartbeat. */
async function* messagesOf(response: Response, watch: Watch): AsyncGenerator<ServerMessage | null, void, undefined> {
  const reader = response.body!.getReader();
  const text = new TextDecoder();
  const decoder = new EventStreamDecoder();
  for (;;) {
    const { done, value } = await watch.over(() => reader.read().catch(dropped));
    if (done) return;
    yield null;
    yield* decoder.push(text.decode(value, { stream: true }));
  }
}

/** Server-Sent Events (WHATWG HTML, section 9.2.6) from text in pieces of any size. A torn message is never given. */
export class EventStreamDecoder {
  #rest = '';
  #data: string[] = [];
  #id = '';

  push(piece: string): ServerMessage[] {
    // a CR at the end may be the first half of a CRLF
    const lines = (this.#rest + piece).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop()!;
    return lines.flatMap((line) => this.#line(line));
  }

  #line(line: string): ServerMessage[] {
    if (line === '') return this.#dispatch();
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line)!;
    if (field === 'data') this.#data.push(value!);
    if (field === 'id' && !value!.includes('\0')) this.#id = value!;
    return [];
  }

  #dispatch(): ServerMessage[] {
    const data = this.#data;
    this.#data = [];
    return data.length > 0 ? [{ data: data.join('\n'), id: this.#id }] : [];
  }
}

// -- what frames add up to ---------------------------------------------------------------------------------------

/** The text of each message, from its tokens; text that became void is taken out again. Give it every frame, in order. */
export class Transcript {
  /** In the order in which the messages began. */
  readonly texts = new Map<string, string>();

  /** Whether the frame changed anything. */
  take(frame: Frame): boolean {
    switch (frame.event) {
      case 'token': {
        const { id, content = '' } = frame.data;
        this.texts.set(id, (this.texts.get(id) ?? '') + content);
        return true;
      }
      case 'restart':
      case 'discard':
        return frame.discard.filter((id) => this.texts.delete(id)).length > 0;
      default:
        return false;
    }
  }
}

/** The text of each message by its id. */
export function text(frames: Iterable<Frame>): Map<string, string> {
  const transcript = new Transcript();
  for (const frame of frames) transcript.take(frame);
  return transcript.texts;
}

/** A step of a JSON Patch (RFC 6902), of the three kinds that the server sends. */
export type Operation =
  | { op: 'add' | 'replace'; path: string; value: Json }
  | { op: 'remove'; path: string };

/** The thread's state as the frames of the stream mode `state` tell it. Give it every frame, in order. */
export class StateMirror<State = JsonObject> {
  /** undefined before the first frame. Never changed in place: what is the same in two values is the same object. */
  value: State | undefined = undefined;
  /** A frame was too large to be sent, so `value` is out of date: read `Runstream.state`, or wait for the next run. */
  isStale = false;

  /** Whether the frame changed the value. */
  take(frame: Frame): boolean {
    if (frame.event !== 'state') return false;
    if ('snapshot' in frame.data) {
      this.value = frame.data.snapshot as State;
      this.isStale = false;
      return true;
    }
    if (frame.truncated) this.isStale = true;
    if (this.isStale) return false;
    if (this.value === undefined) throw new PatchError('A patch came before the snapshot: attach from the beginning.');
    this.value = applyPatch(this.value as Json, frame.data.patch) as State;
    return true;
  }
}

/** A patch that does not fit its document. */
export class PatchError extends Error {
  override readonly name = 'PatchError';
}

/** The document after the operations; the one that is given stays as it is. Throws PatchError. */
export function applyPatch(document: Json, patch: readonly Operation[]): Json {
  return patch.reduce(applyOperation, document);
}

function applyOperation(document: Json, operation: Operation): Json {
  const { path } = operation;
  if (path === '') return operation.op === 'remove' ? null : operation.value;
  if (!path.startsWith('/')) throw new PatchError(`${path} is not a JSON pointer.`);
  const keys = path.slice(1).split('/');
  return changed(document, keys.map((key) => key.replaceAll('~1', '/').replaceAll('~0', '~')), operation);
}

function changed(node: Json, [key, ...below]: string[], operation: Operation): Json {
  const missing = () => new PatchError(`${operation.path} does not exist.`);
  if (Array.isArray(node)) {
    const isAddition = operation.op === 'add' && below.length === 0;
    const index = key === '-' && isAddition ? node.length : Number(key);
    if (!/^(0|[1-9]\d*|-)$/.test(key!) || !(index < node.length + (isAddition ? 1 : 0))) throw missing();
    const copy = [...node];
    if (below.length > 0) copy[index] = changed(node[index]!, below, operation);
    else if (operation.op === 'remove') copy.splice(index, 1);
    else copy.splice(index, operation.op === 'add' ? 0 : 1, operation.value);
    return copy;
  }
  if (!isObject(node)) throw missing();
  if (!Object.hasOwn(node, key!) && (operation.op !== 'add' || below.length > 0)) throw missing();
  if (below.length > 0) return { ...node, [key!]: changed(node[key!]!, below, operation) };
  if (operation.op !== 'remove') return { ...node, [key!]: operation.value };
  const { [key!]: _, ...rest } = node;
  return rest;
}
