"""What the object store counts of the requests that it answers."""

import base64
import hashlib
import hmac
import json
import re
import time
from collections import Counter

import httpx
from marketlake.settings import ObjectStore

_LINE = re.compile(r'^minio_s3_requests_total\{.*api="(?P<api>\w+)".*\} (?P<count>[0-9.e+]+)$', re.MULTILINE)


def answered(store: ObjectStore) -> Counter[str]:
    """Return how many requests a MinIO server has answered so far, by the name of the call."""
    url = f"{store.endpoint}/minio/v2/metrics/cluster"
    answer = httpx.get(url, headers={"Authorization": f"Bearer {_token(store)}"}, timeout=30)
    answer.raise_for_status()
    counts: Counter[str] = Counter()
    for found in _LINE.finditer(answer.text):
        counts[found["api"]] += int(float(found["count"]))
    return counts


def _token(store: ObjectStore) -> str:
    """What MinIO wants of whoever reads its metrics: a JSON web token (RFC 7519) signed with the secret key."""
    claims = {"exp": int(time.time()) + 300, "sub": store.access_key_id, "iss": "prometheus"}
    signed = ".".join(
        _encoded(json.dumps(part).encode()) for part in ({"alg": "HS512", "typ": "JWT"}, claims)
    )
    secret = store.secret_access_key.get_secret_value().encode()
    return f"{signed}.{_encoded(hmac.new(secret, signed.encode(), hashlib.sha512).digest())}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
