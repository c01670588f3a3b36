"""Tokens of a real issuer over HTTP, and the guard that asks for them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import socket
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm
from pydantic import ValidationError

from cluster.store.storage import Storage
from jobs.spec import ServingSpec
from serve.http import callers
from serve.http import issuer as issuer_
from serve.http.callers import Callers, Either, RefusedError
from serve.http.issuer import Issuer, KeysAwayError

from .issuing import LocalIssuer, issuer, pair, part, public
from .test_app import PREDICT, Server
from .test_guard import BOUNDS, ONE, Front


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalIssuer]:
    monkeypatch.setattr(issuer_, "_PATIENCE", 60.0)  # of a busy machine, on which five seconds are soon over
    with issuer() as made:
        yield made


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def who(known: Issuer, token: str) -> issuer_.Bearer:
    return asyncio.run(known.who(token))


def refusal(known: Issuer, token: str) -> str:
    with pytest.raises(RefusedError) as caught:
        who(known, token)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["RS256", "PS256", "ES256", "ES384", "EdDSA"])
def test_a_token_says_whose_it_is(local: LocalIssuer, kind: str) -> None:
    key = pair(kind)
    local.keys = [public(key, "one", kind)]
    found = who(Issuer(local.spec(algorithms=[kind])), local.token(key, kind))
    assert (found.name, found.models) == ("the shop", None)
    assert found.may_ask("anything")


def test_what_is_wrong_with_a_token_is_said(local: LocalIssuer) -> None:
    known, now = Issuer(local.spec(leeway_seconds=5)), time.time()
    stranger = pair("RS256")
    for token, said in [
        (local.token(exp=now - 60), "it has expired"),
        (local.token(nbf=now + 60), "it is not good yet"),
        (local.token(aud="another"), "it is for another audience"),
        (local.token(aud=["x", "y"]), "it is for another audience"),
        (local.token(iss="https://elsewhere.example"), "it is another issuer's"),
        (local.token(iss=local.url + "/"), "it is another issuer's"),
        (local.token(exp=None), "exp, iss and aud are needed"),
        (local.token(aud=None), "exp, iss and aud are needed"),
        (local.token(iss=None), "exp, iss and aud are needed"),
        (local.token(stranger), "its signature is wrong"),
        (local.token(kind="RS512"), "its algorithm is not allowed"),
        (local.token(kind="PS256"), "its algorithm is not allowed"),
        (local.token(headers={"kid": "../../etc/passwd"}), "its key is none of the issuer's"),
        ("a" * 20_000, "it is too long"),
    ]:
        assert refusal(known, token) == f"the token is not good: {said}"
    assert who(known, local.token(exp=now - 1)).name == "the shop"  # within the leeway
    assert who(known, local.token(aud=["x", "rehone"])).name == "the shop"


def signed_with(secret: bytes, header: dict[str, Any], claims: dict[str, Any]) -> str:
    """HS256 by hand: the library refuses to sign with a public key."""
    said = f"{part(json.dumps(header).encode())}.{part(json.dumps(claims).encode())}"
    return f"{said}.{part(hmac.new(secret, said.encode(), hashlib.sha256).digest())}"


def test_algorithms_are_not_the_tokens_to_choose(local: LocalIssuer) -> None:
    known, one = Issuer(local.spec()), local.private.public_key()
    forms = [(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), (Encoding.PEM, PublicFormat.PKCS1)]
    forms.append((Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    secrets = [one.public_bytes(*form) for form in forms] + [json.dumps(local.keys[0]).encode(), b""]
    for secret in secrets:
        token = signed_with(secret, {"alg": "HS256", "typ": "JWT", "kid": "one"}, local.claims())
        assert refusal(known, token) == "the token is not good: its algorithm is not allowed"
    for name in ("none", "None", "NONE"):
        token = signed_with(b"", {"alg": name, "kid": "one"}, local.claims())
        for unsigned in (token, token.rsplit(".", 1)[0] + "."):
            assert "not good" in refusal(known, unsigned)
    assert who(known, local.token()).name == "the shop"


def test_a_shared_secret_in_a_jwks_verifies_nothing(local: LocalIssuer) -> None:
    secret = b"0123456789abcdef0123456789abcdef"
    shared = {"kty": "oct", "kid": "shared", "k": base64.urlsafe_b64encode(secret).rstrip(b"=").decode()}
    local.keys += [
        shared,
        {"kty": "RSA", "kid": "broken"},
        "no key",
        public(pair("RS256"), "enc", "RS256") | {"use": "enc"},
    ]
    known = Issuer(local.spec())
    for kid in ("shared", "broken", "enc"):
        assert "none of the issuer's" in refusal(
            known, signed_with(secret, {"alg": "HS256", "kid": kid}, local.claims())
        )
    assert who(known, local.token()).name == "the shop"


def test_keys_rotate_without_a_restart(local: LocalIssuer) -> None:
    clock = Clock()
    known = Issuer(local.spec(), clock=clock)
    assert who(known, local.token()).name == "the shop"
    second = pair("ES256")
    local.keys = [public(second, "two", "ES256")]
    new = local.token(second, "ES256", {"kid": "two"})
    assert "none of the issuer's" in refusal(known, new)  # asked a moment ago
    assert local.asked == 1
    clock.now += 11
    assert who(known, new).name == "the shop"
    assert "none of the issuer's" in refusal(known, local.token())
    assert local.asked == 2


def test_tokens_of_made_up_keys_do_not_flood_the_issuer(local: LocalIssuer) -> None:
    clock = Clock()
    known = Issuer(local.spec(), clock=clock)

    async def flood() -> list[object]:
        tokens = [local.token(headers={"kid": f"made up {n}"}) for n in range(50)]
        return await asyncio.gather(*(known.who(token) for token in tokens), return_exceptions=True)

    assert all(isinstance(made, RefusedError) for made in asyncio.run(flood()))
    assert local.asked == 1
    clock.now += 11
    asyncio.run(flood())
    assert local.asked == 2


def test_while_the_issuer_is_away_known_keys_go_on(local: LocalIssuer, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    known = Issuer(local.spec(), clock=clock)
    who(known, local.token())
    local.away = True
    clock.now += 301

    async def meanwhile() -> None:
        await known.who(local.token())
        assert known._asking is not None  # beside the request
        await known._asking

    asyncio.run(meanwhile())
    assert local.asked == 2
    assert who(known, local.token()).name == "the shop"
    with pytest.raises(KeysAwayError, match=r"^the keys of the tokens' issuer cannot be read now \(try again\)$"):
        who(known, local.token(headers={"kid": "new"}))
    # To whoever runs the server, and to nobody else, is said where and why.
    assert f"the keys of {local.url} could not be read" in caplog.text
    assert f"{local.url}/jwks.json answered 500" in caplog.text
    clock.now += 80_000  # of a day
    assert who(known, local.token()).name == "the shop"
    local.away, clock.now = False, clock.now + 11
    assert "none of the issuer's" in refusal(known, local.token(headers={"kid": "new"}))


@pytest.mark.parametrize("every", [100, 290, 2000, 9000])
def test_keys_of_an_issuer_that_stays_away_are_not_good_for_ever(local: LocalIssuer, every: int) -> None:
    """However often somebody asks meanwhile; and good again once it is back."""
    clock = Clock()
    known = Issuer(local.spec(away_seconds=7200), clock=clock)
    token = local.token(exp=time.time() + 200_000)

    async def ask() -> None:
        try:
            await known.who(token)
        finally:
            if known._asking is not None:
                await known._asking

    asyncio.run(ask())
    read, local.away = clock.now, True
    while clock.now + every <= read + 7200:
        clock.now += every
        asyncio.run(ask())
    clock.now = max(clock.now + every, read + 7201)
    for _ in range(3):
        with pytest.raises(KeysAwayError, match="cannot be read now"):
            asyncio.run(ask())
        clock.now += 5
    local.away = False
    clock.now += 11  # the issuer is not asked more often
    asyncio.run(ask())


def test_a_key_that_the_issuer_takes_back_is_worth_nothing_in_five_minutes(local: LocalIssuer) -> None:
    clock = Clock()
    known = Issuer(local.spec(), clock=clock)
    who(known, local.token())
    local.keys, clock.now = [], clock.now + 301

    async def looks() -> None:
        await known.who(local.token())
        await asyncio.sleep(0.2)
        await known.who(local.token())

    with pytest.raises(RefusedError):
        asyncio.run(looks())


def test_a_key_that_was_taken_back_while_nobody_asked_is_worth_nothing(local: LocalIssuer) -> None:
    clock = Clock()
    known = Issuer(local.spec(), clock=clock)
    who(known, local.token())
    local.keys, clock.now = [], clock.now + 3600
    assert "none of the issuer's" in refusal(known, local.token())


def test_an_issuer_that_nobody_can_reach_is_said_in_time(local: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuer_, "_PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        silent_url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        for url in (silent_url, "http://127.0.0.1:1/", "https://nowhere.invalid/", "https://no url/"):
            spec = local.spec().model_copy(update={"jwks_url": url})
            with pytest.raises(KeysAwayError):
                who(Issuer(spec), local.token())


def test_keys_are_taken_from_no_other_address(local: LocalIssuer) -> None:
    """Neither where the issuer's answer leads, nor where a token says, nor out of the token itself."""
    with issuer() as other:
        local.moved = f"{other.url}/jwks.json"
        with pytest.raises(KeysAwayError):
            who(Issuer(local.spec()), local.token())
        local.moved, stranger = None, pair("RS256")
        other.keys = [public(stranger, "theirs", "RS256")]
        known = Issuer(local.spec())
        for kid in ("theirs", "one"):
            own = {"kid": kid, "jku": f"{other.url}/jwks.json", "x5u": other.url, "jwk": other.keys[0]}
            said = "its signature is wrong" if kid == "one" else "its key is none of the issuer's"
            assert refusal(known, local.token(stranger, headers=own)) == f"the token is not good: {said}"
        assert other.asked == 0


