from typing import cast

from allauth.account.decorators import reauthentication_required
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import cache_control, never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_POST

from . import services, tasks, unsubscribe
from .forms import PreferencesForm, ProfileForm, TokenForm
from .models import User

NOTICES_SHOWN = 10


@require_http_methods(["GET", "POST"])
def profile(request: HttpRequest) -> HttpResponse:
    # A copy, so that the page header does not show a rejected name.
    person = User.objects.get(pk=cast(User, request.user).pk)
    form = ProfileForm(request.POST or None, instance=person)
    if form.is_valid():
        if services.change_profile(person, **form.cleaned_data):
            tasks.sync_user_to_crm.delay_on_commit(user_id=person.pk)
        messages.success(request, "Your profile is saved.")
        return redirect("accounts:profile")
    return render(request, "accounts/profile.html", {"form": form})


@require_http_methods(["GET", "HEAD", "POST"])
def preferences(request: HttpRequest) -> HttpResponse:
    person = cast(User, request.user)
    form = PreferencesForm(request.POST if request.method == "POST" else None, instance=person)
    if form.is_valid():
        form.save()
        messages.success(request, "Your mail preferences are saved.")
        return redirect("accounts:preferences")
    notices = person.notifications.order_by("-created_at", "-pk")[:NOTICES_SHOWN]
    return render(request, "accounts/preferences.html", {"form": form, "notices": notices})


@require_http_methods(["GET", "HEAD", "POST"])
@reauthentication_required
@cache_control(private=True, no_store=True, no_transform=True)
def tokens(request: HttpRequest) -> HttpResponse:
    """List the person's tokens; by POST, make one and show its secret, this once."""
    person, secret = cast(User, request.user), ""
    form = TokenForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        try:
            secret = services.make_token(person, form.cleaned_data["name"])
        except services.TooMany as error:
            form.add_error(None, str(error))
    context = {
        "form": TokenForm() if secret else form,
        "secret": secret,
        "tokens": person.api_tokens.order_by("-created_at", "-pk"),
    }
    return render(request, "accounts/tokens.html", context, status=422 if form.errors else 200)


@require_POST
def revoke_token(request: HttpRequest, pk: int) -> HttpResponse:
    if services.revoke_token(cast(User, request.user), pk):
        messages.success(request, "The token is revoked: scripts that send it are refused.")
    else:
        messages.info(request, "The token had been revoked already.")
    return redirect("accounts:profile")


# The token is the permission: mail programs post here themselves (RFC 8058), without login, cookie or form.
@csrf_exempt
@login_not_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def unsubscribe_by_link(request: HttpRequest, token: str) -> HttpResponse:
    """Unsubscribe by POST only; GET asks for confirmation, since mail scanners open every link."""
    try:
        person_id, mailing = unsubscribe.read(token)
    except unsubscribe.BrokenLink:
        return render(request, "accounts/unsubscribe_broken.html", status=404)
    if request.method == "POST":
        services.unsubscribe(person_id, mailing)
    context = {"mailing": mailing, "is_done": request.method == "POST"}
    return render(request, "accounts/unsubscribe.html", context)
