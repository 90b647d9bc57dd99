from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('reports', '0012_live'),
    ]

    operations = [
        migrations.AlterField(
            model_name='dailyproductsales',
            name='refunded_units',
            field=models.PositiveBigIntegerField(),
        ),
        migrations.AlterField(
            model_name='dailyproductsales',
            name='units',
            field=models.PositiveBigIntegerField(),
        ),
        migrations.AlterField(
            model_name='dailysales',
            name='refunded_units',
            field=models.PositiveBigIntegerField(),
        ),
        migrations.AlterField(
            model_name='dailysales',
            name='units',
            field=models.PositiveBigIntegerField(),
        ),
    ]