def test_a_key_that_is_not_to_be_relied_on_verifies_nothing(
    local: LocalIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    weak, told, curve = rsa.generate_private_key(65537, 1024), pair("ES256"), pair("ES384")
    local.keys += [
        public(weak, "weak", "RS256"),
        ECAlgorithm.to_jwk(told, as_dict=True) | {"kid": "told"},
        public(curve, "curve", "ES384") | {"alg": "ES256"},
        public(pair("RS256"), "list", "RS256") | {"kid": ["list"]},
    ]
    known = Issuer(local.spec())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own opinion of the weak one
        tokens = [local.token(weak, headers={"kid": "weak"}), local.token(told, "ES256", {"kid": "told"})]
    tokens.append(local.signed({"alg": "RS256", "kid": "curve"}, local.claims()))
    for token in tokens:
        assert "none of the issuer's" in refusal(known, token)
    assert who(known, local.token()).name == "the shop"
    for said in ("'weak': it has 1024 bits", "'told': everybody can read its private half", "['list']: its id is no"):
        assert said in caplog.text


def test_who_hangs_up_does_not_end_the_question_of_others(local: LocalIssuer) -> None:
    known = Issuer(local.spec())

    async def two() -> issuer_.Bearer:
        first = asyncio.create_task(known.who(local.token()))
        second = asyncio.create_task(known.who(local.token()))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert asyncio.run(two()).name == "the shop"
    assert local.asked == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"keys": 3}', b" " * (2**20 + 1)])
