import socket

import pytest

from statebacked_site import server


def test_taken_port_is_told_with_a_free_one():
    with server.bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(server.CannotListen, match=rf"Port {port} is in use .* --port \d+"):
            server.bind("127.0.0.1", port)


def test_suggested_port_can_be_used():
    with server.bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(server.CannotListen) as raised:
            server.bind("127.0.0.1", port)

        suggested = int(str(raised.value).rsplit(" ", 1)[1])
        server.bind("127.0.0.1", suggested).close()


@pytest.mark.parametrize("host", ["no such host", "192.0.2.1"])
def test_address_of_another_machine_is_refused(host):
    with pytest.raises(server.CannotListen, match=host):
        server.bind(host, 0)


def test_client_that_connects_early_is_kept_waiting_not_refused():
    with (
        server.bind("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        assert client.getpeername() == listener.getsockname()
