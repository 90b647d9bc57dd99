"""What differs from Django's British formats: one way to write a time, 24 hours, on our pages and in the admin."""

TIME_FORMAT = "H:i"
DATETIME_FORMAT = "j M Y, H:i"
SHORT_DATETIME_FORMAT = "d/m/Y H:i"
