"""One suite over the clients of all languages. A package, so that what its tests share ends with them."""
