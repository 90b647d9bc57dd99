"""Sign in as somebody of the demo with one click; in development only."""

from typing import Any

from django.conf import settings
from django.contrib.auth import login
from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_POST

from .models import User

# In the session: when the visitor came first, for the ticks of the tour.
SINCE = "first_visit"
# Addresses of the demo. Anyone who can click may also read the password that they share.
WHO = {"customer": "customer@example.com", "staff": "staff@example.com", "support": "support@example.com"}


@login_not_required
@require_POST
def sign_in(request: HttpRequest, role: str) -> HttpResponse:
    """Sign in as this person of the demo. Outside of development there is no such page."""
    if not settings.DEBUG or role not in WHO:
        raise Http404("There is no such page.")
    person: Any = get_object_or_404(User.objects.filter(is_active=True), email=WHO[role])
    # To sign in as somebody else empties the session; the tour goes on.
    kept = {name: request.session[name] for name in [SINCE] if name in request.session}
    login(request, person, settings.AUTHENTICATION_BACKENDS[0])
    request.session.update(kept)
    return redirect("orders:catalogue" if role == "customer" else settings.LOGIN_REDIRECT_URL)
