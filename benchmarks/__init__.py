"""How fast it is, beside the loop that people write by hand. Off by default: `make bench`."""
