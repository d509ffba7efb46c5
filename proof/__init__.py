"""Pages are read twice: from the source to run their blocks, as HTML to publish them.

`page` reads the source, `sandbox` runs a block, `evidence` keeps the outcome,
`rendered` compares the finished HTML with it. `pytest_plugin` and `mkdocs_plugin` are
the two doors.
"""
