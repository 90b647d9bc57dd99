from django.contrib import admin
from django.urls import include, path

from myproject import flower
from reports import views as reports

urlpatterns = [
    path("", include("orders.urls")),
    path("dashboard/", reports.dashboard, name="dashboard"),
    path("accounts/", include("allauth.account.urls")),
    path("people/", include("accounts.urls")),
    path("reports/", include("reports.urls")),
    path("flower/", flower.enter, name="flower"),
    path("admin/", admin.site.urls),
]
