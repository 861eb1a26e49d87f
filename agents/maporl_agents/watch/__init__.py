"""A debate that a person watches in a browser and steps into: `maporl watch`.

`debate` has the rules, as a function of the events that `record` keeps; `session` lets agents speak
and takes a person's decisions; `page` and `app` show them; `pairs` makes training data of them.
"""
