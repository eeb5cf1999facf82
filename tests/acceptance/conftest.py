"""Fixtures of the acceptance tests: real servers, real runners, and an outside world to call."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.recorder import Recorder
from tests.acceptance.site import Site

MACHINES = Path(__file__).with_name("machines")
EXAMPLES = Path(__file__).parents[2] / "machines" / "examples"
SETTLE_LIMIT_S = 1.5  # of the shared site

Deploy = Callable[[str], str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.acceptance)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site for all tests that do not kill it; they tell their machines apart by name."""
    shared = Site(
        tmp_path_factory.mktemp("site") / "data",
        STATEBACKED_SETTLE_LIMIT=f"{SETTLE_LIMIT_S}s",
        STATEBACKED_EGRESS_ALLOW="127.0.0.0/8",
    )
    shared.start()
    yield shared
    assert shared.stop() == 0


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[Site]:
    """A site that the test may kill. It is not started yet."""
    own = Site(tmp_path / "data", STATEBACKED_EGRESS_ALLOW="127.0.0.0/8")
    yield own
    own.kill()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.close()


@pytest.fixture(scope="session")
def deploy(site: Site) -> Deploy:
    """Deploys a machine of tests/acceptance/machines once to the shared site; returns its slug."""
    deployed: set[str] = set()

    def deploy(file: str) -> str:
        machine = file.partition(".")[0]
        if machine not in deployed:
            directory = MACHINES if (MACHINES / file).exists() else EXAMPLES
            site.deploy(machine, directory / file)
            deployed.add(machine)
        return machine

    return deploy
