from typing import Any

import pytest
from django.contrib.auth import get_user_model


@pytest.fixture
def person(db: None) -> Any:
    return get_user_model()._default_manager.create_user("reader", "reader@example.com")
