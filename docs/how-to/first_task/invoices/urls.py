"""No page of its own: the admin has one."""

urlpatterns: list[object] = []
