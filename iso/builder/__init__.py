"""The parts of iso/build.py, one concern each. Standard library only."""
