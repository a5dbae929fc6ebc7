// The `eventsource` package: it comes back by itself after every end, until a 204 closes it.
// argv: {url}. Prints {texts, ids, opened, code}.
import { EventSource } from 'eventsource';

const { url } = JSON.parse(process.argv[2]);
const texts = [];
const ids = [];
let opened = 0;
const source = new EventSource(url);
source.onopen = () => {
  opened += 1;
};
source.onmessage = (message) => {
  texts.push(message.data);
  ids.push(message.lastEventId);
};
source.onerror = (error) => {
  if (source.readyState !== source.CLOSED) return;
  console.log(JSON.stringify({ texts, ids, opened, code: error.code ?? null }));
};
