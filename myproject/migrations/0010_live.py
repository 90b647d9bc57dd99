from django.db import migrations

from myproject.live.triggers import Tell


class Migration(migrations.Migration):
    """Tell the page *Try it* what becomes of a person's samples, whose tasks have ids such as `try-7-…`."""

    dependencies = [("myproject", "0009_trace_id"), ("django_celery_results", "0014_alter_taskresult_status")]

    operations = [
        Tell(
            "django_celery_results_taskresult",
            "SELECT DISTINCT concat_ws(':', 'samples', split_part(task_id, '-', 2))"
            " FROM changed WHERE task_id LIKE 'try-%'",
        ),
    ]
