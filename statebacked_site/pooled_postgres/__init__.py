"""Django's backend for Postgres, with a pool that is usable again as soon as the database is."""
