"""What wraps a wheel of wherry for each system: `make installers`. Imports nothing of the launcher."""
