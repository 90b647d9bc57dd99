"""An app whose migrations get in each other's way, for the tests of `migrate`."""