def test_what_is_no_jwks_is_an_issuer_that_is_away(body: bytes, local: LocalIssuer) -> None:
    async def fetch() -> bytes:
        return body

    with pytest.raises(KeysAwayError):
        who(Issuer(local.spec(), fetch), local.token())


def test_a_jwks_is_fetched_from_its_own_address_and_bounded(local: LocalIssuer) -> None:
    local.keys = ["x" * 2**20]
    with pytest.raises(ValueError, match="more than 1,048,576 bytes"):
        asyncio.run(issuer_.fetched(f"{local.url}/jwks.json"))


def test_one_key_needs_no_name(local: LocalIssuer) -> None:
    known = Issuer(local.spec())
    assert who(known, local.token(headers={})).name == "the shop"
    local.keys.append(public(pair("RS256"), "two", "RS256"))
    assert "none of the issuer's" in refusal(Issuer(local.spec()), local.token(headers={}))


@pytest.mark.parametrize(
    ("claim", "may"),
    [
        ("openid model:m model:n", True),
        (["model:m"], True),
        ("model:*", True),
        ("model:mm m", False),
        ("*", False),
        ("", False),
        (None, False),
        ({"model:m": 1}, False),
        ([["model:m"], 3], False),
    ],
)
def test_models_are_those_of_a_claim(local: LocalIssuer, claim: object, may: bool) -> None:
    known = Issuer(local.spec(models_claim="scope", models_prefix="model:"))
    assert who(known, local.token(scope=claim)).may_ask("m") is may


@given(st.text(max_size=300))
def test_no_text_at_all_is_a_fault_of_the_server(token: str) -> None:
    async def fetch() -> bytes:
        return b'{"keys": []}'

    spec = LocalIssuer.spec.__get__(type("Here", (), {"url": "http://127.0.0.1:1"})())()
    with pytest.raises(RefusedError):
        asyncio.run(Issuer(spec, fetch).who(token))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
