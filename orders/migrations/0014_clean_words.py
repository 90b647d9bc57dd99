from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models

from myproject import texts


def clean(apps, schema_editor):
    """Bring the words of products under the rules that hold from now on; most have never broken them."""
    Product = apps.get_model("orders", "Product")
    taken = set()
    for product in Product.objects.order_by("pk").only("sku", "name", "category", "slug", "description").iterator():
        sku = free(words(product.sku) or str(product.pk), taken)
        fields = {
            "sku": sku,
            "name": words(product.name) or sku,
            "category": words(product.category) or "Other",
            "description": lines(product.description),
            "slug": product.slug or f"product-{product.pk}",
        }
        if changed := [name for name, value in fields.items() if getattr(product, name) != value]:
            Product.objects.filter(pk=product.pk).update(**{name: fields[name] for name in changed})


def free(sku, taken):
    found, number = sku, 1
    while found.upper() in taken:
        number += 1
        found = f"{sku[:16]}-{number}"
    taken.add(found.upper())
    return found


def words(text):
    try:
        return texts.clean_words(text)
    except texts.Unprintable:
        return texts.clean_words(texts.show(text))


def lines(text):
    try:
        return texts.clean_text(text)
    except texts.Unprintable:
        return "\n".join(map(texts.show, text.splitlines()))


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0013_order_permissions"),
    ]

    operations = [
        migrations.RunPython(clean, migrations.RunPython.noop),
        AddConstraintNotValid(
            model_name="product",
            constraint=models.CheckConstraint(condition=~models.Q(slug=""), name="product_has_slug"),
        ),
        AddConstraintNotValid(
            model_name="product",
            constraint=models.CheckConstraint(
                condition=~models.Q(sku="") & ~models.Q(name="") & ~models.Q(category=""), name="product_has_words"
            ),
        ),
    ]
