"""Shell completion: what is offered for the word that is being typed, and the shells' scripts that ask for it."""
