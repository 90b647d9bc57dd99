"""Sends alerts to the operators' chats, mailboxes and telephones, by apprise URLs.

A URL contains a token or a password: it is never logged, and rows store a digest of it.
"""

import hashlib
import logging

from apprise import Apprise, AppriseAsset, NotifyBase, NotifyType
from django.conf import settings
from django.urls import reverse

from durable.errors import PermanentError, TemporaryError
from myproject.alerting.models import Alert

log = logging.getLogger(__name__)

# Send sequentially: no threads and no event loop within a task.
ASSET = AppriseAsset(app_id=settings.SITE_NAME, async_mode=False)
CONNECT_SECONDS, ANSWER_SECONDS = 3, 5


def deliver(alert_id: int) -> bool:
    """Send the alert to each address once; True if this call reached the last of them.

    Raises `TemporaryError` while some address does not answer; the others are not notified again.
    A crash between sending and recording repeats the message.
    """
    if not settings.ALERT_URLS:
        Alert.objects.filter(pk=alert_id).leave_untold()
        return False
    claimed = Alert.objects.claim(first=Alert.objects.filter(pk=alert_id))
    if not claimed:
        log.info("Alert %s: nothing to send", alert_id)
        return False
    (alert,) = claimed
    try:
        services = [(number, service(number, address)) for number, address in enumerate(settings.ALERT_URLS, 1)]
    except PermanentError as error:
        alert.mark_failed(str(error))
        log.error("Alert %s cannot be sent: %s", alert.pk, error)
        return False
    if silent := [f"{number} ({found.service_name})" for number, found in services if not send(found, alert)]:
        alert.mark_silent(f"No answer from address {', '.join(silent)}.")
        raise TemporaryError(f"No answer from address {', '.join(silent)}")
    log.info("Alert %s was sent", alert.pk)
    return alert.mark_sent()


def send(found: NotifyBase, alert: Alert) -> bool:
    """Notify one address, unless it was notified before; False if it does not accept the message."""
    digest = hashlib.sha256(found.url().encode()).hexdigest()[:16]
    if digest in alert.reached:
        return True
    page = settings.SITE_URL + reverse("admin:myproject_alert_change", args=[alert.pk])
    title = f"{settings.SITE_NAME}: {alert.subject}"
    try:
        is_told = found.notify(title=title, body=f"{alert.text}\n{page}", notify_type=NotifyType.FAILURE)
    except Exception:
        # A fault of one service, or of its library, keeps the alert from no other address.
        log.exception("Alert %s: %s", alert.pk, found.service_name)
        return False
    if not is_told:
        return False
    alert.mark_reached(digest)
    return True


def service(number: int, address: str) -> NotifyBase:
    """Return the client of an address; raises `PermanentError` when apprise knows no such address."""
    found = Apprise.instantiate(address, asset=ASSET)
    if found is None:
        raise PermanentError(f"ALERT_URLS: address {number} is none that apprise understands.")
    found.socket_connect_timeout, found.socket_read_timeout = CONNECT_SECONDS, ANSWER_SECONDS
    return found
