"""From a conversation to the tokens that a model is given."""
