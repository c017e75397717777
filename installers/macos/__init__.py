"""The flat package and the Homebrew formula."""
