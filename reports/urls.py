from django.urls import include, path

from . import dashboard, pack_views, schedule_views, views

reports = [
    path("", views.report_list, name="list"),
    path("statement/", views.statement, name="statement"),
    path("packs/", pack_views.pack_list, name="packs"),
    path("packs/<uuid:pk>/", pack_views.pack_detail, name="pack"),
    path("packs/<uuid:pk>/status/", pack_views.pack_status, name="pack-status"),
    path("packs/<uuid:pk>/behind/", pack_views.behind, name="pack-behind"),
    path("packs/<uuid:pk>/download/", pack_views.pack_download, name="pack-download"),
    path("schedules/", schedule_views.schedule_list, name="schedules"),
    path("schedules/<uuid:pk>/", schedule_views.schedule_detail, name="schedule"),
    path("schedules/<uuid:pk>/run/", schedule_views.run_schedule, name="run-schedule"),
    path("schedules/<uuid:pk>/pause/", schedule_views.pause_schedule, {"paused": True}, name="pause-schedule"),
    path("schedules/<uuid:pk>/resume/", schedule_views.pause_schedule, {"paused": False}, name="resume-schedule"),
    path("schedules/<uuid:pk>/delete/", schedule_views.delete_schedule, name="delete-schedule"),
    path("<uuid:pk>/", views.report_detail, name="detail"),
    path("<uuid:pk>/status/", views.report_status, name="status"),
    path("<uuid:pk>/behind/", views.behind, name="behind"),
    path("<uuid:pk>/cancel/", views.cancel_report, name="cancel"),
    path("<uuid:pk>/again/", views.ask_again, name="again"),
    path("<uuid:pk>/download/", views.report_download, name="download"),
    path("files/<str:token>/", views.file, name="file"),
]
urlpatterns = [
    path("dashboard/", dashboard.page, name="dashboard"),
    path("dashboard/now/", dashboard.now, name="dashboard-now"),
    path("people/data/", views.personal_data, name="personal-data"),
    path("people/delete/", views.delete_account, name="delete-account"),
    path("reports/", include((reports, "reports"))),
]
