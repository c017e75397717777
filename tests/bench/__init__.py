"""What the machine costs in time, beside what a person would use instead. Figures of one run on one machine; compare ratios."""
