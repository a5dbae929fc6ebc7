"""Tokens of an issuer: whose, for whom, signed by which key, and until when."""

import hashlib
import hmac
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import app.auth.jwt as own
from app.auth.jwt import Jwts, open_keys
from app.errors import AuthUnavailable, ConfigInvalid, Unauthorized
from tests.auth.loop import ran

ISSUER, AUDIENCE = "https://issuer.example", "runstream"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = Ed25519PrivateKey.generate()


def jwk(key: Any, algorithm: str, kid: str) -> dict[str, Any]:
    made = jwt.get_algorithm_by_name(algorithm)
    found: dict[str, Any] = made.to_jwk(key.public_key(), as_dict=True)
    return {**found, "kid": kid, "use": "sig", "alg": algorithm}


KEYS = [jwk(RSA_KEY, "RS256", "r"), jwk(EC_KEY, "ES256", "e"), jwk(ED_KEY, "EdDSA", "d")]
SYMMETRIC = {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "kid": "s", "alg": "HS256"}


def token(key: Any = RSA_KEY, algorithm: str = "RS256", kid: str | None = "r", **claims: Any) -> str:
    whole = {"sub": "ada", "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60, **claims}
    given = {name: value for name, value in whole.items() if value is not ...}
    return jwt.encode(given, key, algorithm, headers={} if kid is None else {"kid": kid})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "keys.json"
    found.write_text(json.dumps({"keys": [*KEYS, SYMMETRIC]}))
    return found


@pytest.fixture
def jwts(path: Path) -> Jwts:
    return Jwts(open_keys(str(path)), issuer=ISSUER, audience=AUDIENCE)


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"), [(RSA_KEY, "RS256", "r"), (EC_KEY, "ES256", "e"), (ED_KEY, "EdDSA", "d")]
)
@pytest.mark.parametrize("has_kid", [True, False])
def test_a_token_gives_its_subject_until_it_expires(
    jwts: Jwts, key: Any, algorithm: str, kid: str, has_kid: bool
) -> None:
    expires_at = int(time.time()) + 60
    found = ran(jwts.identify(token(key, algorithm, kid if has_kid else None, exp=expires_at)))

    assert (found.owner, found.expires_at) == ("ada", expires_at)


PUBLIC = RSA_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

REFUSED: dict[str, Callable[[], str]] = {
    "expired": lambda: token(exp=time.time() - 1),
    "no end": lambda: token(exp=...),
    "an end that is no time": lambda: token(exp="soon"),
    "not yet": lambda: token(nbf=time.time() + 600),
    "no subject": lambda: token(sub=...),
    "an empty subject": lambda: token(sub=""),
    "a subject that is no text": lambda: token(sub=5),
    "another issuer": lambda: token(iss="https://other.example"),
    "no issuer": lambda: token(iss=...),
    "another audience": lambda: token(aud="other"),
    "no audience": lambda: token(aud=...),
    "another key": lambda: token(OTHER_KEY),
    "an unknown key": lambda: token(OTHER_KEY, kid="x"),
    "no signature": lambda: jwt.encode({"sub": "ada", "exp": time.time() + 60}, "", "none"),
    "the signature is cut off": lambda: token().rpartition(".")[0] + ".",
    "signed with the public key": lambda: forged(PUBLIC),
    "a symmetric key of the set": lambda: token(b"secret-secret-secret-secret-secret", "HS256", "s"),
    "another algorithm of the same key": lambda: token(RSA_KEY, "RS512"),
    "rubbish": lambda: "a.b.c",
    "deep rubbish": lambda: f"{jwt.utils.base64url_encode(b'[' * 5000).decode()}.e30.e30",
    "an end beyond all numbers": lambda: raw({"sub": "ada", "iss": ISSUER, "aud": AUDIENCE}, '"exp":1e999'),
}  # fmt: skip


