"""Host keys: their public blobs and signatures (RFC 4253 6.6; RFC 5656 3.1; RFC 8332; RFC 8709).

A client of ours checks the signature, not whose key it is: the channel inside proves the peer, bound to this very exchange.
"""

from __future__ import annotations

import base64
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from obscura.morph.ssh_packet import Broken, Fields, mpint, string

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_RSA_HASHES: Final[dict[str, type[hashes.HashAlgorithm]]] = {
    "rsa-sha2-512": hashes.SHA512,
    "rsa-sha2-256": hashes.SHA256,
    "ssh-rsa": hashes.SHA1,
}
_CURVES: Final[dict[str, tuple[str, type[hashes.HashAlgorithm]]]] = {
    "secp256r1": ("ecdsa-sha2-nistp256", hashes.SHA256),
    "secp384r1": ("ecdsa-sha2-nistp384", hashes.SHA384),
    "secp521r1": ("ecdsa-sha2-nistp521", hashes.SHA512),
}


class HostKey:
    """One private key of a server. ``algorithms``: what it signs by, in OpenSSH's order. ``blob``: the public key."""

    def __init__(self, private: PrivateKey) -> None:
        self._private = private
        text = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        kind, blob = text.split()[:2]
        self.algorithms = list(_RSA_HASHES) if isinstance(private, rsa.RSAPrivateKey) else [kind.decode()]
        self.blob = base64.b64decode(blob)

    def sign(self, algorithm: str, data: bytes) -> bytes:
        """The signature blob over ``data`` by one of ``algorithms``."""
        private = self._private
        if isinstance(private, rsa.RSAPrivateKey):
            signature = private.sign(data, padding.PKCS1v15(), _RSA_HASHES[algorithm]())
        elif isinstance(private, ec.EllipticCurvePrivateKey):
            r, s = decode_dss_signature(private.sign(data, ec.ECDSA(_CURVES[private.curve.name][1]())))
            signature = mpint(r) + mpint(s)
        else:
            signature = private.sign(data)
        return string(algorithm) + string(signature)


def verify(algorithm: str, blob: bytes, signature_blob: bytes, data: bytes) -> None:
    """Check a server's signature by the negotiated algorithm. Raises ``Broken``."""
    fields = Fields(signature_blob, 0)
    if fields.text() != algorithm:
        raise Broken("signed by another algorithm than agreed")
    signature = fields.string()
    kind = Fields(blob, 0).text()
    try:
        public = load_ssh_public_key(kind.encode() + b" " + base64.b64encode(blob))
        if isinstance(public, rsa.RSAPublicKey) and algorithm in _RSA_HASHES:
            public.verify(signature, data, padding.PKCS1v15(), _RSA_HASHES[algorithm]())
        elif isinstance(public, ec.EllipticCurvePublicKey) and _CURVES[public.curve.name][0] == algorithm:
            pair = Fields(signature, 0)
            encoded = encode_dss_signature(pair.mpint(), pair.mpint())
            public.verify(encoded, data, ec.ECDSA(_CURVES[public.curve.name][1]()))
        elif isinstance(public, ed25519.Ed25519PublicKey) and algorithm == "ssh-ed25519":
            public.verify(signature, data)
        else:
            raise Broken("a host key of another kind than agreed")
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, KeyError):
        raise Broken("the host key's signature is wrong") from None
    except NotImplementedError:  # RFC 5656, 3.1 allows it; OpenSSH reads none either
        raise Broken("a host key with a compressed point") from None