CLAIMS = st.sampled_from(["iss", "aud", "exp", "nbf", "iat", "sub", "jti", "scope", "client_id", "azp"])
HEADERS = st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jku", "jwk", "cty", "zip"])


@given(st.dictionaries(HEADERS, JSON, max_size=2), st.dictionaries(CLAIMS, JSON, max_size=3))
@example({"crit": ["exp"]}, {})
@example({"crit": ["b64"], "b64": False}, {})
@example({"kid": ["one"]}, {})
@example({}, {"iss": [""]})
@example({}, {"exp": float("inf")})
@example({}, {"nbf": [float("nan")]})
@settings(deadline=None)
def test_whatever_an_issuer_signs_is_taken_or_refused(header: dict[str, Any], claims: dict[str, Any]) -> None:
    local = LocalIssuer("http://127.0.0.1:1")

    async def fetch() -> bytes:
        return json.dumps({"keys": local.keys}).encode()

    token = local.signed({"alg": "RS256", "kid": "one"} | header, local.claims() | claims)
    known = Issuer(local.spec(models_claim="scope"), fetch)
    try:
        found = who(known, token)
    except RefusedError:
        return
    assert (header.get("alg", "RS256"), header.get("kid", "one"), "crit" in header) == ("RS256", "one", False)
    assert (claims.get("iss", local.url), {"iss", "aud", "exp"} <= (local.claims() | claims).keys()) == (
        local.url,
        True,
    )
    assert isinstance(found.name, str)


def test_a_header_of_any_depth_is_a_refusal(local: LocalIssuer) -> None:
    for nested in (b"[" * 12_000, b'{"kid":' * 1700):
        assert "token is needed" in refusal(Issuer(local.spec()), f"{part(nested)}.e30.e30")


def test_the_guard_asks_for_tokens_or_for_keys(
    local: LocalIssuer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    storage = Storage(str(tmp_path / "store"))
    _, secret = callers.create(storage, "a key")
    known = Issuer(local.spec(models_claim="models"))
    front = Front(Server(tmp_path / "spool"), BOUNDS, Either(Callers(storage, 1), known))

    def ask(secret: str) -> tuple[int, Any]:
        answer = front.ask("POST", PREDICT, json=ONE, headers={"Authorization": f"Bearer {secret}"})
        return answer.status_code, answer.json().get("detail")

    good = local.token(models=["m"])
    assert (ask(good)[0], ask(secret)[0]) == (200, 200)
    assert [json.loads(line)["caller"] for line in front.lines] == ["the shop", "a key"]
    assert good not in "".join(front.lines)
    assert ask(local.token(models=["n"])) == (403, "this caller may not ask m")
    assert ask(local.token(models=["m"], exp=1)) == (401, "the token is not good: it has expired")
    assert ask("nonsense")[0] == 401
    local.away, known._asked = True, float("-inf")
    new = local.token(models=["m"], headers={"kid": "new"})
    assert ask(new) == (503, "the keys of the tokens' issuer cannot be read now (try again)")
    # Of what was sent nothing is written down, good or not.
    assert len(caplog.records) > 0
    for token in (good, new):
        assert not any(one in caplog.text + "".join(front.lines) for one in token.split("."))
    assert ask(good)[0] == 200


def test_a_spec_names_its_issuer_and_no_shared_secret(local: LocalIssuer) -> None:
    jwt_ = local.spec().model_dump()
    assert ServingSpec(auth="jwt", jwt=jwt_).jwt is not None
    for wrong, said in [
        ({"auth": "jwt"}, "auth: jwt goes with a part jwt"),
        ({"auth": "keys", "jwt": jwt_}, "auth: keys goes without a part jwt"),
        ({"auth": "jwt", "jwt": jwt_ | {"jwks_url": "http://issuer.example/jwks"}}, "is no https URL"),
        ({"auth": "jwt", "jwt": jwt_ | {"algorithms": ["HS256"]}}, "Input should be 'RS256'"),
        ({"auth": "jwt", "jwt": jwt_ | {"algorithms": ["none"]}}, "Input should be 'RS256'"),
        ({"auth": "jwt", "jwt": jwt_ | {"algorithms": []}}, "at least 1 item"),
    ]:
        with pytest.raises(ValidationError, match=said):
            ServingSpec.model_validate(wrong)
