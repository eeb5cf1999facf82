"""What tests of pages share: a browser that is signed in, and what holds for every page."""

import re
from typing import Any

from django.test import Client

from authz.models import Membership, Org
from tests.factories import make_member

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>\u202e{{ 7|add:7 }}'


def browser_of(org: Org, role: str = Membership.Role.ADMIN) -> Client:
    """A browser in which a new member of the org is signed in."""
    client = Client()
    client.force_login(make_member(org, role))
    return client


def url(org: Org, path: str = "") -> str:
    return f"/o/{org.public_id}{path}"


def assert_strict(response: Any, status: int = 200) -> str:
    """Check what the policy needs of a whole page; returns the page."""
    page: str = response.content.decode()
    assert response.status_code == status, page[:2000]
    assert "script-src 'self';" in response["content-security-policy"]
    for script in re.findall(r"<script[^>]*>", page):
        assert ' src="/static/' in script or 'type="application/json"' in script
    assert "<style" not in page
    assert not re.search(r"<[^>]*\s(style|on\w+)=", without_values(page))
    assert not re.search(r'(src|href)="(https?:)?//', page)
    assert re.search(r'<html lang="en"[^>]*>', page)
    assert re.search(r"<title>[^<]+ · State Backed</title>", page)
    return page


def without_values(page: str) -> str:
    """The page with every quoted value empty: what is left is markup and text."""
    return re.sub(r'="[^"]*"|=\'[^\']*\'', '=""', page)


def text_of(page: str) -> str:
    """What a person reads, in one line."""
    visible = re.sub(r"<(script|svg|template)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", visible)).strip()
