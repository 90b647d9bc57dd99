from django.urls import path

from . import views

app_name = "lab"
urlpatterns = [
    path("lab/", views.index, name="index"),
    path("lab/files/<path:path>", views.file, name="file"),
    path("lab/<slug:slug>/", views.page, name="experiment"),
    path("lab/<slug:slug>/live/", views.live, name="live"),
    path("lab/<slug:slug>/run/", views.run, name="run"),
]
