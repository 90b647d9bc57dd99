"""The permissions of this app in the predefined groups; see `myproject/groups.py`."""

GROUPS = {"operations": ["lab.run_experiment"]}
