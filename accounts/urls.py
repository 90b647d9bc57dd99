from django.urls import path

from . import views

app_name = "accounts"
urlpatterns = [
    path("people/preferences/", views.preferences, name="preferences"),
    path("people/unsubscribe/<str:token>/", views.unsubscribe_by_link, name="unsubscribe"),
    path("people/profile/", views.profile, name="profile"),
]
