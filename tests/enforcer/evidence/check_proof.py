"""Check a proof that `holdfast audit export --proof` made: python check_proof.py KEY FILE. Prints the entry."""

import base64
import hashlib
import pathlib
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


name, key_id, key = sys.argv[1].split("+", 2)
public = base64.b64decode(key)[1:]
proof, note, signature_line = pathlib.Path(sys.argv[2]).read_text("utf-8").split("\n\n")
version, extra, index_line, *path = proof.split("\n")
origin, size_line, root = note.split("\n")
signature = base64.b64decode(signature_line.removeprefix(f"\u2014 {name} "))
assert version == "c2sp.org/tlog-proof@v1" and origin == name
assert signature[:4].hex() == key_id == sha256(f"{name}\n\x01".encode() + public)[:4].hex()
Ed25519PublicKey.from_public_bytes(public).verify(signature[4:], f"{note}\n".encode())

entry = base64.b64decode(extra.removeprefix("extra "))
index, last = int(index_line.removeprefix("index ")), int(size_line) - 1  # RFC 9162, section 2.1.3.2
assert 0 <= index <= last
found = sha256(b"\0" + entry)
for sibling in map(base64.b64decode, path):
    assert last > 0
    if index % 2 or index == last:
        found = sha256(b"\1" + sibling + found)
        while index % 2 == 0 and index:
            index, last = index >> 1, last >> 1
    else:
        found = sha256(b"\1" + found + sibling)
    index, last = index >> 1, last >> 1
assert last == 0 and found == base64.b64decode(root), "the entry is not in the log that was signed"
print(entry.decode())
