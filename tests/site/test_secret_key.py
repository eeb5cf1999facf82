from concurrent.futures import ThreadPoolExecutor

from statebacked_site.secret_key import load_or_create_secret_key


def test_processes_that_start_at_once_get_the_same_key(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(load_or_create_secret_key, [tmp_path / "data"] * 32))

    assert len(keys) == 1
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["secret-key"]
