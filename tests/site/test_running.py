import os

import pytest

from statebacked_site.running import AlreadyRunning, only_server, running_url


def test_running_server_is_found_by_its_data_directory(tmp_path):
    assert running_url(tmp_path) is None

    with only_server(tmp_path) as record:
        assert running_url(tmp_path) is None  # not yet ready
        record.announce("http://127.0.0.1:8123")
        assert running_url(tmp_path) == "http://127.0.0.1:8123"

    assert running_url(tmp_path) is None


def test_second_server_of_a_data_directory_is_told_where_the_first_one_is(tmp_path):
    with only_server(tmp_path) as record:
        record.announce("http://127.0.0.1:8123")

        with (
            pytest.raises(AlreadyRunning, match=r"at http://127\.0\.0\.1:8123"),
            only_server(tmp_path),
        ):
            pass


def test_record_of_a_killed_server_counts_for_nothing(tmp_path):
    with only_server(tmp_path) as record:
        record.announce("http://127.0.0.1:8123")
        left = (tmp_path / "server.json").read_text()
    (tmp_path / "server.json").write_text(left)

    assert running_url(tmp_path) is None
    with only_server(tmp_path) as record:
        record.announce("http://127.0.0.1:9")
        assert running_url(tmp_path) == "http://127.0.0.1:9"


def test_half_written_record_is_no_address(tmp_path):
    with only_server(tmp_path):
        descriptor = os.open(tmp_path / "server.json", os.O_WRONLY)
        os.write(descriptor, b'{"url": "http:')
        os.close(descriptor)

        assert running_url(tmp_path) is None
