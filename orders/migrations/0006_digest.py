from datetime import datetime, timezone

import django.db.models.deletion
import django.db.models.functions.datetime
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

# What is on the shelf already is not new: nobody is to read of all of it in the next digest.
LONG_AGO = datetime(2000, 1, 1, tzinfo=timezone.utc)


class Migration(migrations.Migration):

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ('orders', '0005_product_picture'),
    ]

    operations = [
        migrations.AddField(
            model_name='product',
            name='created_at',
            field=models.DateTimeField(default=LONG_AGO, editable=False),
            preserve_default=False,
        ),
        migrations.AlterField(
            model_name='product',
            name='created_at',
            field=models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), default=django.utils.timezone.now, editable=False),
        ),
        migrations.AddIndex(
            model_name='product',
            index=models.Index(fields=['created_at'], name='product_created_at'),
        ),
        migrations.CreateModel(
            name='Digest',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('mail_due_at', models.DateTimeField(blank=True, editable=False, null=True)),
                ('mail_sent_at', models.DateTimeField(blank=True, editable=False, null=True)),
                ('mail_error', models.CharField(blank=True, editable=False, max_length=300)),
                ('week', models.DateField()),
                ('skip_reason', models.CharField(blank=True, choices=[('nothing', 'Nothing ordered and nothing new'), ('unwanted', 'Unsubscribed or switched off before it was sent'), ('late', 'Not sent before the next one')], max_length=10)),
                ('person', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='digests', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'indexes': [models.Index(condition=models.Q(('mail_sent_at', None)), fields=['mail_due_at'], name='digest_mail_due')],
                'constraints': [
                    models.UniqueConstraint(fields=('week', 'person'), name='digest_once_a_week'),
                    models.CheckConstraint(condition=models.Q(('skip_reason', ''), models.Q(('mail_due_at', None), ('mail_sent_at', None)), _connector='OR'), name='digest_skipped_is_not_owed'),
                ],
            },
        ),
    ]
