from django.urls import path

from . import views

app_name = "accounts"
urlpatterns = [
    path("preferences/", views.preferences, name="preferences"),
    path("unsubscribe/<str:token>/", views.unsubscribe_by_link, name="unsubscribe"),
    path("profile/", views.profile, name="profile"),
]
