from django.conf import settings
from django.contrib import admin
from django.urls import include, path

from myproject.api import root as api
from myproject.monitoring import status
from myproject.try_it import page as try_it
from myproject.web import flower, pages, second_factor, theme

# Where django-allauth looks for it.
handler429 = pages.too_many_requests
handler400, handler403, handler404, handler500 = map(pages.error, (400, 403, 404, 500))

urlpatterns = [
    *(path("", include(f"{app}.urls")) for app in settings.APPS),
    path("api/v1/", api.urls()),
    path("dashboard/queues/", status.page, name="queues"),
    path("accounts/", include("allauth.account.urls")),
    path("accounts/second-factor/", include("allauth.mfa.urls")),
    path("theme/", theme.choose, name="theme"),
    path("favicon.ico", pages.favicon),
    path("try-it/", try_it.page, name="try_it"),
    path("try-it/runs/", try_it.runs, name="try_it_runs"),
    path("try-it/<slug:name>/", try_it.queue, name="try_it_queue"),
    path("flower/", flower.enter, name="flower"),
    path("admin/login/", second_factor.enter_admin),
    path("admin/", admin.site.urls),
]
