"""What a release sends: a message for each task, as it stood in the queue when it was recorded."""

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "messages.json"
# The rows that the messages name; a test makes those that it wants to see the work done for.
PK = 900_001
UUID = "0a1b2c3d-0000-4000-8000-000000900001"


def messages() -> dict[str, dict[str, Any]]:
    """Return the headers and the body (args, kwargs, options) of each task's message."""
    recorded: dict[str, dict[str, Any]] = json.loads(FILE.read_text())
    return recorded
