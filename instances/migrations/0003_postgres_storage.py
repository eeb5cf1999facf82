from typing import Any

from django.db import migrations

# Every event rewrites its row: room in the page lets the new version lie beside the old one, so
# that no index has to be touched.
FILL = "ALTER TABLE instance SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05)"
DELIVERIES_COME_AND_GO = "ALTER TABLE delivery SET (autovacuum_vacuum_scale_factor = 0.02)"
# Faster than the default by far. Not every Postgres was built with it.
HAS_LZ4 = "SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'"
COMPRESSED = {"instance": ("state", "context"), "transition": ("event", "state", "context")}


def tune(apps: Any, schema_editor: Any) -> None:
    """How Postgres stores the tables of the event path; SQLite has nothing of the kind."""
    if schema_editor.connection.vendor != "postgresql":
        return
    schema_editor.execute(FILL)
    schema_editor.execute(DELIVERIES_COME_AND_GO)
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(HAS_LZ4)
        (has_lz4,) = cursor.fetchone()
    if has_lz4:
        for table, columns in COMPRESSED.items():
            for column in columns:
                schema_editor.execute(f"ALTER TABLE {table} ALTER {column} SET COMPRESSION lz4")


class Migration(migrations.Migration):
    dependencies = [("instances", "0002_indexes_for_pages")]

    operations = [migrations.RunPython(tune, migrations.RunPython.noop)]
