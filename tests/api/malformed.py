"""Requests as no client should make them: hand-made ones of each kind, and good ones with bytes that are not."""

import base64
import itertools
import random
from collections.abc import Iterator
from typing import Final

DEEP: Final = 100_000
HOST: Final = b"Host: 127.0.0.1\r\n"
JSON: Final = b"Content-Type: application/json\r\n"

JSON_ROUTES: Final = (
    b"POST /runs/stream",
    b"POST /runs/invoke",
    b"POST /runs/known/cancel",
    b"POST /threads",
    b"POST /threads/search",
    b"POST /threads/count",
    b"PATCH /threads/known",
    b"POST /threads/known/state",
    b"POST /threads/known/state/checkpoint",
    b"POST /threads/known/history",
    b"POST /runs/token",
)
GETS: Final = (
    b"/runs/known",
    b"/runs/known/stream",
    b"/runs/known/events",
    b"/runs",
    b"/threads/known",
    b"/threads/known/state",
    b"/threads/known/history",
    b"/graphs/known",
    b"/runs/stream",
)

# what a body may be instead of an object that means something
BODIES: Final = (
    b"{",
    b"nul",
    b"null",
    b"[]",
    b"[1,2,3]",
    b'"text"',
    b"17",
    b"NaN",
    b'{"input": NaN}',
    b'{"input": Infinity}',
    b'{"input": {"n": 1e999}}',
    b'{"input": {"n": -1e999}}',
    b'{"input": {"n": %b}}' % (b"9" * 5000),
    b'{"input": {"n": 18446744073709551616}}',
    b'{"timeout_seconds": 1e308}',
    b'{"timeout_seconds": -0.0}',
    b'{"config": {"recursion_limit": 9223372036854775808}}',
    b'{"config": {"recursion_limit": 99999999999999999999999999}}',
    b'{"limit": 99999999999999999999, "offset": 99999999999999999999}',
    b'{"input": {"s": "\\ud800"}}',
    b'{"input": {"s": "\\udc00\\ud800"}}',
    b'{"thread_id": "\\ud800"}',
    b'{"graph": "\\ud83d"}',
    b'{"message": "\\u0000"}',
    b'{"metadata": {"\\ud800": 1}}',
    b'{"input": {"s": "\x00"}}',
    b'{"input": {"s": "\xff\xfe"}}',
    b"\xef\xbb\xbf{}",
    '{"input": {}}'.encode("utf-16"),
    '{"input": {}}'.encode("utf-32"),
    b'{"graph": "steps", "graph": "talk", "input": {}}',
    b'{"input": {}, "input": null}',
    b'{"input": {}} {"input": {}}',
    b'{"input": {}}\x00',
    b"{'input': {}}",
    b'{"input": {},}',
    b"// a comment\n{}",
    b"[" * DEEP,
    b'{"input":' * DEEP,
    b"[" * DEEP + b"]" * DEEP,
    b'{"input": %b%b}' % (b"[" * 190, b"]" * 190),
    b'{"resume": %b%b}' % (b'{"a":' * 198, b"1" + b"}" * 198),
    b'{"input": {%b}}' % b",".join(b'"k%d":%d' % (n, n) for n in range(20_000)),
    b'{"input": [%b]}' % b",".join([b"0"] * 100_000),
    b'{"%b": 1}' % (b"k" * 500_000),
    b'{"stream_mode": [%b]}' % b",".join([b'"updates"'] * 10_000),
    b'{"interrupt_before": [%b]}' % b",".join([b'"x"'] * 10_000),
    b'{"tokens": {"pattern": "%b"}}' % (b"(" * 1000),
    b'{"tokens": {"pattern": "(a+)+$", "min_length": -1}}',
    b'{"tokens": {"flush": {"ms": 1e400}}}',
    b'{"command": {"goto": {"node": 1}, "update": [[[]]], "resume": {"%b": 1}}}' % (b"0" * 32),
    b'{"command": {"goto": ""}}',
    b'{"resume": {"%b": 1}, "checkpoint_id": "\\u0000"}' % (b"f" * 32),
    b'{"supersteps": [{"updates": [{"values": 1, "as_node": ""}]}]}',
    b'{"values": {"log": 1}, "as_node": "__start__"}',
    b'{"values": null, "as_node": "\\ud800"}',
    b'{"checkpoint": {"checkpoint_ns": "a|b:c|", "checkpoint_map": {"": ""}}}',
    b'{"checkpoint": {"checkpoint_id": "1f1e5cbc", "checkpoint_ns": "child:x"}}',
    b'{"extract": {"a": "values.a[999999999].b[-999999999]"}, "limit": 1000}',
    b'{"before": {"configurable": {"checkpoint_id": []}}}',
    b'{"before": {"checkpoint_id": "\\u0000"}}',
    b'{"metadata": {"a": {"b": [1]}}, "status": "idle", "ids": [""]}',
    b'{"ids": [%b]}' % b",".join([b'"x"'] * 40_000),
    b'{"run_id": "00000000-0000-0000-0000-00000000000\xc3\xa9"}',
    b'{"message": 1, "input": {}, "resume": 1, "command": {}}',
    b"--boundary\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--boundary--",
)

