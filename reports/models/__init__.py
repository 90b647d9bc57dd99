from .daily_sales import DailyProductSales, DailySales, Sales, SalesCount
from .packs import OPEN_PACK, Pack, PackStatus
from .reports import (
    ASKED_FOR,
    MAX_ATTEMPTS,
    OPEN,
    PAUSES,
    SAME,
    SCHEDULED,
    WITH_DATES,
    Cancelled,
    Kind,
    Report,
    Status,
    private_files,
)
from .schedules import Period, ReportSchedule

__all__ = [
    "ASKED_FOR",
    "MAX_ATTEMPTS",
    "OPEN",
    "OPEN_PACK",
    "PAUSES",
    "SAME",
    "SCHEDULED",
    "WITH_DATES",
    "Cancelled",
    "DailyProductSales",
    "DailySales",
    "Kind",
    "Pack",
    "PackStatus",
    "Period",
    "Report",
    "ReportSchedule",
    "Sales",
    "SalesCount",
    "Status",
    "private_files",
]
