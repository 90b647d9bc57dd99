"""Settings of the lab; `myproject/settings.py` takes them in where the lab is on."""

from myproject.variables import DEBUG

# On a laptop everybody may run an experiment; elsewhere staff with the permission.
LAB_IS_OPEN = DEBUG
