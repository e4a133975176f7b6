"""Documentation: the pages, and in `docs.site` what makes the site from them."""
