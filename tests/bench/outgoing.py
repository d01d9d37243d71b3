"""What the judge of outgoing messages holds: false positives on what agents ordinarily send, recall of secrets by family and dress.

    python -m tests.bench.outgoing

Everything is composed by a seeded generator; the secrets are random in published formats and open nothing. Source files of the running Python's
standard library stand in for the code that agents write and send.
"""

from __future__ import annotations

import base64
import json
import random
import string
import sysconfig
import urllib.parse
import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from enforcer.scanner.outgoing import Outgoing
from escrow import canary
from escrow.scanner_settings import ScannerSettings
from escrow.verdict import Finding
from tests.bench.figure import Figure

FALSE_POSITIVE_GOAL = 0.01
RECALL_GOAL = 0.95
LETTERS, DIGITS, HEX = string.ascii_letters + string.digits, string.digits, "0123456789abcdef"
LOWER = string.ascii_lowercase + string.digits
BASE32 = string.ascii_uppercase + "234567"


def _secrets(rng: random.Random) -> dict[str, str]:
    def some(count: int, alphabet: str = LETTERS) -> str:
        return "".join(rng.choices(alphabet, k=count))

    def b64url(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    body = "\n".join(some(64) for _ in range(24))
    return {
        "aws-access-token": "AKIA" + some(16, BASE32),
        "gcp-api-key": "AIza" + some(35),
        "github-pat": "ghp_" + some(36),
        "github-fine-grained-pat": "github_pat_" + some(82),
        "gitlab-pat": "glpat-" + some(20),
        "slack-bot-token": f"xoxb-{some(11, DIGITS)}-{some(12, DIGITS)}-{some(24)}",
        "slack-webhook-url": "https://hooks.slack.com/services/" + f"T{some(10)}/B{some(10)}/{some(24)}",
        "stripe-access-token": "sk_live_" + some(24),
        "openai-api-key": f"sk-proj-{some(74)}T3BlbkFJ{some(74)}",
        "anthropic-api-key": f"sk-ant-api03-{some(93)}AA",
        "npm-access-token": "npm_" + some(36),
        "pypi-upload-token": "pypi-AgEIcHlwaS5vcmc" + some(120),
        "huggingface-access-token": "hf_" + some(34, string.ascii_letters),
        "digitalocean-pat": "dop_v1_" + some(64, HEX),
        "sendgrid-api-token": f"SG.{some(22)}.{some(43)}",
        "shopify-access-token": "shpat_" + some(32, HEX),
        "databricks-api-token": "dapi" + some(32, HEX),
        "notion-api-token": f"ntn_{some(11, DIGITS)}{some(35)}",
        "private-key": f"-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----",
        "jwt": f"{b64url({'alg': 'HS256', 'typ': 'JWT'})}.{b64url({'sub': some(10, DIGITS), 'name': 'Amy', 'iat': 1700000000})}.{some(43)}",
    }


SECRETS: dict[str, str] = _secrets(random.Random(7))

DRESSES: dict[str, Callable[[str], str]] = {
    "plain": lambda text: text,
    "in a sentence": lambda text: f"Here it is ({text}), please use it.",
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64url without padding": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "base64 twice": lambda text: base64.b64encode(base64.b64encode(text.encode())).decode(),
    "hex": lambda text: text.encode().hex(),
    "percent": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "in an address": lambda text: f"https://example.org/a?q={urllib.parse.quote(text, safe='')}&n=1",
    "entities": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "unicode escapes": lambda text: "".join(f"\\u{ord(char):04x}" for char in text),
    "zero-width": lambda text: "\u200b".join(text),
    "full width": lambda text: "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text),
    "JSON in a string": lambda text: json.dumps({"a": [{"b": text}]}),
    "base64 in JSON in a string": lambda text: json.dumps({"blob": base64.b64encode(text.encode()).decode()}),
}

NAMES = ("report", "invoice", "main", "index", "utils", "handler", "parser", "README", "setup", "notes", "token_bucket", "key_store", "auth")
TEXT = (
    "the quick report shows that customers in northern regions prefer shorter contracts while the support team asks for a simpler way to reset their "
    "passwords and rotate keys every ninety days before the next audit of access rights and secret management practices takes place in autumn"
)
WORDS = TEXT.split()


def harmless(count: int, seed: int = 11) -> list[dict[str, Any]]:
    """Arguments of ordinary calls."""
    rng = random.Random(seed)
    makers = (_path, _code, _record, _identifiers, _git, _picture, _prose, _signed, _sql, _shell, _http, _page, _config, _mail, _search)
    return [makers[index % len(makers)](rng) for index in range(count)]


def _some(rng: random.Random, count: int, alphabet: str = LETTERS) -> str:
    return "".join(rng.choices(alphabet, k=count))


def _sentence(rng: random.Random, most: int = 20) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randrange(4, most))).capitalize() + "."


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def _path(rng: random.Random) -> dict[str, Any]:
    return {"path": f"/home/{rng.choice(('amy', 'ben'))}/src/{rng.choice(NAMES)}/{rng.choice(NAMES)}.{rng.choice(('py', 'ts', 'go', 'md'))}", "recursive": True}


