"""Imported last by the fork server: what is loaded by now is shared, not collected.

A collection in a forked process would touch, and so copy, every page that it shares.
"""

import gc

gc.collect()
gc.freeze()
