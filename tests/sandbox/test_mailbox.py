import smtplib
from email.message import EmailMessage
from typing import Any
from uuid import uuid4

import pytest

from .conftest import Sandbox


def make_mail(to: str, subject: str = "Grüße, your order") -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "shop@example.com", to, subject
    mail["Message-ID"] = f"<{uuid4()}@example.com>"
    mail.set_content("Thank you.\nhttps://shop.example.com/orders/7\n")
    mail.add_alternative(
        '<html><head><title>x</title></head><body><p style="color:red">Thank <b>you</b></p>'
        '<a href="https://shop.example.com/orders/7">Order</a><script>alert(1)</script></body></html>',
        subtype="html",
    )
    return mail


@pytest.fixture
def address() -> str:
    return f"{uuid4()}@example.com"


def mails(sandbox: Sandbox, to: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sandbox.ask(f"/mail.json?to={to}")
    return found


def test_mail_arrives_with_text_and_html(sandbox: Sandbox, address: str) -> None:
    sent = make_mail(address)
    sandbox.send(sent)

    (mail,) = mails(sandbox, address.upper())

    assert (mail["to"], mail["from"], mail["subject"]) == ([address], "shop@example.com", "Grüße, your order")
    assert mail["message_id"] == sent["Message-ID"]
    assert mail["text"] == "Thank you.\nhttps://shop.example.com/orders/7\n"
    assert "<b>you</b>" in mail["html"]


def test_mailbox_lists_newest_first_and_by_address(sandbox: Sandbox, address: str) -> None:
    for subject in ("Older", "Newer"):
        sandbox.send(make_mail(address, subject))
    sandbox.send(make_mail(f"other-{address}", "Not hers"))

    page = sandbox.fetch(f"/mail?to={address}")[2]

    assert [mail["subject"] for mail in mails(sandbox, address)] == ["Newer", "Older"]
    assert page.index("Newer") < page.index("Older")
    assert "Not hers" not in page
    assert "Not hers" in sandbox.fetch("/mail")[2]


def test_mail_page_shows_headers_and_both_parts(sandbox: Sandbox, address: str) -> None:
    mail = make_mail(address)
    mail.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="invoice.pdf")
    sandbox.send(mail)
    number = mails(sandbox, address)[0]["id"]

    status, headers, page = sandbox.fetch(f"/mail/{number}")

    assert status == 200
    assert "script-src" not in headers["Content-Security-Policy"]
    for expected in ("invoice.pdf", "Message-ID", f'src="/mail/{number}/html"', "Thank you.", "sandbox="):
        assert expected in page


def test_html_part_can_run_nothing_and_links_to_the_top(sandbox: Sandbox, address: str) -> None:
    sandbox.send(make_mail(address))
    number = mails(sandbox, address)[0]["id"]

    _, headers, html = sandbox.fetch(f"/mail/{number}/html")

    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "allow-scripts" not in policy
    assert '<head><base target="_top">' in html


def test_blind_copy_is_found_by_its_envelope(sandbox: Sandbox, address: str) -> None:
    mail = make_mail(f"visible-{address}")
    mail["Bcc"] = address
    sandbox.send(mail)

    (copy,) = mails(sandbox, address)

    assert copy["to"] == [f"visible-{address}", address]


@pytest.mark.parametrize(("fault", "code"), [("smtp_temporary", 451), ("smtp_permanent", 550)])
def test_mail_is_refused_when_the_fault_is_on(fault: str, code: int, sandbox: Sandbox, address: str) -> None:
    sandbox.switch_on(fault, count=1)

    with pytest.raises(smtplib.SMTPDataError) as caught:
        sandbox.send(make_mail(address))
    assert caught.value.smtp_code == code
    assert mails(sandbox, address) == []
    sandbox.send(make_mail(address))

    assert len(mails(sandbox, address)) == 1


def test_mail_can_ask_for_its_own_fault(sandbox: Sandbox, address: str) -> None:
    mail = make_mail(address)
    mail["Sandbox-Fault"] = "smtp_permanent"

    with pytest.raises(smtplib.SMTPDataError):
        sandbox.send(mail)

    assert mails(sandbox, address) == []


def test_mail_outlives_the_process(own_sandbox: Sandbox, address: str) -> None:
    own_sandbox.send(make_mail(address))
    own_sandbox.kill()
    own_sandbox.start()

    assert len(mails(own_sandbox, address)) == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"no header at all",
        b"Subject: \xff\xfe raw bytes\r\n\r\n\xff\xfe",
        b"Content-Type: text/plain; charset=unheard-of\r\n\r\n\xe4\xf6",
        b"Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!",
        b"Content-Type: multipart/alternative; boundary=x\r\n\r\n--y\r\n",
        b'Message-ID: <\r\nContent-Disposition: (a;?="a>\r\nSubject: Kept all the same\r\n\r\nhello',
        b"Subject: =?utf-8?q?=80=81?=\r\nTo: <<<>>>\r\n\r\nhello",
    ],
)
def test_broken_mail_is_kept_and_shown(raw: bytes, sandbox: Sandbox, address: str) -> None:
    with smtplib.SMTP("127.0.0.1", int(sandbox.smtp_port), timeout=10) as smtp:
        smtp.sendmail("shop@example.com", [address], raw)

    (mail,) = mails(sandbox, address)

    assert sandbox.fetch(f"/mail/{mail['id']}")[0] == 200
    assert sandbox.fetch(f"/mail/{mail['id']}/html")[0] == 200
    assert sandbox.fetch("/mail")[0] == 200
