"""The backend, as Django finds it by ENGINE. All but the pool is Django's own."""

from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql import base

from statebacked_site.pooled_postgres.pool import Pool


class DatabaseWrapper(base.DatabaseWrapper):
    _connection_pools: dict[str, Pool] = {}  # noqa: RUF012 (Django's name; shared by all threads)

    @property
    def pool(self) -> Pool | None:
        """The pool of this process, if the settings ask for one."""
        options = self.settings_dict["OPTIONS"].get("pool")
        if self.alias == NO_DB_ALIAS or not options:
            return None
        pools = self._connection_pools
        if self.alias not in pools:
            # Several threads may make one; the first that is kept serves them all.
            configure = self._configure_connection  # type: ignore[attr-defined]
            pool = Pool(self.get_connection_params(), configure, **options)
            pools.setdefault(self.alias, pool)
        return pools[self.alias]
