from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('orders', '0007_noise_of_events'),
    ]

    operations = [
        migrations.AlterField(
            model_name='product',
            name='picture',
            field=models.FileField(blank=True, db_default='', default='', editable=False, max_length=80, upload_to=''),
        ),
        migrations.AlterField(
            model_name='product',
            name='picture_attempts',
            field=models.PositiveSmallIntegerField(db_default=0, default=0, editable=False),
        ),
        migrations.AlterField(
            model_name='product',
            name='picture_error',
            field=models.CharField(blank=True, db_default='', default='', editable=False, max_length=200),
        ),
        migrations.AlterField(
            model_name='product',
            name='picture_status',
            field=models.CharField(blank=True, choices=[('', 'None'), ('pending', 'Pending'), ('ready', 'Ready'), ('failed', 'Failed')], db_default='', default='', editable=False, max_length=7),
        ),
        migrations.AlterField(
            model_name='product',
            name='thumbnails',
            field=models.CharField(blank=True, db_default='', default='', editable=False, max_length=32),
        ),
    ]
