import csv
import logging
from typing import cast
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from accounts.models import User
from durable import trace
from durable.errors import TemporaryError
from myproject import texts
from myproject.traces import waterfall
from myproject.web.pages import staff_may
from myproject.web.paging import page_of

from . import import_services, imports, tasks
from .forms import ImportForm
from .models import ProductImport

log = logging.getLogger(__name__)

PER_PAGE = 12
# Rejected lines on the page; the download has more.
SHOWN = 50


@require_http_methods(["GET", "HEAD", "POST"])
@staff_may("orders.view_productimport", post="orders.add_productimport")
def import_list(request: HttpRequest) -> HttpResponse:
    form = ImportForm(request.POST, request.FILES) if request.method == "POST" else ImportForm()
    if form.is_valid() and (product_import := _start(request, form)):
        kwargs = {"import_id": str(product_import.pk)}
        tasks.import_products.apply_async_on_commit(kwargs=kwargs, **tasks.import_options(product_import.pk))
        return redirect(product_import)
    page = page_of(request, ProductImport.objects.order_by("-created_at"), PER_PAGE)
    context = {
        "form": form,
        "page": page,
        "longest": imports.LONGEST,
        "highest_stock": imports.HIGHEST_STOCK,
        "max_bytes": settings.IMPORT_MAX_BYTES,
        "max_rows": settings.IMPORT_MAX_ROWS,
    }
    return render(request, "orders/import_list.html", context, status=422 if form.errors else 200)


def _start(request: HttpRequest, form: ImportForm) -> ProductImport | None:
    """Store the file; None, with the reason in the form, if the storage fails."""
    try:
        return import_services.start_import(cast(User, request.user), **form.cleaned_data)
    except (OSError, TemporaryError) as error:
        log.warning("An uploaded file was not stored: %s", error)
        form.add_error("file", "The file could not be stored. Nothing of it was kept; upload it again later.")
        return None


@require_safe
@staff_may("orders.view_productimport")
def import_detail(request: HttpRequest, pk: UUID) -> HttpResponse:
    return render(request, "orders/import.html", _context(pk))


@require_safe
@staff_may("orders.view_productimport")
def import_status(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Render the live part of the import's page."""
    return render(request, "orders/_import.html", _context(pk))


@require_safe
@staff_may("orders.view_productimport")
def behind(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Show what ran for the import."""
    row = get_object_or_404(ProductImport, pk=pk)
    return waterfall.answer(
        request, [trace.label_of(row)], title=row.original_name, back=row.get_absolute_url(), is_open=row.is_open
    )


@require_safe
@staff_may("orders.view_productimport")
def rejected_rows(request: HttpRequest, pk: UUID) -> HttpResponse:
    product_import = get_object_or_404(ProductImport, pk=pk)
    answer = HttpResponse(content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="rejected-{str(pk)[:8]}.csv"'
    answer.write(texts.BOM)
    table = csv.writer(answer)
    table.writerow(["line", "reason", "cells"])
    for row in product_import.rejected_rows.order_by("line"):
        table.writerow([row.line, texts.csv_cell(row.reason), texts.csv_cell(row.raw)])
    return answer


def _context(pk: UUID) -> dict[str, object]:
    product_import = get_object_or_404(ProductImport.objects.select_related("requested_by"), pk=pk)
    rows = list(product_import.rejected_rows.order_by("line")[:SHOWN])
    return {
        "import": product_import,
        "rejected": rows,
        "more": product_import.rejected_count - len(rows),
        "kept": import_services.KEPT,
    }
