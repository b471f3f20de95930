"""The public release of a study: a folder that strangers may have, with nothing in it that leads to a listener.

`anonymity` makes answers about people k-anonymous, `people` says what can be generalised how, `rows` gives responses
new names and coarser times, `design` takes out of study.toml what is nobody's business, `words` writes what is read,
`check` makes the report again from the bundle alone, `bundle` puts it together, `command` is the command.
"""
