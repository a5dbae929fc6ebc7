"""What a page runs in the browser, as functions of JavaScript for Playwright's `evaluate`."""

# a page's script is stopped after this, since Playwright waits for ever
IN_TIME = """
const inTime = promise => Promise.race([
  promise, new Promise((_, reject) => setTimeout(() => reject(new Error('nothing for 20 s')), 20000)),
]);
"""

EVENT_SOURCE = f"""url => {{ {IN_TIME}
  return inTime(new Promise(resolve => {{
    const seen = {{texts: [], ids: [], opened: 0, errors: 0}};
    const source = new EventSource(url);
    source.onopen = () => {{ seen.opened += 1; }};
    source.onmessage = message => {{ seen.texts.push(message.data); seen.ids.push(message.lastEventId); }};
    source.onerror = () => {{
      seen.errors += 1;
      if (source.readyState === EventSource.CLOSED) resolve(seen);
    }};
  }}));
}}"""

FETCH = f"""([url, options]) => {{ {IN_TIME}
  return inTime((async () => {{
    try {{
      const response = await fetch(url, options);
      const headers = Object.fromEntries(response.headers);
      return {{status: response.status, headers, text: await response.text()}};
    }} catch (error) {{
      return {{failed: error.name}};
    }}
  }})());
}}"""

# `hidesAt`: at that message the tab is hidden for a moment; the library drops its request then, and sends it anew
FETCH_EVENT_SOURCE = f"""async ([url, body, hidesAt]) => {{ {IN_TIME}
  const {{fetchEventSource}} = await import('/library/index');
  const seen = {{texts: [], ids: [], opened: [], errors: 0}};
  const turn = hidden => {{
    Object.defineProperty(document, 'hidden', {{value: hidden, configurable: true}});
    document.dispatchEvent(new Event('visibilitychange'));
  }};
  await inTime(fetchEventSource(url, {{
    method: 'POST',
    headers: {{'Content-Type': 'application/json'}},
    body: JSON.stringify(body),
    async onopen(response) {{ seen.opened.push(response.status); }},
    onmessage(message) {{
      seen.texts.push(message.data);
      seen.ids.push(message.id);
      if (seen.texts.length !== hidesAt) return;
      turn(true);
      setTimeout(() => turn(false), 100);
    }},
    onerror() {{ seen.errors += 1; }},
  }}));
  return seen;
}}"""