def forged(secret: bytes) -> str:
    """HS256 with what everybody may know; the library does not sign with it, so by hand."""
    head = jwt.utils.base64url_encode(b'{"alg":"HS256","kid":"r","typ":"JWT"}')
    body = jwt.utils.base64url_encode(
        json.dumps({"sub": "ada", "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60}).encode()
    )
    signature = hmac.new(secret, head + b"." + body, hashlib.sha256).digest()
    return b".".join([head, body, jwt.utils.base64url_encode(signature)]).decode()


def raw(claims: dict[str, Any], more: str) -> str:
    payload = json.dumps(claims)[:-1] + f",{more}}}"
    return jwt.api_jws.encode(payload.encode(), RSA_KEY, "RS256", headers={"kid": "r"})


@pytest.mark.parametrize("why", REFUSED)
def test_any_other_token_is_nobodys(jwts: Jwts, why: str) -> None:
    with pytest.raises(Unauthorized):
        ran(jwts.identify(REFUSED[why]()))


def test_without_an_audience_set_a_token_for_somebody_is_not_for_us(path: Path) -> None:
    anybody = Jwts(open_keys(str(path)), issuer="", audience="")

    assert ran(anybody.identify(token(aud=..., iss=...))).owner == "ada"
    with pytest.raises(Unauthorized):
        ran(anybody.identify(token(iss=...)))


def test_keys_in_a_file_can_be_changed(jwts: Jwts, path: Path) -> None:
    ran(jwts.identify(token()))
    path.write_text(json.dumps({"keys": [jwk(OTHER_KEY, "RS256", "new")]}))

    assert ran(jwts.identify(token(OTHER_KEY, kid="new"))).owner == "ada"
    with pytest.raises(Unauthorized):
        ran(jwts.identify(token()))
    path.unlink()
    with pytest.raises(AuthUnavailable):
        ran(jwts.identify(token(OTHER_KEY, kid="new")))


@pytest.mark.parametrize("text", [None, "", "{}", "[]", '{"keys": []}', '{"keys": [{"kty": "oct"}]}'])
def test_a_file_that_is_no_set_of_keys_is_said_in_a_sentence(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "keys.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigInvalid, match=r"RUNSTREAM_JWT__JWKS: .*keys\.json"):
        open_keys(str(path))


class Site:
    """A server of keys: what it gives, how often it was asked, and whether it answers."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = KEYS
        self.status = 200
        self.count = 0
        site = self

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.count += 1
                self.send_response(site.status)
                self.send_header("Location", "/other")
                self.end_headers()
                self.wfile.write(json.dumps({"keys": site.keys}).encode())

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


@pytest.fixture
def remote(site: Site) -> Jwts:
    return Jwts(open_keys(site.url), issuer=ISSUER, audience=AUDIENCE)


def test_keys_of_a_url_are_fetched_once(site: Site, remote: Jwts) -> None:
    for _ in range(5):
        assert ran(remote.identify(token())).owner == "ada"
    assert site.count == 1


def test_a_flood_of_unknown_keys_is_no_flood_of_fetches(site: Site, remote: Jwts) -> None:
    for number in range(20):
        with pytest.raises(Unauthorized):
            ran(remote.identify(token(OTHER_KEY, kid=f"x{number}")))
    assert site.count == 1


def test_a_new_key_is_looked_for(site: Site, remote: Jwts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "COOLDOWN_SECONDS", 0)
    ran(remote.identify(token()))
    site.keys = [jwk(OTHER_KEY, "RS256", "new")]

    assert ran(remote.identify(token(OTHER_KEY, kid="new"))).owner == "ada"
    with pytest.raises(Unauthorized):
        ran(remote.identify(token()))


@pytest.mark.parametrize("status", [500, 404, 302])
def test_keys_that_can_not_be_had_are_no_answer_and_not_asked_for_again(site: Site, remote: Jwts, status: int) -> None:
    site.status = status
    for _ in range(5):
        with pytest.raises(AuthUnavailable):
            ran(remote.identify(token()))
    assert site.count == 1


def test_a_server_of_keys_that_is_away_is_asked_again_later(
    site: Site, remote: Jwts, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.status = 500
    with pytest.raises(AuthUnavailable):
        ran(remote.identify(token()))
    site.status = 200
    monkeypatch.setattr(own, "COOLDOWN_SECONDS", 0)

    assert ran(remote.identify(token())).owner == "ada"
