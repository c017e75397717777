"""The verbs: parse, call, render. The only place that prints and the only one that knows exit codes of commands."""
