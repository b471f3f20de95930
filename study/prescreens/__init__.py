"""The steps of a prescreen, one module each; study.prescreen registers them."""
