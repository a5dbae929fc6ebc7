// What people write by hand: fetch, split on blank lines, JSON.parse. After a drop it goes on where it was.
// argv: {url, body, attempts}. Prints {texts, others, requests}.
const { url, body, attempts = 1 } = JSON.parse(process.argv[2]);
const texts = [];
const others = [];
const statuses = [];
let location = null;
let seq = 0;

async function read(response) {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const piece of response.body) {
    const blocks = (rest + decoder.decode(piece, { stream: true })).split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      if (!block.startsWith('data: ')) {
        others.push(block);
        continue;
      }
      const frame = JSON.parse(block.slice('data: '.length));
      texts.push(block.slice('data: '.length));
      seq = frame.seq;
    }
  }
  if (rest !== '') others.push(rest);
}

function connect() {
  if (location === null) {
    return fetch(url + '/runs/stream', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
  }
  return fetch(new URL(location, url), { headers: { 'last-event-id': String(seq) } });
}

for (let attempt = 0; attempt < attempts; attempt += 1) {
  const response = await connect();
  statuses.push(response.status);
  location ??= response.headers.get('location');
  if (response.status !== 200) break;
  try {
    await read(response);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // "terminated": the connection is gone
  }
}
console.log(JSON.stringify({ texts, others, statuses }));
