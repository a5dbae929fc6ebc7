"""Who asks: from what a request carries to the owner of threads and runs (docs/security.md).

Pure verification: no routes, no stores, no graphs. What is asked is an owner's name; everything that an owner may see
follows from it alone, since the stores name threads and runs by owner and id.
"""
