from django.db import migrations, models

# Where there are instances already, the next server to start compares all of them.
FILL_LATER = """INSERT INTO place_keeper (id, node_id, is_lost)
    SELECT 'before', '', true WHERE EXISTS (SELECT 1 FROM instance)"""


class Migration(migrations.Migration):
    dependencies = [
        ("authz", "0001_initial"),
        ("instances", "0007_messages"),
        ("machines", "0002_version_diagram"),
    ]

    operations = [
        migrations.CreateModel(
            name="KnownState",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("machine_id", models.BigIntegerField()),
                ("digest", models.CharField(max_length=64)),
                ("text", models.TextField()),
            ],
            options={
                "db_table": "known_state",
            },
        ),
        migrations.CreateModel(
            name="Place",
            fields=[
                ("instance_id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("machine_id", models.BigIntegerField()),
                ("state_id", models.BigIntegerField()),
                ("version_id", models.BigIntegerField()),
            ],
            options={
                "db_table": "place",
            },
        ),
        migrations.CreateModel(
            name="PlaceCount",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("machine_id", models.BigIntegerField(db_index=True)),
                ("state_id", models.BigIntegerField()),
                ("version_id", models.BigIntegerField()),
                ("instances", models.BigIntegerField()),
            ],
            options={
                "db_table": "place_count",
            },
        ),
        migrations.CreateModel(
            name="PlaceKeeper",
            fields=[
                ("id", models.TextField(primary_key=True, serialize=False)),
                ("node_id", models.TextField()),
                ("is_lost", models.BooleanField(default=False)),
            ],
            options={
                "db_table": "place_keeper",
            },
        ),
        migrations.AddIndex(
            model_name="instance",
            index=models.Index(
                condition=models.Q(("status", 1)), fields=["machine", "id"], name="instance_paused"
            ),
        ),
        migrations.AddConstraint(
            model_name="knownstate",
            constraint=models.UniqueConstraint(
                fields=("machine_id", "digest"), name="known_state_once"
            ),
        ),
        migrations.AddIndex(
            model_name="place",
            index=models.Index(
                fields=["state_id", "version_id", "instance_id"], name="place_of_state"
            ),
        ),
        migrations.AddConstraint(
            model_name="placecount",
            constraint=models.UniqueConstraint(
                fields=("state_id", "version_id"), name="place_count_once"
            ),
        ),
        migrations.RunSQL(FILL_LATER, migrations.RunSQL.noop),
    ]