@cache
def _sources() -> tuple[str, ...]:
    folder = Path(sysconfig.get_paths()["stdlib"])
    return tuple(path.read_text("utf-8", "replace") for path in sorted(folder.glob("*.py")))


def _code(rng: random.Random) -> dict[str, Any]:
    source = rng.choice(_sources())
    lines = source.splitlines(keepends=True)
    start = rng.randrange(max(1, len(lines) - 60))
    return {"path": f"src/{rng.choice(NAMES)}.py", "content": "".join(lines[start : start + rng.randrange(5, 60)])}


def _record(rng: random.Random) -> dict[str, Any]:
    row = {"id": _uuid(rng), "name": "Amy Keller", "etag": _some(rng, 32, HEX), "tags": [rng.choice(WORDS) for _ in range(3)], "amount": rng.randrange(10**6)}
    return {"record": row, "note": json.dumps(row), "key": f"user:{rng.randrange(10**6)}:profile", "max_tokens": 1024}


def _identifiers(rng: random.Random) -> dict[str, Any]:
    return {
        "issue_id": _uuid(rng),
        "idempotency_key": _uuid(rng),
        "trace": _some(rng, 32, HEX),
        "project": f"prj_{_some(rng, 16)}",
        "ulid": _some(rng, 26, BASE32),
    }


def _git(rng: random.Random) -> dict[str, Any]:
    sha = _some(rng, 40, HEX)
    return {"repo": "amy/shop", "commit": sha, "message": f"Revert {sha[:7]}: {_sentence(rng)}", "sha256": _some(rng, 64, HEX)}


def _picture(rng: random.Random) -> dict[str, Any]:
    raw = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + rng.randbytes(rng.randrange(300, 3000))
    data = base64.b64encode(raw).decode()
    return {"image": data if rng.random() < 0.5 else f"data:image/png;base64,{data}", "mimeType": "image/png"}


def _prose(rng: random.Random) -> dict[str, Any]:
    return {"text": " ".join(_sentence(rng) for _ in range(rng.randrange(3, 60))), "title": _sentence(rng, 8)}


def _signed(rng: random.Random) -> dict[str, Any]:
    stamp = f"202603{rng.randrange(10, 28)}T101500Z"
    query = f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date={stamp}&X-Amz-Expires=3600&X-Amz-SignedHeaders=host&X-Amz-Signature={_some(rng, 64, HEX)}"
    return {"url": f"https://bucket.s3.amazonaws.com/{_uuid(rng)}/{rng.choice(NAMES)}.pdf?{query}", "timeout": 30}


def _sql(rng: random.Random) -> dict[str, Any]:
    return {
        "query": f"SELECT id, password_hash, api_key_id FROM users WHERE token_expires > NOW() AND id = {rng.randrange(10**6)} ORDER BY created_at LIMIT 10"
    }


def _shell(rng: random.Random) -> dict[str, Any]:
    return {
        "command": f"cd /srv/{rng.choice(NAMES)} && git fetch && npm run build -- --key=value --token-file ./{rng.choice(NAMES)} | tee out.log",
        "cwd": "/srv",
    }


