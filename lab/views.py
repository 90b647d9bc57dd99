from collections.abc import Callable
from functools import wraps

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from lab import notes, places, results, runs
from lab.experiment import Experiment
from lab.experiments import CHAPTERS, EXPERIMENTS
from myproject.web.pages import staff_may

View = Callable[..., HttpResponseBase]


def for_experimenters(view: View) -> View:
    """Let in everybody on a laptop, and elsewhere staff with the permission."""
    guarded = staff_may("lab.run_experiment")(view)

    @wraps(view)
    def checked(request: HttpRequest, *args: str, **kwargs: str) -> HttpResponseBase:
        if settings.LAB_IS_OPEN:
            return view(request, *args, **kwargs)
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path())
        return guarded(request, *args, **kwargs)

    return login_not_required(checked)


@for_experimenters
@require_safe
def index(request: HttpRequest) -> HttpResponse:
    chapters = [(title, [EXPERIMENTS[slug] for slug in slugs]) for title, slugs in CHAPTERS.items()]
    context = {"chapters": chapters, "count": len(EXPERIMENTS), "run": runs.latest(), "notes": notes.NOTES}
    return render(request, "lab/index.html", context)


@for_experimenters
@require_safe
def page(request: HttpRequest, slug: str) -> HttpResponse:
    return render(request, "lab/experiment.html", context_of(chosen_by(slug)))


@for_experimenters
@require_safe
def live(request: HttpRequest, slug: str) -> HttpResponse:
    """The part of the page that updates itself."""
    return render(request, "lab/_run.html", context_of(chosen_by(slug)))


@for_experimenters
@require_POST
def run(request: HttpRequest, slug: str) -> HttpResponse:
    chosen = chosen_by(slug)
    if not runs.start(chosen.slug):
        messages.warning(request, f"“{runs.latest().title}” is running. One experiment at a time.")
    return redirect("lab:experiment", slug)


@for_experimenters
@require_safe
def file(request: HttpRequest, path: str) -> HttpResponse:
    """Show a file that an experiment names, and no other."""
    if path not in places.files():
        raise Http404("No experiment names such a file.")
    context = {"path": path, "lines": places.lines_of(path, request.GET.get("name", ""))}
    return render(request, "lab/file.html", context)


def chosen_by(slug: str) -> Experiment:
    if slug not in EXPERIMENTS:
        raise Http404("There is no such experiment.")
    return EXPERIMENTS[slug]


def context_of(chosen: Experiment) -> dict[str, object]:
    latest = runs.latest()
    is_this = latest.slug == chosen.slug
    return {
        "experiment": chosen,
        "run": latest,
        "is_this": is_this,
        "follow": is_this and latest.is_going,
        "lanes": runs.lanes(chosen, latest),
        "known": results.known().get(chosen.slug, {}),
    }
