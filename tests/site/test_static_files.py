def test_static_files_are_served_from_where_they_lie(client):
    response = client.get("/static/site/base.css")

    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/css")
    assert "max-age" in response.headers["Cache-Control"]


def test_files_outside_of_static_are_not_served(client):
    for path in [
        "/static/../manage.py",
        "/static/%2e%2e/manage.py",
        "/static/site/../../manage.py",
    ]:
        assert client.get(path).status_code == 404
