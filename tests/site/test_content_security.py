import inspect

import pytest
from django.http import HttpRequest, HttpResponse

from statebacked_site.content_security import ContentSecurityPolicyMiddleware


def test_every_page_comes_with_the_policy(client):
    response = client.get("/no-such-page")

    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy


def test_view_may_set_a_policy_of_its_own():
    def view(_request):
        return HttpResponse(headers={"Content-Security-Policy": "sandbox"})

    response = ContentSecurityPolicyMiddleware(view)(HttpRequest())

    assert isinstance(response, HttpResponse)
    assert response.headers["Content-Security-Policy"] == "sandbox"


async def test_async_view_is_awaited_without_a_thread():
    async def view(_request):
        return HttpResponse()

    answer = ContentSecurityPolicyMiddleware(view)(HttpRequest())

    assert inspect.isawaitable(answer)
    response = await answer
    assert "Content-Security-Policy" in response.headers


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("Referrer-Policy", "same-origin"),
    ],
)
def test_other_protections_are_on(client, header, value):
    assert client.get("/no-such-page").headers[header] == value
