"""An app whose migrations break what still runs the release before; the linter has to say so."""
