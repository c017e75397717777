"""wherry's own verbs, one module per verb or family; imported when called."""
