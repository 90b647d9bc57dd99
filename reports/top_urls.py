"""Pages of this app whose addresses are outside `reports/`."""

from django.urls import path

from . import dashboard, views

urlpatterns = [
    path("dashboard/", dashboard.page, name="dashboard"),
    path("people/data/", views.personal_data, name="personal-data"),
    path("people/delete/", views.delete_account, name="delete-account"),
]
