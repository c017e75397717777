"""Container images for the tests, made of Debian packages without a registry, and a real registry to run beside them."""
