from django.urls import path, re_path

from . import how_it_works, import_views, staff_views, views

app_name = "orders"
urlpatterns = [
    path("", views.catalogue, name="catalogue"),
    path("how-it-works/", how_it_works.page, name="how-it-works"),
    path("products/<slug:slug>.svg", views.picture, name="picture"),
    re_path(r"^pictures/(?P<digest>[0-9a-f]{32})-(?P<width>\d{3,4})\.webp$", views.thumbnail, name="thumbnail"),
    path("products/<slug:slug>/", views.product, name="product"),
    path("basket/", views.basket, name="basket"),
    path("basket/add/<slug:slug>/", views.basket_add, name="basket-add"),
    path("basket/change/<slug:slug>/", views.basket_change, name="basket-change"),
    path("checkout/", views.checkout, name="checkout"),
    path("orders/", views.order_list, name="list"),
    path("orders/<slug:reference>/", views.order_detail, name="detail"),
    path("orders/<slug:reference>/status/", views.order_status, name="status"),
    path("orders/<slug:reference>/behind/", views.behind, name="behind"),
    path("orders/<slug:reference>/pay/", views.pay, name="pay"),
    path("orders/<slug:reference>/cancel/", views.cancel, name="cancel"),
    path("orders/<slug:reference>/nudge/", views.requeue, name="requeue"),
    path("orders/<slug:reference>/refund/", views.refund, name="refund"),
    path("orders/<slug:reference>/replay/", views.restart, name="restart"),
    path("orders/<slug:reference>/unflag/", views.unflag, name="unflag"),
    path("back-office/orders/", staff_views.order_list, name="staff-list"),
    path("back-office/orders/requeue/", staff_views.requeue_many, name="requeue-many"),
    path("back-office/orders/refund/", staff_views.refund_many, name="refund-many"),
    path("imports/", import_views.import_list, name="imports"),
    path("imports/<uuid:pk>/", import_views.import_detail, name="import-detail"),
    path("imports/<uuid:pk>/status/", import_views.import_status, name="import-status"),
    path("imports/<uuid:pk>/behind/", import_views.behind, name="import-behind"),
    path("imports/<uuid:pk>/rejected.csv", import_views.rejected_rows, name="import-rejected"),
    path("warehouse/", views.sync_list, name="syncs"),
    path("warehouse/<int:pk>/", views.sync_detail, name="sync"),
    path("warehouse/<int:pk>/status/", views.sync_status, name="sync-status"),
    path("webhooks/payments/", views.payment_webhook, name="payment-webhook"),
]
