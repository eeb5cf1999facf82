"""Measures the site: `python3 manage.py bench`. Every number comes from a real server process."""
