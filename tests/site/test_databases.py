"""What `up` says of a database that cannot be used."""

import subprocess

from tests.conftest import PROJECT_ROOT, manage_py, site_environment


def test_database_that_does_not_answer_is_told_in_a_line(tmp_path):
    variables = {
        "STATEBACKED_DATA": str(tmp_path),
        "DATABASE_URL": "postgres://someone:secret@127.0.0.1:1/site",
    }

    result = subprocess.run(
        manage_py("up", "--port", "0"),
        cwd=PROJECT_ROOT,
        env=site_environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 1
    assert "The database of DATABASE_URL cannot be used" in result.stderr
    assert "secret" not in result.stderr
    assert "Traceback" not in result.stderr
