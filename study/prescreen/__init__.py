"""The steps of a listening prescreen, one module each; `steps` registers them."""
