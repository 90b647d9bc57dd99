from django.urls import path

from . import development, views

app_name = "accounts"
urlpatterns = [
    path("people/preferences/", views.preferences, name="preferences"),
    path("people/unsubscribe/<str:token>/", views.unsubscribe_by_link, name="unsubscribe"),
    path("people/sign-in-as/<slug:role>/", development.sign_in, name="sign-in-as"),
    path("people/tokens/", views.tokens, name="tokens"),
    path("people/tokens/<int:pk>/revoke/", views.revoke_token, name="revoke-token"),
    path("people/profile/", views.profile, name="profile"),
]
