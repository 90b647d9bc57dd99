from typing import Any

from django import template
from django.conf import settings

from accounts.development import WHO
from reports.first_visit import checklist

register = template.Library()


@register.inclusion_tag("_first_visit.html", takes_context=True)
def first_visit(context: dict[str, Any]) -> dict[str, Any]:
    """Show how to begin, in development only."""
    request = context.get("request")
    if not settings.DEBUG or request is None:
        return {}
    own = {"request": request, "csrf_token": context.get("csrf_token")}
    places = {"Sandbox": settings.SANDBOX_URL, "Flower": settings.FLOWER_URL}
    if settings.SANDBOX_URL:
        places = {"Mailbox": f"{settings.SANDBOX_URL}/mail", **places}
    items = checklist(request)
    return own | {
        "roles": WHO,
        "items": items,
        "done": sum(item.done for item in items),
        "places": {name: url for name, url in places.items() if url},
    }
