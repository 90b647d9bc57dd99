"""Sessions and links outlive a change of SECRET_KEY, where the former key is named."""

from pathlib import Path

import pytest

from tests.factories import PASSWORD, make_user
from tests.production import Web
from tests.test_headers import LOGIN, pair

pytestmark = pytest.mark.operations


def test_sessions_and_links_outlive_a_change_of_the_secret_key(transactional_db: None, tmp_path: Path) -> None:
    person = make_user()
    with Web(tmp_path, SECRET_KEY="the-old-key-" * 5) as web:
        token = pair(web.get(LOGIN))
        form = {"csrfmiddlewaretoken": token.partition("=")[2], "login": person.email, "password": PASSWORD}
        cookies = web.post(LOGIN, form, Cookie=token).cookies()
    session = next(cookie for cookie in cookies if "sessionid" in cookie).partition(";")[0]

    new = {"SECRET_KEY": "the-new-key-" * 5}
    with Web(tmp_path, collected=False, SECRET_KEY_FALLBACKS="the-old-key-" * 5, **new) as web:
        known = web.get("/dashboard/", Cookie=session)
    with Web(tmp_path, collected=False, **new) as web:
        forgotten = web.get("/dashboard/", Cookie=session)

    assert (known.status, forgotten.status) == (200, 302)