# what an address may have instead of an id or a number
PLACES: Final = (
    b"%00",
    b"%ff%fe",
    b"%ed%a0%80",
    b"%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    b"..%2f",
    b"%",
    b"%zz",
    b"'%20OR%201=1--",
    b"a" * 5000,
    b"?after=-1",
    b"?after=99999999999999999999999",
    b"?after=1e5",
    b"?after=%00",
    b"?limit=99999999999999999999999&wait_seconds=nan",
    b"?limit=1&wait_seconds=-inf",
    b"?wait_seconds=1e999",
    b"?cursor=99999999999999999999999999",
    b"?cursor=%00",
    b"?thread_id=%ff&status=%ff",
    b"?tokens=%5b%5b%5b",
    b"?tokens=" + b"%5b" * 3000,
    b"?stream_mode=,,,&subgraphs=maybe",
    b"?" + b"&".join([b"a=1"] * 3000),
    b"?before=" + b"x" * 300,
    b"?=&&=&;;",
)
HEADERS: Final = (
    b"Last-Event-ID: \xff\xfe\r\n",
    b"Last-Event-ID: .\r\n",
    b"Last-Event-ID: x.99999999999999999999999999\r\n",
    b"Last-Event-ID: x.-1\r\n",
    b"Last-Event-ID: x.\xc2\xb2\r\n",
    b"Last-Event-ID: %b\r\n" % (b"9" * 6000),
    b"Idempotency-Key: \xff\r\n",
    b"Idempotency-Key: %b\r\n" % (b"k" * 300),
    b"Accept: %b\r\n" % (b"text/event-stream;q=," * 500),
    b"Accept: text/event-stream; q=\xff\r\n",
    b"Authorization: Bearer \xff\xfe\r\n",
    b"Origin: http://[::1\r\n",
    b"Origin: \xff://\r\n",
    b"Sec-Fetch-Site: \xff\r\n",
    b"Prefer: \xff\r\n",
    b"Content-Type: application/json; charset=\xff\r\n",
    b"Cookie: %b\r\n" % (b"a=b; " * 2000),
    b"X-Forwarded-For: \xff\r\n",
    b"Expect: 100-continue\r\n",
    b"Expect: the impossible\r\n",
    b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAA\r\n",
    b"Range: bytes=0-1,2-3\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"Content-Encoding: gzip\r\n",
    b"".join(b"X-%d: y\r\n" % n for n in range(500)),
)
FRAGMENTS: Final = (
    b"",
    b"\r\n" * 100,
    b"\x00" * 100,
    b"\xff" * 1000,
    b"GET",
    b"GET /",
    b"GET /health",
    b"GET /health HTTP/1.1",
    b"GET /health HTTP/1.1\r\n",
    b"GET /health HTTP/1.1\r\nHost: x",
    b"GET /health HTTP/9.9\r\n\r\n",
    b"GET /health HTTP/1.1 HTTP/1.1\r\n\r\n",
    b"GET  /health  HTTP/1.1\r\n\r\n",
    b"GET /hea\x00lth HTTP/1.1\r\n\r\n",
    b"GET \xff HTTP/1.1\r\n\r\n",
    b"GET http://[::1/ HTTP/1.1\r\n\r\n",
    b"GET http://elsewhere:99999/health HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /health HTTP/0.9\r\n\r\n",
    b"get /health HTTP/1.1\r\n\r\n",
    b"BREW /health HTTP/1.1\r\n\r\n",
    b"CONNECT /health HTTP/1.1\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /health HTTP/1.1\r\nno colon\r\n\r\n",
    b"GET /health HTTP/1.1\r\n: no name\r\n\r\n",
    b"GET /health HTTP/1.1\r\nX: a\r\n folded\r\n\r\n",
    b"GET /health HTTP/1.1\r\nX: \x00\r\n\r\n",
    b"GET /health HTTP/1.1\nHost: x\n\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    b"GET /health HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\n",
    b"GET /%b HTTP/1.1\r\n\r\n" % (b"a" * 200_000),
    b"GET /health HTTP/1.1\r\nX: %b\r\n\r\n" % (b"a" * 200_000),
    b"GET /health HTTP/1.1\r\n%b\r\n" % (b"X: y\r\n" * 20_000),
)
START: Final = b"POST /runs/stream HTTP/1.1\r\n" + HOST + JSON
LENGTHS: Final = (
    b"Content-Length: -1\r\n\r\n{}",
    b"Content-Length: +2\r\n\r\n{}",
    b"Content-Length: 0x2\r\n\r\n{}",
    b"Content-Length: two\r\n\r\n{}",
    b"Content-Length: 2, 2\r\n\r\n{}",
    b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    b"Content-Length: \r\n\r\n{}",
    b"Content-Length: 99999999999999999999999999999\r\n\r\n{}",
    b"Content-Length: 18446744073709551615\r\n\r\n{}",
    b"Content-Length: 1\r\n\r\n{}",
    b"Content-Length: 50\r\n\r\n{}",
    b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}",
    b"Transfer-Encoding: chunked, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked, gzip\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"Transfer-Encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}",
    b"Transfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n{}",
    b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\n",
    b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n2;%b\r\n{}\r\n0\r\n\r\n" % (b"x=y;" * 5000),
    b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n%b\r\n" % (b"Trailer: x\r\n" * 5000),
    b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 3000 + b"0\r\n\r\n",
)

