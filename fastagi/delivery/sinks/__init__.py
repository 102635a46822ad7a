"""The ready-made sinks, one module each, with what only they need: the POST, its signatures, media types.

A module here that registers its class by `fastagi.delivery.sink_type.sink_type` is a type of `[[sinks]]`; nothing else
lists the types. CONTRIBUTING.md has the recipe.
"""
