// What clients/js makes of patches, bytes and frames, without a server. Reads JSON from standard input, prints JSON.
import { text as read } from 'node:stream/consumers';
import { applyPatch, EventStreamDecoder, PatchError, StateMirror, text } from '../../clients/js/dist/runstream.js';

const { patches, streams, mirrors, texts } = JSON.parse(await read(process.stdin));

console.log(
  JSON.stringify({
    patches: patches.map(({ document, patch }) => {
      const before = JSON.stringify(document);
      try {
        const value = applyPatch(document, patch);
        return { value, untouched: JSON.stringify(document) === before };
      } catch (error) {
        if (!(error instanceof PatchError)) throw error;
        return { refused: true };
      }
    }),
    streams: streams.map((pieces) => {
      const decoder = new EventStreamDecoder();
      return pieces.flatMap((piece) => decoder.push(piece)).map(({ data, id }) => [data, id]);
    }),
    mirrors: mirrors.map((frames) => {
      const mirror = new StateMirror();
      const changes = frames.map((frame) => mirror.take(frame));
      return { changes, value: mirror.value, is_stale: mirror.isStale };
    }),
    texts: texts.map((frames) => Object.fromEntries(text(frames))),
  }),
);