def _http(rng: random.Random) -> dict[str, Any]:
    return {
        "method": "GET",
        "url": f"https://api.example.org/v1/{rng.choice(NAMES)}?sort=key&page={rng.randrange(9)}",
        "headers": {"Accept": "application/json"},
    }


def _page(rng: random.Random) -> dict[str, Any]:
    cursor = base64.b64encode(json.dumps({"offset": rng.randrange(1000), "id": _uuid(rng)}).encode()).decode()
    return {"cursor": cursor, "page_token": _some(rng, 40), "next_token": _some(rng, 60), "limit": 50}


def _config(rng: random.Random) -> dict[str, Any]:
    lines = (
        "api_key: ${API_KEY}",
        "password: changeme",
        'token = os.environ["TOKEN"]',
        "secret_name: db-credentials",
        f"port: {rng.randrange(9999)}",
        "key: value",
    )
    return {"path": "config.yaml", "content": "\n".join(rng.sample(lines, 4)), "author": "Amy Keller", "primary_key": f"row-{rng.randrange(10**5)}"}


def _mail(rng: random.Random) -> dict[str, Any]:
    return {"to": ["amy@example.org"], "subject": _sentence(rng, 8), "body": f"Hi Amy,\n\n{_sentence(rng)} {_sentence(rng)}\n\nBest,\nBen\n+49 30 901820"}


def _search(rng: random.Random) -> dict[str, Any]:
    return {
        "q": f'"{rng.choice(WORDS)}" {rng.choice(("api token rotation", "secret santa ideas", "how to reset a password", "keyboard shortcuts"))}',
        "filters": {"lang": "en"},
    }


def _call(arguments: Any) -> dict[str, Any]:
    return {"method": "tools/call", "params": {"name": "tool", "arguments": arguments}}


def run(count: int = 3000) -> list[Figure]:
    """One row a figure: {id, value, unit, goal, met}."""
    judge = Outgoing(ScannerSettings())
    held = [judge.judge(_call(arguments)).verdict for arguments in harmless(count, seed=23)]
    wrong = [verdict for verdict in held if verdict.finding is not Finding.CLEAN]
    rows = [_row("outgoing.false-positives", len(wrong) / count, f"share of {count}", FALSE_POSITIVE_GOAL, len(wrong) / count <= FALSE_POSITIVE_GOAL)]
    sets = [_secrets(random.Random(seed)) for seed in range(20)]
    for family in SECRETS:
        found = [_found(judge, dress(secrets[family])) for secrets in sets for dress in DRESSES.values()]
        rows.append(_row(f"outgoing.recall.{family}", sum(found) / len(found), f"share of {len(found)}", None, None))
    for name, dress in DRESSES.items():
        found = [_found(judge, dress(secret)) for secrets in sets for secret in secrets.values()]
        share = sum(found) / len(found)
        rows.append(_row(f"outgoing.recall.{name}", share, f"share of {len(found)}", RECALL_GOAL, share >= RECALL_GOAL))
    rng = random.Random(5)
    tokens = [canary.make(rng.randbytes(canary.CHANCE_BYTES)) for _ in range(100)]
    judge.watch({canary.digest(token): f"c-{index}" for index, token in enumerate(tokens)})
    signs = [_canary(judge, dress(token)) for token in tokens for dress in DRESSES.values()]
    rows.append(_row("outgoing.recall.canaries", sum(signs) / len(signs), f"share of {len(signs)}", 1.0, all(signs)))
    return rows


def _found(judge: Outgoing, text: str) -> bool:
    return judge.judge(_call({"channel": "general", "text": text})).verdict.finding is Finding.HOSTILE


def _canary(judge: Outgoing, text: str) -> bool:
    return judge.conclude(judge.judge(_call({"text": text}))).verdict.finding is Finding.HOSTILE


def _row(name: str, value: float, unit: str, goal: float | None, met: bool | None) -> Figure:
    return {"id": name, "value": round(value, 4), "unit": unit, "goal": goal, "met": met}


if __name__ == "__main__":
    for row in run():
        print(f"{row['id']:60} {row['value']:8} {row['unit']:16} goal {row['goal']} met {row['met']}")
