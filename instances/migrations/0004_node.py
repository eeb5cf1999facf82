from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("instances", "0003_postgres_storage")]

    operations = [
        migrations.CreateModel(
            name="Node",
            fields=[
                ("id", models.TextField(primary_key=True, serialize=False)),
                ("address", models.TextField()),
                ("started_at", models.BigIntegerField()),
                ("lease_until", models.BigIntegerField()),
            ],
            options={"db_table": "node"},
        ),
    ]
