from celery import shared_task

from durable import mail
from durable.sweeps import Sweep, sweep

from . import emails, services
from .models import Inquiry
from .schedules import SCHEDULES

LIMITS = {"soft_time_limit": 40, "time_limit": 50}


@shared_task(**LIMITS, ignore_result=True)
def answer_inquiry(*, inquiry_id: int) -> None:
    """Answer an inquiry. Safe to repeat: it is claimed, and ends in the same write that owes the mail."""
    for inquiry in Inquiry.objects.claim(first=Inquiry.objects.filter(pk=inquiry_id)):
        if services.answer(inquiry):
            send_answer.delay_on_commit(inquiry_id=inquiry.pk)


@shared_task(**LIMITS, ignore_result=True)
def send_answer(*, inquiry_id: int) -> None:
    """Mail the answer. Safe to repeat: the mail is claimed, and the row remembers that it was sent."""
    mail.deliver(Inquiry.objects.select_related("person").claim_mail(inquiry_id), emails.answer)


@sweep(SCHEDULES["Check inquiries"])
def check_inquiries() -> list[Sweep]:
    """Queue again what was left behind. Safe to repeat: so is each inquiry."""
    due, unsent = Inquiry.objects.due(), Inquiry.objects.mail_due()
    return [
        Sweep(due.order_by("due_at"), answer_inquiry, "inquiry_id", give_up=services.give_up),
        Sweep(unsent.order_by("pk"), send_answer, "inquiry_id", limit=10, at_once=mail.BATCH),
    ]
