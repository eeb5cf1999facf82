import pytest

from statebacked_site.environment import InvalidVariable
from statebacked_site.redis_urls import celery_broker_url, read_redis_url, site_tag


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:6379/0",
        "redis://redis",
        "rediss://user:secret@redis.example.com:6380/2",
        "unix:///run/redis.sock?db=3",
        "",
    ],
)
def test_address_of_redis_is_taken_as_it_is(url):
    assert read_redis_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://redis:secret@host",
        "redis:///0",
        "redis://:secret@host:0/0",
        "redis://:secret@host/name",
        "redis://:secret@host:port/0",
        "unix://relative:secret@path",
        "unix:///run/redis.sock?db=secret",
    ],
)
def test_wrong_address_is_named_and_not_repeated(url):
    with pytest.raises(InvalidVariable, match="REDIS_URL") as refused:
        read_redis_url(url)

    assert "secret" not in str(refused.value)


def test_celery_has_its_own_word_for_sockets():
    assert celery_broker_url("redis://host:6379/1") == "redis://host:6379/1"
    assert (
        celery_broker_url("unix://:pass@/run/redis.sock?db=3")
        == "redis+socket://:pass@/run/redis.sock?virtual_host=3"
    )


def test_sites_on_one_redis_are_told_apart_and_their_processes_are_not():
    here = site_tag("key", "postgres://a@host/site")

    assert here == site_tag("key", "postgres://b@proxy:6000/site")
    assert here != site_tag("key", "postgres://a@host/other")
    assert here != site_tag("other key", "postgres://a@host/site")
