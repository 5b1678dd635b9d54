"""The page at ``/``: one HTML file with its own style and script, and headers that let it load nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("page.html")


@cache
def page() -> bytes:
    """Return the page."""
    return _FILE.read_bytes()


def _hashes(tag: str) -> str:
    """Return the sums of what stands in ``tag`` elements of the page, as a policy names them."""
    inside = re.findall(rb"<%s>(.*?)</%s>" % (tag.encode(), tag.encode()), page(), re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'" for text in inside)


PAGE_HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; style-src {_hashes('style')}; script-src {_hashes('script')}; connect-src 'self';"
        " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cross-origin-opener-policy": "same-origin",
}
