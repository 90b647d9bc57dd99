"""How Sphinx makes the documentation: `make docs`."""

project = "Lantern & Loom"
extensions = ["myst_parser"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "Lantern & Loom"
# Nothing is fetched from elsewhere, when the pages are made or when they are read.
html_theme_options = {"source_edit_link": "", "footer_icons": []}
html_show_copyright = False
nitpicky = True