HANDSHAKE: Final = (
    b"GET /ws HTTP/1.1\r\n%bUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: %b\r\n\r\n" % (HOST, base64.b64encode(bytes(16)))
)
FRAMES: Final = (
    b"\x81\x05hello",  # not masked
    b"\x83\x80\x00\x00\x00\x00",  # an opcode that nobody has
    b"\xf1\x80\x00\x00\x00\x00",  # reserved bits
    b"\x09\x80\x00\x00\x00\x00",  # a control frame in pieces
    b"\x89\xfe\x00\x80\x00\x00\x00\x00" + bytes(128),  # a control frame that is too long
    b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00",  # 2**64 - 1 bytes to come
    b"\x81\xff\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00",  # 4 GiB to come
    b"\x80\x80\x00\x00\x00\x00",  # goes on with nothing
    b"\x81\x82\x00\x00\x00\x00\xff\xfe",  # text that is not UTF-8
    b"\x88\x81\x00\x00\x00\x00\x03",  # half a code
    b"\x88\x82\x00\x00\x00\x00\x00\x01",  # a code that nobody has
    b"\x01\x80\x00\x00\x00\x00" * 2000,  # begins again and again
    b"\x82\x84\x00\x00\x00\x00\x00\x01\x02\x03" * 10,  # bytes where text is spoken
    b"\x81\x82\x00\x00\x00\x00{}" * 10,
    b"\x89\x80\x00\x00\x00\x00" * 5000,  # pings
    b"\x81\x85\x00",
)
BAD_HANDSHAKES: Final = (
    HANDSHAKE.replace(b": 13", b": 12"),
    HANDSHAKE.replace(b"Sec-WebSocket-Key", b"X"),
    HANDSHAKE.replace(b"GET", b"POST"),
    HANDSHAKE.replace(b"/ws", b"/health"),
    HANDSHAKE.replace(b"Upgrade: websocket", b"Upgrade: nonsense"),
    HANDSHAKE.replace(
        b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99\r\n\r\n"
    ),
    HANDSHAKE.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: \xff\r\n\r\n"),
    HANDSHAKE[:-2],
)
GOOD: Final = (
    START + b'Content-Length: 30\r\n\r\n{"graph":"steps","input":{}}  ',
    START + b'Transfer-Encoding: chunked\r\n\r\n1c\r\n{"graph":"steps","input":{}}\r\n0\r\n\r\n',
    b"GET /runs/known/events?after=1&limit=5 HTTP/1.1\r\n" + HOST + b"Accept: text/event-stream\r\n\r\n",
    b"GET /threads/known/state?subgraphs=true HTTP/1.1\r\n" + HOST + b"Last-Event-ID: known.1\r\n\r\n",
    HANDSHAKE + b'\x81\x90\x00\x00\x00\x00{"type": "ping"}',
)


def posted(route: bytes, body: bytes) -> bytes:
    return b"%b HTTP/1.1\r\n%b%bContent-Length: %d\r\n\r\n%b" % (route, HOST, JSON, len(body), body)


def hand_made() -> Iterator[bytes]:
    yield from FRAGMENTS
    yield from (START + length for length in LENGTHS)
    yield from (posted(route, body) for route in JSON_ROUTES for body in BODIES)
    yield from (b"GET %b%b HTTP/1.1\r\n%b\r\n" % (path, place, HOST) for path in GETS for place in PLACES)
    yield from (b"GET %b HTTP/1.1\r\n%b%b\r\n" % (path, HOST, header) for path in GETS for header in HEADERS)
    yield from (posted(b"POST /runs/stream", b"{}").replace(JSON, JSON + header) for header in HEADERS)
    yield from BAD_HANDSHAKES
    yield from (HANDSHAKE + frame for frame in FRAMES)
    yield b"".join(b"GET /runs/%d HTTP/1.1\r\n%b\r\n" % (n, HOST) for n in range(200))  # in one go
    yield posted(b"POST /threads/search", b"{}") * 50 + b"GARBAGE\r\n\r\n" + posted(b"POST /threads/count", b"{}")


def spoilt(seed: int) -> Iterator[bytes]:
    """Good requests in which bytes are changed, left out, doubled, or cut off."""
    chance = random.Random(seed)
    for request in itertools.cycle(GOOD):
        found = bytearray(request)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(found) + 1)
            match chance.randrange(5):
                case 0:
                    found[place : place + 1] = bytes([chance.randrange(256)])
                case 1:
                    del found[place : place + chance.randint(1, 5)]
                case 2:
                    found[place:place] = bytes(chance.choices(b'\x00\r\n :;{}[]"\\\xff09az', k=chance.randint(1, 9)))
                case 3:
                    found[place:place] = found[place : place + 40]
                case _:
                    del found[place:]
        yield bytes(found)
