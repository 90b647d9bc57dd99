"""The environment variables, for the settings of the project and of its apps."""

from pathlib import Path

import environ

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()
if (BASE_DIR / ".env").exists():
    environ.Env.read_env(BASE_DIR / ".env")

DEBUG = env.bool("DEBUG", default=True)
# Moves all five ports at once, for a second checkout on one machine.
PORT_OFFSET = env.int("PORT_OFFSET", default=0)
PORT = 8000 + PORT_OFFSET
SANDBOX_PORT = 8001 + PORT_OFFSET
LIVE_PORT = 8002 + PORT_OFFSET
SMTP_PORT = 1025 + PORT_OFFSET
# Whether the stand-ins for the world outside run beside this: on a laptop, if there are any.
SANDBOX = DEBUG and (BASE_DIR / "sandbox").is_dir()
# Experiments that break things, in places of their own: on a laptop, and where somebody asks for them.
LAB = env.bool("LAB", default=DEBUG and (BASE_DIR / "lab").is_dir())
