"""A second implementation of the sealed cookie (src/sticky/cookie/seal.rs), sharing no code with the crate.

Prints the value that `a_value_is_what_the_reference_makes_of_the_same_facts` expects. Needs the packages
`cryptography` (with an OpenSSL that has AES-GCM-SIV) and `xxhash`.
"""

import base64
import hashlib
import hmac
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from xxhash import xxh3_64_intdigest


def hkdf_sha256(secret: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 without salt, for at most one block."""
    pseudorandom = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    return hmac.new(pseudorandom, info + b"\x01", hashlib.sha256).digest()[:length]


def name_id(name: str) -> int:
    return xxh3_64_intdigest(name.encode())


def seal(secret: bytes, cookie: str, pool: str, backend: str, issued: int, seen: int, nonce: bytes) -> str:
    key = hkdf_sha256(secret, b"sessile cookie 1 seal", 32)
    key_id = hkdf_sha256(secret, b"sessile cookie 1 id", 4)
    facts = struct.pack(">QQII", *map(name_id, (pool, backend)), issued, seen)
    sealed = AESGCMSIV(key).encrypt(nonce, facts, f"sessile cookie 1 {cookie}".encode())
    return base64.urlsafe_b64encode(b"\x01" + key_id + nonce + sealed).decode()


if __name__ == "__main__":
    secret = bytes.fromhex("00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210")
    print("id", hkdf_sha256(secret, b"sessile cookie 1 id", 4).hex())
    print(seal(secret, "SESSILE", "web", "app-2", 1_800_000_000, 1_800_000_500, bytes(range(12))))
