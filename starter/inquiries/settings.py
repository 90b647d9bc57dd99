"""Settings of inquiries; the project's settings take them in."""

from myproject.variables import DEBUG, env

# A stand-in for slow work, such as a call to another service.
INQUIRY_SECONDS = env.float("INQUIRY_SECONDS", default=2 if DEBUG else 0)
# For how long a worker may hold an inquiry: longer than the hard time limit of its task.
INQUIRY_LEASE_SECONDS = env.int("INQUIRY_LEASE_SECONDS", default=60)
